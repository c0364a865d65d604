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
