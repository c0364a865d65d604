// Command bench measures what the webhook costs, next to what it could cost at
// least, and prints tables.
//
//	go run ./bench              # everything, about eight minutes
//	go run ./bench -quick       # a look, about two
//	go run ./bench -docs        # what README.md and docs/scaling.md show
//
// All that is compared runs in the same rounds, one after the other, and the
// tables have the medians of the rounds: on a machine that does other things
// too, times come and go, ratios stay. Each side is a process of its own, so
// that its CPU time can be told; all traffic stays on the loopback interface.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

func main() {
	if role := os.Getenv(roleVariable); role != "" {
		os.Exit(runRole(role))
	}
	quick := flag.Bool("quick", false, "fewer rounds of fewer events")
	svg := flag.String("svg", "", "draw the comparisons to `FILE`")
	docs := flag.Bool("docs", false, "put the tables into README.md and docs/scaling.md, and the drawing into bench/bench.svg")
	only := flag.String("only", "", "only the tables whose title contains `TEXT`")
	flag.Parse()
	if err := run(*quick, *docs, *svg, *only); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// A bench is where the measurements take place.
type bench struct {
	dir    string // temporary
	broker string // the program examples/broker
	rounds int
	scale  int // divides numbers of events
}

// A table is a group of measurements that are compared with each other.
type table struct {
	title string
	unit  string // what is counted
	page  string // of the documentation that shows it
	rows  []row
}

// The pages that show tables.
const (
	readme  = "README.md"
	scaling = "docs/scaling.md"
)

type row struct {
	name    string
	measure func(b *bench) (outcome, error)
	base    bool   // the one that others are compared with
	minus   string // the row whose CPU time is not this row's own
	results []outcome
}

func run(quick, docs bool, svg, only string) error {
	dir, err := os.MkdirTemp("", "webhook-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{dir: dir, broker: filepath.Join(dir, "broker.exe"), rounds: 5, scale: 1}
	if quick {
		b.rounds, b.scale = 3, 8
	}
	build := exec.Command("go", "build", "-o", b.broker, "github.com/mochi-hooks/webhook/examples/broker")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("building examples/broker: %w", err)
	}

	begin := time.Now()
	var tables []*table
	for _, t := range plan() {
		if !strings.Contains(t.title, only) {
			continue
		}
		tables = append(tables, t)
		for range b.rounds {
			for i := range t.rows {
				r := &t.rows[i]
				o, err := r.measure(b)
				if err != nil {
					return fmt.Errorf("%s: %s: %w", t.title, r.name, err)
				}
				r.results = append(r.results, o)
			}
		}
		t.print(os.Stdout)
	}
	on := fmt.Sprintf("%s%s, %s/%s, %d CPUs, medians of %d rounds, %v in all.\n",
		cpuName(), runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), b.rounds, time.Since(begin).Round(time.Second))
	fmt.Print(on)
	if docs {
		svg = "bench/bench.svg"
		for _, page := range []string{readme, scaling} {
			if err := replaceTables(page, tables, on); err != nil {
				return err
			}
		}
	}
	if svg != "" {
		return os.WriteFile(svg, draw(tables), 0o666)
	}
	return nil
}

// replaceTables puts tables into the page that shows them.
func replaceTables(file string, tables []*table, on string) error {
	var shown bytes.Buffer
	for _, t := range tables {
		if t.page == file {
			t.print(&shown)
		}
	}
	if shown.Len() == 0 {
		return nil
	}
	shown.WriteString(on)
	old, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, rest, begins := bytes.Cut(old, []byte("<!-- bench -->\n"))
	_, after, ends := bytes.Cut(rest, []byte("<!-- /bench -->\n"))
	if !begins || !ends {
		return fmt.Errorf("%s has no place for the tables", file)
	}
	var text bytes.Buffer
	fmt.Fprintf(&text, "%s<!-- bench -->\n\n%s\n<!-- /bench -->\n%s", before, bytes.TrimSpace(shown.Bytes()), after)
	return os.WriteFile(file, text.Bytes(), 0o666)
}

// plan is everything that is measured.
func plan() []*table {
	send := func(role string, args arguments) func(b *bench) (outcome, error) {
		return func(b *bench) (outcome, error) { return b.send(role, args) }
	}
	std := arguments{Events: 40000, Clients: 1000, Payload: 64, Pool: connections}
	with := func(change func(a *arguments)) arguments {
		a := std
		change(&a)
		return a
	}
	// The first connections and the growth of the heap are no part of what a
	// webhook costs: enough events to make that little.
	long := with(func(a *arguments) { a.Events = 200000 })
	var hangs []row
	for _, clients := range []string{"", ", paho.mqtt.golang"} {
		for qos := range byte(2) {
			name, library := fmt.Sprintf("QoS %d%s", qos, clients), clients != ""
			hangs = append(hangs,
				row{name: name + ", no hook", base: true, measure: hung(qos, false, library)},
				row{name: name + ", hook", measure: hung(qos, true, library)})
		}
	}
	tables := []*table{
		{title: "Delivery", unit: "webhooks", rows: []row{
			{name: "raw socket loop (the limit)", base: true, measure: send("loop", long)},
			{name: "this package", measure: send("hook", long)},
			{name: "this package, disk queue", measure: send("hook", with(func(a *arguments) { a.Events, a.Dir = long.Events, "queue" }))},
			{name: "net/http", measure: send("net/http", std)},
		}},
		{title: "Batches of 100", unit: "events", rows: []row{
			{name: "one by one", base: true, measure: send("hook", std)},
			{name: "batches, 10,000 waiting", measure: send("hook", with(func(a *arguments) { a.Batch, a.Capacity, a.Events = true, 10000, 1500000 }))},
			{name: "batches, 100,000 waiting", measure: send("hook", with(func(a *arguments) { a.Batch, a.Events = true, 1500000 }))},
			{name: "batches, gzip", measure: send("hook", with(func(a *arguments) { a.Batch, a.Gzip, a.Capacity, a.Events = true, true, 10000, 500000 }))},
			{name: "batches, disk queue", measure: send("hook", with(func(a *arguments) { a.Batch, a.Dir, a.Events = true, "queue", 500000 }))},
		}},
		{title: "Broker, endpoint hangs", unit: "publishes", rows: hangs},
		{title: "End to end, 50 publishers at QoS 1", unit: "webhooks", rows: []row{
			{name: "raw socket loop alone", base: true, measure: send("loop", with(func(a *arguments) { a.Events = 80000 }))},
			{name: "broker without hook", measure: endToEnd(false)},
			{name: "broker with hook", minus: "broker without hook", measure: endToEnd(true)},
		}},
	}
	enqueue := &table{title: "A publish, to enqueued", unit: "publishes"}
	for _, n := range []int{1, 1000, 100000} {
		enqueue.rows = append(enqueue.rows, row{name: fmt.Sprintf("matches none of %d rules", n), base: n == 1,
			measure: send("enqueue", with(func(a *arguments) { a.Rules, a.Events = n, 2000000 }))})
	}
	for _, n := range []int{1, 1000, 100000} {
		enqueue.rows = append(enqueue.rows, row{name: fmt.Sprintf("matches, %d clients", n),
			measure: send("enqueue", with(func(a *arguments) { a.Match, a.Full, a.Clients, a.Events = true, true, n, 300000 }))})
	}
	for _, n := range []int{1 << 10, 16 << 10} {
		enqueue.rows = append(enqueue.rows, row{name: fmt.Sprintf("matches, payload %d KiB", n>>10),
			measure: send("enqueue", with(func(a *arguments) { a.Match, a.Full, a.Capacity, a.Payload, a.Events = true, true, 2000, n, 20000 }))})
	}
	disk := &table{title: "Disk queue", unit: "publishes", rows: []row{
		{name: "enqueue, memory queue, payload 110 bytes", base: true,
			measure: send("enqueue", with(func(a *arguments) { a.Match, a.Payload, a.Events = true, 110, 500000 }))},
		{name: `enqueue, sync = "100ms"`,
			measure: send("enqueue", with(func(a *arguments) { a.Match, a.Payload, a.Dir, a.Events = true, 110, "queue", 500000 }))},
		{name: `sync = "always", 1 publisher at QoS 1`, base: true, measure: always(1)},
		{name: `sync = "always", 50 publishers at QoS 1`, measure: always(50)},
	}}
	payload := &table{title: "Payload", unit: "webhooks"}
	for _, n := range []int{64, 1 << 10, 16 << 10, 256 << 10} {
		payload.rows = append(payload.rows, row{name: fmt.Sprintf("%d bytes", n), base: n == 64,
			measure: send("hook", with(func(a *arguments) { a.Payload, a.Events = n, min(20000, 1<<30/n) }))})
	}
	pool := &table{title: "pool_size", unit: "webhooks"}
	for _, n := range []int{1, 4, 32, 256} {
		pool.rows = append(pool.rows, row{name: fmt.Sprint(n), base: n == 1,
			measure: send("hook", with(func(a *arguments) { a.Pool, a.Events = n, 20000 }))})
	}
	tables = append(tables, enqueue, disk, payload, pool)
	for _, t := range tables {
		t.page = readme
	}
	return append(tables, planStreams(std)...)
}

// send measures a role that sends to a receiver.
func (b *bench) send(role string, args arguments) (outcome, error) {
	args.Events = max(args.Events/b.scale, 1000)
	if args.Dir != "" {
		dir, err := os.MkdirTemp(b.dir, args.Dir)
		if err != nil {
			return outcome{}, err
		}
		defer os.RemoveAll(dir)
		args.Dir = dir
	}
	r, err := start("receiver", arguments{Hang: role == "enqueue"})
	if err != nil {
		return outcome{}, err
	}
	defer r.kill()
	if args.Addr, err = r.addr(); err != nil {
		return outcome{}, err
	}
	s, err := start(role, args)
	if err != nil {
		return outcome{}, err
	}
	defer s.kill()
	return s.outcome()
}

// hung measures the broker's throughput while its endpoint does not answer, with
// publishers that cost next to nothing, or those of a library.
func hung(qos byte, hook, library bool) func(b *bench) (outcome, error) {
	return func(b *bench) (outcome, error) {
		// Enough to fill the queue several times, so that its growth is a part only.
		events, window := 400000, 20
		switch {
		case library:
			events = 200000
		case qos == 0:
			events, window = 2000000, 64
		}
		args := arguments{Hang: true, Library: library, Clients: 50, Window: window, Events: max(events/b.scale, 1000)}
		o, _, err := b.throughBroker(qos, hook, args)
		return o, err
	}
}

// always measures publishes that wait until they are on disk.
func always(publishers int) func(b *bench) (outcome, error) {
	return func(b *bench) (outcome, error) {
		args := arguments{Hang: true, Always: true, Clients: publishers, Window: 1, Events: max(2000*min(publishers, 20)/b.scale, 500)}
		var err error
		if args.Dir, err = os.MkdirTemp(b.dir, "queue"); err != nil {
			return outcome{}, err
		}
		defer os.RemoveAll(args.Dir)
		o, _, err := b.throughBroker(1, true, args)
		return o, err
	}
}

// endToEnd measures webhooks of published messages, from the first publish to
// the last receipt; without the hook the publishes alone.
func endToEnd(hook bool) func(b *bench) (outcome, error) {
	return func(b *bench) (outcome, error) {
		args := arguments{Latency: true, Clients: 50, Window: 20, Events: max(80000/b.scale, 1000)}
		o, received, err := b.throughBroker(1, hook, args)
		if hook {
			o.P50, o.P99, o.Lost = received.P50, received.P99, args.Events-received.Events
		}
		return o, err
	}
}

// throughBroker publishes to the program examples/broker, and returns the
// outcome with that program's CPU time, and the receiver's outcome.
func (b *bench) throughBroker(qos byte, hook bool, args arguments) (o, received outcome, err error) {
	args.Events = args.Events / args.Clients * args.Clients
	r, err := start("receiver", args)
	if err != nil {
		return o, received, err
	}
	defer r.kill()
	addr, err := r.addr()
	if err != nil {
		return o, received, err
	}
	command := exec.Command(b.broker, "-listen", "127.0.0.1:0", "-drain", "0s")
	if hook {
		file := filepath.Join(b.dir, "webhook.hcl")
		queue := ""
		if args.Always {
			queue = fmt.Sprintf("  queue { type = \"disk\", dir = %q, sync = \"always\", block_timeout = \"60s\" }\n", args.Dir)
		}
		text := fmt.Sprintf("webhook {\n  url = \"http://%s/hook\"\n  events = [{ event = \"on_message_publish\", topic = \"site/+/device/#\" }]\n%s}\n", addr, queue)
		if err := os.WriteFile(file, []byte(text), 0o666); err != nil {
			return o, received, err
		}
		command.Args = append(command.Args, "-config", file)
	}
	broker, err := startCommand("broker", command)
	if err != nil {
		return o, received, err
	}
	defer broker.kill()
	if addr, err = broker.addr(); err != nil {
		return o, received, err
	}
	begin := time.Now()
	args.Addr, args.QoS, args.Payload = addr, qos, 64
	p, err := start("publishers", args)
	if err != nil {
		return o, received, err
	}
	defer p.kill()
	if o, err = p.outcome(); err != nil {
		return o, received, err
	}
	if hook && !args.Hang {
		if _, err := r.line(); err != nil { // "done"
			return o, received, err
		}
		// The publishers' start is not part of it.
		o.Seconds = max(o.Seconds, time.Since(begin).Seconds()-0.03)
	}
	if o.CPU, err = broker.end(); err != nil {
		return o, received, err
	}
	received, err = r.outcome()
	return o, received, err
}

// cpuName is what Linux calls the processor, with a comma, or nothing.
func cpuName() string {
	text, _ := os.ReadFile("/proc/cpuinfo")
	_, after, ok := strings.Cut(string(text), "model name\t: ")
	if !ok {
		return ""
	}
	name, _, _ := strings.Cut(after, "\n")
	return name + ", "
}
