package webhook

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/mochi-hooks/webhook/internal/spool"
)

// diskConfig is the configuration of one endpoint with a disk queue.
func diskConfig(dir string, change func(*Endpoint)) *Config {
	c := Endpoint{
		Name: "audit", URL: "http://127.0.0.1:1/", Events: []Rule{{Event: OnMessagePublish}},
		Queue: Queue{Type: DiskQueue, Dir: dir},
	}
	if change != nil {
		change(&c)
	}
	return &Config{Endpoints: []Endpoint{c}}
}

// startDisk starts a hook with a disk queue.
func startDisk(t testing.TB, cfg *Config, opts Options, log *slog.Logger) *Hook {
	t.Helper()
	h := new(Hook)
	h.Log = log
	opts.Config = cfg
	err := h.Init(&opts)
	// A Stop before does not wait for a slow disk, which then still has the folder.
	for end := time.Now().Add(rawTimeout); err != nil && strings.Contains(err.Error(), "is in use") && time.Now().Before(end); err = h.Init(&opts) {
		time.Sleep(time.Millisecond) // nothing tells
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Stop() })
	return h
}

// unreachable is a transport that fails until the request is given up.
var unreachable = roundTripFunc(func(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
})

// collector answers 200 and keeps what came.
type collector struct {
	mu     sync.Mutex
	ids    []string
	bodies []string
	more   chan struct{} // holds one: there is something new
}

func newCollector() *collector { return &collector{more: make(chan struct{}, 1)} }

func (c *collector) RoundTrip(r *http.Request) (*http.Response, error) {
	var b bytes.Buffer
	_, _ = b.ReadFrom(r.Body)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ids = append(c.ids, r.Header.Get("webhook-id"))
	c.bodies = append(c.bodies, b.String())
	select {
	case c.more <- struct{}{}:
	default:
	}
	return answer(200)
}

// wait waits until n requests have come.
func (c *collector) wait(t testing.TB, n int) {
	t.Helper()
	late := time.After(rawTimeout)
	for {
		c.mu.Lock()
		got := len(c.ids)
		c.mu.Unlock()
		if got >= n {
			return
		}
		select {
		case <-c.more:
		case <-late:
			t.Fatalf("%d requests came, want %d", got, n)
		}
	}
}

// TestDiskSurvivesRestarts fills a queue over several runs of a broker whose
// endpoint is down, and lets it go: ids are the old ones, lanes in order.
func TestDiskSurvivesRestarts(t *testing.T) {
	dir := t.TempDir()
	ids := make(map[string]string) // by payload
	const runs, each = 3, 200
	for run := range runs {
		h := startDisk(t, diskConfig(dir, nil), Options{Transport: unreachable, DrainTimeout: -1}, slog.New(slog.DiscardHandler))
		if s := statsOf(t, h); int(s.Recovered) != run*each {
			t.Fatalf("run %d: %d recovered, want %d", run, s.Recovered, run*each)
		}
		for i := range each {
			payload := fmt.Sprintf("c%d %d", i%7, run*each+i)
			ev := publishOf(fmt.Sprint("c", i%7), payload)
			h.emit(ev)
			ids[payload] = ev.id.String()
		}
		_ = h.Stop()
	}
	got := newCollector()
	noPublishes := func(e *Endpoint) { e.Events = rulesFor(OnClientConnected) }
	h := startDisk(t, diskConfig(dir, noPublishes), Options{Transport: unreachable, DrainTimeout: -1}, slog.New(slog.DiscardHandler))
	if by := statsOf(t, h).Events; len(by) != 3 { // with OnClientConnected, and damaged ones
		t.Errorf("counters of %v, want those of the recovered publishes among them", slices.Collect(maps.Keys(by)))
	}
	_ = h.Stop()
	h = startDisk(t, diskConfig(dir, nil), Options{Transport: got}, slog.New(slog.DiscardHandler))
	got.wait(t, runs*each)
	_ = h.Stop()
	if s := statsOf(t, h); s.Recovered != runs*each || s.Delivered != runs*each {
		t.Errorf("stats %+v", s)
	}
	last := make(map[string]int)
	for i, body := range got.bodies {
		payload := payloadOf([]byte(body))
		if got.ids[i] != ids[payload] {
			t.Errorf("%s: id %s, was %s", payload, got.ids[i], ids[payload])
		}
		var client string
		n := 0
		_, _ = fmt.Sscanf(payload, "%s %d", &client, &n)
		if n < last[client] {
			t.Errorf("%s: %d came after %d", client, n, last[client])
		}
		last[client] = n
	}
	h = startDisk(t, diskConfig(dir, nil), Options{Transport: got}, slog.New(slog.DiscardHandler))
	if s := statsOf(t, h); s.Recovered != 0 {
		t.Errorf("after everything was delivered: %+v", s)
	}
}

func TestDiskFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	h := startDisk(t, diskConfig(dir, nil), Options{Transport: unreachable, DrainTimeout: -1}, slog.New(slog.DiscardHandler))
	h.emit(publishOf("c", "x"))
	t.Run("in use", func(t *testing.T) {
		second := new(Hook)
		err := second.Init(&Options{Config: diskConfig(dir, nil), Transport: unreachable})
		if err == nil || !strings.Contains(err.Error(), filepath.Join(dir, "audit")) || !strings.Contains(err.Error(), "in use") {
			t.Errorf("got %v, want an error that names the folder", err)
		}
	})
	_ = h.Stop()
	t.Run("modes", func(t *testing.T) {
		_ = filepath.WalkDir(filepath.Join(dir, "audit"), func(path string, d os.DirEntry, err error) error {
			if err != nil {
				t.Fatal(err)
			}
			info, _ := d.Info()
			want := os.FileMode(0o600)
			if d.IsDir() {
				want = 0o700
			}
			if info.Mode().Perm() != want {
				t.Errorf("%s: mode %v, want %v", path, info.Mode().Perm(), want)
			}
			return nil
		})
	})
	t.Run("known without regard to case", func(t *testing.T) {
		var log logLines
		h := startDisk(t, diskConfig(dir, func(e *Endpoint) { e.Name = "AUDIT" }), Options{Transport: unreachable, DrainTimeout: -1}, log.logger())
		_ = h.Stop()
		if s := statsOf(t, h); s.Recovered != 1 || strings.Contains(log.String(), "no configured endpoint") {
			t.Errorf("stats %+v, log:\n%s", s, log.String())
		}
	})
	t.Run("others are reported", func(t *testing.T) {
		var log logLines
		h := startDisk(t, diskConfig(dir, func(e *Endpoint) { e.Name = "renamed" }), Options{Transport: unreachable, DrainTimeout: -1}, log.logger())
		_ = h.Stop()
		if got := log.String(); strings.Count(got, "queue of no configured endpoint") != 1 || !strings.Contains(got, filepath.Join(dir, "audit")) {
			t.Errorf("log:\n%s", got)
		}
	})
	t.Run("unusable", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "file")
		write(t, file, "")
		err := new(Hook).Init(&Options{Config: diskConfig(file, nil), Transport: unreachable})
		if err == nil || !strings.HasPrefix(err.Error(), "webhook: ") || !strings.Contains(err.Error(), file) {
			t.Errorf("got %v, want an error that names %s", err, file)
		}
	})
}

// TestDiskCorruptRecord flips a bit in one of several records.
func TestDiskCorruptRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		h := startDisk(t, diskConfig(dir, nil), Options{Transport: unreachable, DrainTimeout: -1}, slog.New(slog.DiscardHandler))
		for i := range 5 {
			h.emit(publishOf("c", fmt.Sprint("payload-", i)))
		}
		_ = h.Stop()
		files, _ := filepath.Glob(filepath.Join(dir, "audit", "*.log"))
		found := false
		for _, name := range files {
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if i := bytes.Index(b, []byte("payload-2")); i >= 0 {
				found = true
				b[i] ^= 1
				write(t, name, string(b))
			}
		}
		if !found {
			t.Fatal("the record is in no file")
		}
		var log logLines
		got := newCollector()
		h = startDisk(t, diskConfig(dir, nil), Options{Transport: got}, log.logger())
		got.wait(t, 4)
		_ = h.Stop()
		if s := statsOf(t, h); s.Recovered != 5 || s.Delivered != 4 || s.Dropped["corrupt"] != 1 {
			t.Errorf("stats %+v", s)
		}
		if !strings.Contains(log.String(), "damaged events") {
			t.Errorf("log:\n%s", log.String())
		}
	})
}

// TestDiskNewerRecords starts with a queue in which a newer version has left events
// that this one cannot read: all of it stays for that one.
func TestDiskNewerRecords(t *testing.T) {
	dir := t.TempDir()
	folder := filepath.Join(dir, "audit")
	h := startDisk(t, diskConfig(dir, nil), Options{Transport: unreachable, DrainTimeout: -1}, slog.New(slog.DiscardHandler))
	h.emit(publishOf("c", "x"))
	_ = h.Stop()
	var recs []string // that are in the folder
	open := func() *spool.Spool {
		recs = nil
		s, _, err := spool.Open(folder, spool.Options{}, func(_ spool.Ref, rec []byte) { recs = append(recs, string(rec)) })
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := open()
	marked := appendRecord(nil, &event{kind: kindPublish, client: "c", extra: &extra{marks: marksEnd}})
	for _, rec := range []string{recs[0], "\x02newer", string(marked)} {
		if _, err := s.Append([]byte(rec)); err != nil {
			t.Fatal(err)
		}
	}
	want := append(recs, recs[0], "\x02newer", string(marked))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	refused := func(err error) {
		t.Helper()
		if want := folder + " holds 2 events of a newer version"; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
		if err := open().Close(); err != nil || !slices.Equal(recs, want) {
			t.Errorf("%q are left, %v; want %q", recs, err, want)
		}
	}
	for range 2 {
		refused(new(Hook).Init(&Options{Config: diskConfig(dir, nil), Transport: unreachable}))
	}

	got := newCollector()
	cfg := diskConfig(dir, nil)
	other := cfg.Endpoints[0]
	other.Name, other.Queue = "other", Queue{}
	h = startDisk(t, &Config{Endpoints: []Endpoint{other}}, Options{Transport: got}, slog.New(slog.DiscardHandler))
	other.Events = rulesFor(OnClientConnected)
	refused(h.Reload(&Config{Endpoints: append(cfg.Endpoints, other)}))
	h.emit(publishOf("c", "goes on"))
	got.wait(t, 1)

	if err := os.Rename(folder, folder+".away"); err != nil {
		t.Skip(err)
	}
	if err := h.Reload(&Config{Endpoints: append(cfg.Endpoints, other)}); err != nil {
		t.Errorf("with the folder moved away: %v", err)
	}
}

// TestDiskOverflow fills disk queues whose endpoint is down.
func TestDiskOverflow(t *testing.T) {
	const size, maxBytes = 4000, 1 << 20
	for _, policy := range []Overflow{DropNewest, DropOldest, Block} {
		t.Run(string(policy), func(t *testing.T) {
			dir := t.TempDir()
			cfg := diskConfig(dir, func(e *Endpoint) {
				e.Queue.MaxBytes, e.Queue.Overflow, e.Queue.BlockTimeout = maxBytes, policy, time.Millisecond
				e.PoolSize = 1
			})
			h := startDisk(t, cfg, Options{Transport: unreachable, DrainTimeout: -1}, slog.New(slog.DiscardHandler))
			const n = 1000
			for i := range n {
				ev := publishOf("c", fmt.Sprintf("%d %s", i, strings.Repeat("x", size)))
				h.active.Load().endpoints[0].queue.offer(ev, i%100 == 0)
			}
			s := statsOf(t, h)
			// What is done leaves the folder behind time, so in a burst
			// dropping old events may not make room at once.
			if s.Waiting < maxBytes/size/5 || policy != DropOldest && s.Waiting < maxBytes/size*7/10 || s.WaitingBytes > maxBytes || s.Dropped["queue_full"] == 0 {
				t.Errorf("stats %+v", s)
			}
			_ = h.Stop()
			got := newCollector()
			h = startDisk(t, cfg, Options{Transport: got, DrainTimeout: rawTimeout}, slog.New(slog.DiscardHandler))
			_ = h.Stop()
			// The first one was in flight, which is never dropped.
			second, _, _ := strings.Cut(payloadOf([]byte(got.bodies[1])), " ")
			if (policy == DropOldest) == (second == "1") {
				t.Errorf("%s follows the first event", second)
			}
			if s := statsOf(t, h); s.Delivered == 0 || s.Delivered != s.Recovered {
				t.Errorf("after the restart: %+v", s)
			}
		})
	}
}

// TestDiskFullOfSegments has a client whose events the endpoint does not take, each of
// which keeps a segment, until the folder is full of those. Then the oldest of them is
// dropped for what comes, and nobody else's.
func TestDiskFullOfSegments(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		const n, every = 3000, 20 // 16 events fill a segment
		transport := roundTripFunc(func(r *http.Request) (*http.Response, error) {
			body, _ := io.ReadAll(r.Body)
			if bytes.Contains(body, []byte(`"stuck"`)) {
				return answer(500)
			}
			return answer(200)
		})
		cfg := diskConfig(dir, func(e *Endpoint) {
			e.Queue.MaxBytes, e.Queue.Overflow, e.Breaker.Failures = 1<<20, DropOldest, -1
		})
		h := startDisk(t, cfg, Options{Transport: transport, DrainTimeout: -1}, slog.New(slog.DiscardHandler))
		for i := range n {
			client := fmt.Sprint("client-", i%7)
			if i%every == 0 {
				client = "stuck"
			}
			h.active.Load().endpoints[0].queue.offer(publishOf(client, strings.Repeat("x", 4000)), false)
			time.Sleep(10 * time.Millisecond)
		}
		s := statsOf(t, h)
		if s.Dropped["queue_full"] == 0 || s.Delivered < (n-n/every)*98/100 {
			t.Errorf("%d delivered of %d, dropped %v with %d bytes waiting", s.Delivered, n-n/every, s.Dropped, s.WaitingBytes)
		}
		_ = h.Stop()
	})
}

func TestDiskTooLarge(t *testing.T) {
	h := startDisk(t, diskConfig(t.TempDir(), func(e *Endpoint) { e.Queue.MaxBytes = 1 << 20 }),
		Options{Transport: unreachable, DrainTimeout: -1}, slog.New(slog.DiscardHandler))
	h.emit(publishOf("c", strings.Repeat("x", 2<<20)))
	if s := statsOf(t, h); s.Dropped["too_large"] != 1 {
		t.Errorf("stats %+v", s)
	}
}

// TestDiskFails takes a queue's folder away: events are dropped and counted when
// there is no more room in memory, and the log has one line when that begins.
func TestDiskFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		var log logLines
		h := startDisk(t, diskConfig(dir, func(e *Endpoint) { e.Queue.MaxBytes = 1 << 30 }), Options{Transport: unreachable, DrainTimeout: -1}, log.logger())
		if err := os.RemoveAll(filepath.Join(dir, "audit")); err != nil {
			t.Skip(err)
		}
		payload := strings.Repeat("x", 1<<20)
		for i := range 40 {
			h.emit(publishOf(fmt.Sprint(i), payload))
		}
		s := statsOf(t, h)
		if s.Dropped["disk_error"] == 0 || s.Waiting+s.InFlight == 0 {
			t.Errorf("stats %+v", s)
		}
		begin := time.Now()
		_ = h.Stop()
		if took := time.Since(begin); took > time.Second {
			t.Errorf("Stop took %v", took)
		}
		if n := strings.Count(log.String(), "queue cannot be written"); n != 1 {
			t.Errorf("%d warnings, want 1:\n%s", n, log.String())
		}
	})
}

// TestDiskTooOld restarts with events that have become too old meanwhile: no
// worker takes one before that is seen.
func TestDiskTooOld(t *testing.T) {
	dir := t.TempDir()
	const age = 50 * time.Millisecond
	h := startDisk(t, diskConfig(dir, nil), Options{Transport: unreachable, DrainTimeout: -1}, slog.New(slog.DiscardHandler))
	for i := range 1000 {
		h.emit(publishOf(fmt.Sprint(i), "x"))
	}
	_ = h.Stop()
	time.Sleep(age)
	got := newCollector()
	h = startDisk(t, diskConfig(dir, func(e *Endpoint) { e.Retry.MaxAge = age }), Options{Transport: got}, slog.New(slog.DiscardHandler))
	_ = h.Stop()
	if s := statsOf(t, h); s.Dead != 1000 || len(got.ids) != 0 {
		t.Errorf("%d were sent, %+v", len(got.ids), s)
	}
}

// TestDiskFailsAtShutdown takes the disk away after some events: those stay, and
// what came later is dropped and counted, or becomes dead letters.
func TestDiskFailsAtShutdown(t *testing.T) {
	for _, letters := range []string{"", "dead.jsonl"} {
		t.Run(letters, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := t.TempDir()
				var log logLines
				h := startDisk(t, diskConfig(dir, func(e *Endpoint) {
					e.PoolSize, e.Queue.MaxBytes = 1, 4<<20
					if letters != "" {
						e.DeadLetter.File = filepath.Join(dir, letters)
					}
				}), Options{Transport: unreachable, DrainTimeout: -1}, log.logger())
				e := h.active.Load().endpoints[0]
				for i := range 20 {
					h.emit(publishOf(fmt.Sprint(i%3), fmt.Sprint(i)))
				}
				if err := e.disk.spool.Sync(t.Context()); err != nil {
					t.Fatal(err)
				}
				if err := os.RemoveAll(filepath.Join(dir, "audit")); err != nil {
					t.Skip(err)
				}
				// More than fits into the segment that is open.
				payload := strings.Repeat("x", 50<<10)
				h.emit(publishOf("0", payload+payload))
				for i := range 10 {
					h.emit(publishOf(fmt.Sprint(i%5), payload))
				}
				_ = h.Stop()
				checkQueue(t, e.queue)
				s := statsOf(t, h)
				checkSum(t, s)
				want := EndpointStats{Waiting: 20}
				if letters != "" {
					want.Dead = 11
					if got := readLetters(t, filepath.Join(dir, letters)); len(got) != 11 {
						t.Errorf("%d letters, want 11", len(got))
					}
				}
				if s.Waiting != want.Waiting || s.Dead != want.Dead || s.Dropped["disk_error"] != 11-want.Dead {
					t.Errorf("%+v", s)
				}
				line := `msg="events dropped" endpoint=audit disk_error=11 error=`
				if letters != "" {
					line = `msg="events written as dead letters" endpoint=audit disk_error=11 error=`
				}
				if !strings.Contains(log.String(), line) {
					t.Errorf("no %q in the log:\n%s", line, log.String())
				}
			})
		})
	}
}

// TestSyncAlways sends messages of each kind through a synced and an unsynced
// endpoint: both get each once.
func TestSyncAlways(t *testing.T) {
	got := newCollector()
	plain := newCollector()
	cfg := diskConfig(t.TempDir(), func(e *Endpoint) { e.Queue.Sync, e.Queue.BlockTimeout = SyncAlways, rawTimeout })
	cfg.Endpoints = append(cfg.Endpoints, Endpoint{Name: "plain", URL: "http://127.0.0.1:2/", Events: cfg.Endpoints[0].Events})
	h := new(Hook)
	b := startBroker(t, 0, addLater)
	byURL := roundTripFunc(func(r *http.Request) (*http.Response, error) {
		if r.URL.Port() == "2" {
			return plain.RoundTrip(r)
		}
		return got.RoundTrip(r)
	})
	if err := b.server.AddHook(h, &Options{Config: cfg, Transport: byURL}); err != nil {
		t.Fatal(err)
	}
	cl := mustConnect(t, b.addr, rawConnect{ID: "c"})
	for qos := range byte(3) {
		cl.publish("a", fmt.Sprint("qos", qos), qos, false)
	}
	cl.publish("failing", "failing", 1, false) // an earlier hook fails: the broker goes on all the same
	cl.publish("ignored", "ignored", 1, false)
	if err := b.server.Publish("a", []byte("inline"), false, 1); err != nil {
		t.Fatal(err)
	}
	want := []string{"failing", "inline", "qos0", "qos1", "qos2"}
	for _, c := range []*collector{got, plain} {
		c.wait(t, len(want))
		c.mu.Lock()
		var payloads []string
		for _, body := range c.bodies {
			payloads = append(payloads, payloadOf([]byte(body)))
		}
		c.mu.Unlock()
		slices.Sort(payloads)
		if !slices.Equal(payloads, want) {
			t.Errorf("got %q, want each once: %q", payloads, want)
		}
	}
	if s := h.Stats().Endpoints["audit"]; s.SyncLate != 0 {
		t.Errorf("stats %+v", s)
	}
	cl.fin()
	b.awaitGone(t)
	_ = h.Stop()
}

// TestSyncAlwaysPublishedOnce has a program that publishes once more what it was
// delivered, as a packet that the hook has seen.
func TestSyncAlwaysPublishedOnce(t *testing.T) {
	got := newCollector()
	cfg := diskConfig(t.TempDir(), func(e *Endpoint) { e.Queue.Sync, e.Queue.BlockTimeout = SyncAlways, rawTimeout })
	b, h := startHooked(t, &Options{Config: cfg, Transport: got})
	err := b.server.Subscribe("in/#", 1, func(cl *mqtt.Client, _ packets.Subscription, pk packets.Packet) {
		pk.TopicName = "out"
		if err := b.server.InjectPacket(cl, pk); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	cl := mustConnect(t, b.addr, rawConnect{ID: "c", Clean: true})
	cl.publish("in/a", "x", 1, false)
	got.wait(t, 2)
	cl.disconnect(0)
	b.awaitGone(t)
	_ = h.Stop()
	if all := strings.Join(got.bodies, "\n"); !strings.Contains(all, `"topic":"in/a"`) || !strings.Contains(all, `"topic":"out"`) {
		t.Errorf("got %s", all)
	}
}

// TestSyncLate has a disk that does not come to syncing: an acknowledgement goes
// out after the block timeout, and only that of a network client's QoS 1 or 2.
func TestSyncLate(t *testing.T) {
	dir := t.TempDir()
	b := startBroker(t, 0, addLater)
	h := new(Hook)
	const block = 300 * time.Millisecond
	cfg := diskConfig(dir, func(e *Endpoint) { e.Queue.Sync, e.Queue.BlockTimeout = SyncAlways, block })
	second := cfg.Endpoints[0]
	second.Name = "second"
	cfg.Endpoints = append(cfg.Endpoints, second)
	if err := b.server.AddHook(h, &Options{Config: cfg, Transport: unreachable, DrainTimeout: -1}); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var deadlines []time.Time // of the waits for the disks
	for _, e := range h.active.Load().endpoints {
		e.disk.await = func(ctx context.Context, _ uint64) error {
			deadline, _ := ctx.Deadline()
			mu.Lock()
			deadlines = append(deadlines, deadline)
			mu.Unlock()
			<-ctx.Done()
			return ctx.Err()
		}
	}
	cl := mustConnect(t, b.addr, rawConnect{ID: "c", Will: &rawWill{Topic: "w", Payload: "w", QoS: 1}})
	waits := func(what string, want int, f func()) {
		t.Helper()
		begin := time.Now()
		f()
		took := time.Since(begin)
		mu.Lock()
		defer mu.Unlock()
		if len(deadlines) != want || want > 0 && (took < block || !deadlines[0].Equal(deadlines[1])) {
			t.Errorf("%s: acknowledged after %v, waits until %v, want %d that end together", what, took, deadlines, want)
		}
		deadlines = nil
	}
	for qos := range byte(3) {
		waits(fmt.Sprint("QoS ", qos), 2*min(int(qos), 1), func() { cl.publish("a", "x", qos, false); cl.ping() })
	}
	waits("an inline publish", 0, func() { _ = b.server.Publish("a", []byte("x"), false, 1) })
	cl.rst()
	b.awaitGone(t)
	for name, s := range h.Stats().Endpoints {
		checkSum(t, s)
		if s.SyncLate != 2 {
			t.Errorf("%s: stats %+v", name, s)
		}
	}
	_ = h.Stop()
}

// TestSyncAfterFailure has a disk that fails for a moment: the acknowledgement waits
// until the event is there after all.
func TestSyncAfterFailure(t *testing.T) {
	dir := t.TempDir()
	b := startBroker(t, 0, addLater)
	h := new(Hook)
	cfg := diskConfig(dir, func(e *Endpoint) { e.Queue.Sync, e.Queue.BlockTimeout = SyncAlways, rawTimeout })
	if err := b.server.AddHook(h, &Options{Config: cfg, Transport: unreachable, DrainTimeout: -1}); err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(dir, "audit")
	if err := os.Rename(folder, folder+".away"); err != nil {
		t.Skip(err)
	}
	s := h.active.Load().endpoints[0].disk.spool
	back := make(chan error, 1)
	go func() {
		for end := time.Now().Add(rawTimeout); s.WriteErr() == nil && time.Now().Before(end); {
			time.Sleep(time.Millisecond) // nothing tells
		}
		time.Sleep(300 * time.Millisecond) // it is tried in vain some more times
		back <- os.Rename(folder+".away", folder)
	}()
	cl := mustConnect(t, b.addr, rawConnect{ID: "c"})
	cl.publish("a", "x", 1, false)
	if err := s.WriteErr(); err != nil {
		t.Errorf("acknowledged while the event is not on disk: %v", err)
	}
	if err := <-back; err != nil {
		t.Fatal(err)
	}
	if s := statsOf(t, h); s.SyncLate != 0 {
		t.Errorf("stats %+v", s)
	}
	_ = h.Stop()
}

func TestProvidesOnPublishOnlyForSync(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Endpoint)
		want   bool
	}{
		"always":            {func(e *Endpoint) { e.Queue.Sync = SyncAlways }, true},
		"interval":          {func(*Endpoint) {}, false},
		"never":             {func(e *Endpoint) { e.Queue.Sync = SyncNever }, false},
		"memory":            {func(e *Endpoint) { e.Queue = Queue{} }, false},
		"no publish events": {func(e *Endpoint) { e.Queue.Sync = SyncAlways; e.Events = []Rule{{Event: OnClientConnack}} }, false},
	} {
		t.Run(name, func(t *testing.T) {
			h := startDisk(t, diskConfig(t.TempDir(), c.change), Options{Transport: unreachable, DrainTimeout: -1}, slog.New(slog.DiscardHandler))
			if got := h.Provides(mqtt.OnPublish); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// stuckAt answers 500 for clients that are called stuck, and 200 for others, unless
// all are to fail.
func stuckAt(all bool) roundTripFunc {
	return func(r *http.Request) (*http.Response, error) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		if all || bytes.Contains(body, []byte(`"stuck`)) {
			return answer(500)
		}
		return answer(200)
	}
}

// TestDiskBlockedPublish has a publish wait for room in a full folder, which a reload
// or a compaction makes.
func TestDiskBlockedPublish(t *testing.T) {
	for _, by := range []string{"reload", "compaction"} {
		t.Run(by, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				config := func(most int64) *Config {
					return diskConfig(dir, func(e *Endpoint) {
						e.Queue.MaxBytes, e.Queue.Overflow, e.Queue.BlockTimeout = most, Block, 30*time.Minute
						e.Retry = Retry{MinBackoff: 2 * time.Hour, MaxBackoff: 2 * time.Hour, MaxAge: -1}
						e.Breaker, e.PoolSize = Breaker{Failures: -1}, 4
					})
				}
				h := startDisk(t, config(1<<20), Options{Transport: stuckAt(by == "reload"), DrainTimeout: -1}, slog.New(slog.DiscardHandler))
				q := h.active.Load().endpoints[0].queue
				q.mu.Lock()
				q.gate.pause(time.Minute) // what comes waits
				q.mu.Unlock()
				payload := strings.Repeat("x", 2000)
				for n := 0; q.stats().Dropped["queue_full"] == 0 && n < 2000; n++ {
					client := "free"
					if n%10 == 0 {
						client = "stuck"
					}
					h.emit(publishOf(fmt.Sprint(client, n), payload))
				}
				done := make(chan bool, 1)
				go func() {
					h.OnPublished(hotClients(1)[0], packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish}, TopicName: "t", Payload: []byte(payload)})
					done <- true
				}()
				if by == "reload" {
					time.Sleep(10 * time.Second)
					mustReload(t, h, config(8<<20))
				}
				time.Sleep(10 * time.Minute)
				if len(done) == 0 {
					t.Errorf("it still waits, with %+v", q.stats())
				}
			})
		})
	}
}

// TestDiskSegmentGone loses a segment's file while events wait: its events are gone, and
// those behind them go out.
func TestDiskSegmentGone(t *testing.T) {
	for _, gone := range []bool{false, true} { // else it cannot be read for now
		dir := t.TempDir()
		synctest.Test(t, func(t *testing.T) {
			var up atomic.Bool
			transport := roundTripFunc(func(*http.Request) (*http.Response, error) {
				if up.Load() {
					return answer(200)
				}
				return answer(500)
			})
			h := startDisk(t, diskConfig(dir, func(e *Endpoint) { e.Queue.MaxBytes = 4 << 20 }), Options{Transport: transport, DrainTimeout: -1}, slog.New(slog.DiscardHandler))
			const all = 150
			for i := range all {
				h.emit(publishOf("c", fmt.Sprint(i, strings.Repeat("x", 10000))))
			}
			time.Sleep(time.Second)
			segments, err := filepath.Glob(filepath.Join(dir, "*", "*.log"))
			if err != nil || len(segments) < 10 {
				t.Fatalf("%d segments, %v", len(segments), err)
			}
			lost := segments[len(segments)/2]
			rename(t, lost, filepath.Join(t.TempDir(), "lost"))
			if !gone {
				if err := os.Mkdir(lost, 0o700); err != nil {
					t.Fatal(err)
				}
			}
			up.Store(true)
			time.Sleep(10 * time.Minute)
			s, err := statsOf(t, h), h.Healthy()
			switch {
			case gone && (s.Dropped["corrupt"] == 0 || s.Dropped["corrupt"] > all/10 || s.Delivered+s.Dropped["corrupt"] != all || err != nil):
				t.Errorf("gone: stats %+v, %v", s, err)
			case !gone && (s.Dropped["corrupt"] > 0 || s.Waiting == 0 || err == nil || !strings.Contains(err.Error(), "cannot be read")):
				t.Errorf("not readable: stats %+v, %v", s, err)
			}
			_ = h.Stop()
		})
	}
}

// TestDiskLoweredMuch lowers max_bytes far below what waits: each new event takes the
// place of one.
func TestDiskLoweredMuch(t *testing.T) {
	for _, restart := range []bool{false, true} {
		dir := t.TempDir()
		synctest.Test(t, func(t *testing.T) {
			config := func(most int64) *Config {
				return diskConfig(dir, func(e *Endpoint) { e.Queue.MaxBytes, e.Queue.Overflow, e.PoolSize = most, DropOldest, 1 })
			}
			o := Options{Transport: unreachable, DrainTimeout: -1}
			h := startDisk(t, config(8<<20), o, slog.New(slog.DiscardHandler))
			publish := func(i int) { h.emit(publishOf(fmt.Sprint("c", i%10), strings.Repeat("x", 10000))) }
			const all, more = 500, 300
			for i := range all {
				publish(i)
			}
			time.Sleep(10 * time.Second)
			if restart {
				_ = h.Stop()
				h = startDisk(t, config(1<<20), o, slog.New(slog.DiscardHandler))
			} else {
				mustReload(t, h, config(1<<20))
			}
			for i := range more {
				publish(i)
				time.Sleep(time.Second)
			}
			if s := statsOf(t, h); s.Dropped["queue_full"] > more+more/10 || s.Waiting < all-more/10 { // segments are of different sizes
				t.Errorf("restart %v: stats %+v", restart, s)
			}
			_ = h.Stop()
		})
	}
}

// TestDiskLowered lowers max_bytes below what the folder has, of which one small
// event waits.
func TestDiskLowered(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		config := func(most int64) *Config {
			return diskConfig(dir, func(e *Endpoint) { e.Queue.MaxBytes, e.PoolSize = most, 8 })
		}
		h := startDisk(t, config(1<<30), Options{Transport: stuckAt(false), DrainTimeout: -1}, slog.New(slog.DiscardHandler))
		h.emit(publishOf("stuck", "x"))
		publish := func(i int) { h.emit(publishOf(fmt.Sprint("c", i), strings.Repeat("x", 1000))) }
		for i := range 1500 {
			publish(i)
		}
		time.Sleep(10 * time.Second)
		mustReload(t, h, config(1<<20))
		for i := range 100 {
			publish(i)
			time.Sleep(time.Minute)
		}
		if s := statsOf(t, h); s.Dropped["queue_full"] > 2 {
			t.Errorf("stats %+v", s)
		}
	})
}
