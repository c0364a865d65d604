package examples_test

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

var workerEvents = flag.Int("worker.events", 8000, "how many events flow while TestWorkerKilled kills a worker")

// startNATS starts a NATS server with JetStream.
func startNATS(t *testing.T) (url string) {
	t.Helper()
	return startNATSAt(t, server.RANDOM_PORT)
}

func startNATSAt(t *testing.T, port int) (url string) {
	t.Helper()
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: port, NoLog: true, NoSigs: true, JetStream: true, StoreDir: t.TempDir(),
	})
	if err != nil {
		t.Fatal(err)
	}
	go s.Start() // ends with Shutdown
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(patience) {
		t.Fatal("NATS does not start")
	}
	return s.ClientURL()
}

// lanes is a receiver that checks that what a client has published comes in
// order, as far as it comes for the first time.
type lanes struct {
	*httptest.Server
	delay time.Duration

	mu    sync.Mutex
	next  map[string]int // by client
	first int
	again int
	wrong string
}

func newLanes(t *testing.T, delay time.Duration) *lanes {
	l := &lanes{delay: delay, next: make(map[string]int)}
	l.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var event struct {
			From    string `json:"from_client_id"`
			Payload string `json:"payload"`
		}
		body, err := io.ReadAll(r.Body)
		if err != nil || json.Unmarshal(body, &event) != nil {
			return // cut off by a kill
		}
		time.Sleep(l.delay)
		var n int
		_, _ = fmt.Sscan(event.Payload, &n)
		l.mu.Lock()
		defer l.mu.Unlock()
		switch next := l.next[event.From]; {
		case n < next:
			l.again++
		case n == next:
			l.next[event.From]++
			l.first++
		case l.wrong == "":
			l.wrong = fmt.Sprintf("%s: message %d came before %d", event.From, n, next)
		}
	}))
	t.Cleanup(func() {
		l.CloseClientConnections()
		l.Close()
	})
	return l
}

// await waits until n messages have come, for as long as they do.
func (l *lanes) await(t *testing.T, n int) {
	t.Helper()
	last, since := 0, time.Now()
	for {
		l.mu.Lock()
		first, again, wrong := l.first, l.again, l.wrong
		l.mu.Unlock()
		switch {
		case wrong != "":
			t.Fatal(wrong)
		case first == n:
			t.Logf("%d messages came, %d came again", first, again)
			return
		case first > last:
			last, since = first, time.Now()
		case time.Since(since) > 2*patience:
			t.Fatalf("%d of %d messages came, %d again", first, n, again)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// awaitWork waits until some messages have come.
func (l *lanes) awaitWork(some int) {
	for {
		l.mu.Lock()
		n := l.first
		l.mu.Unlock()
		if n >= some {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// streamConfig writes the configuration of brokers and workers that share a
// stream.
func streamConfig(t *testing.T, receiver, nats string) string {
	return write(t, fmt.Sprintf("webhook {\n  url = %q\n  events = [{ event = \"on_message_publish\" }]\n"+
		"  queue {\n    type = \"jetstream\"\n    url = %q\n    partitions = 16\n    max_bytes = \"1GiB\"\n"+
		"    local { capacity = -1 }\n  }\n}\n", receiver, nats))
}

// flood publishes messages from clients at once with QoS 0: 0, 1, 2 and so on.
func flood(t *testing.T, broker string, clients, each int) (done *sync.WaitGroup) {
	t.Helper()
	done = new(sync.WaitGroup)
	for i := range clients {
		conn := dial(t, broker)
		c := &rawClient{t: t, conn: conn, version: 4, r: bufio.NewReader(conn)}
		c.connect(fmt.Sprint("c", i), true, 60, nil, nil)
		done.Go(func() {
			out := bufio.NewWriter(conn)
			for n := range each {
				payload := fmt.Sprint(n)
				_, _ = out.Write([]byte{0x30, byte(3 + len(payload)), 0, 1, 't'})
				_, _ = out.WriteString(payload)
			}
			if err := out.Flush(); err != nil {
				t.Error(err)
			}
		})
	}
	return done
}

// TestWorkerKilled kills one of two workers while events flow: the other one
// goes on with what it had, in order.
func TestWorkerKilled(t *testing.T) {
	t.Parallel() // it mostly waits
	const clients = 50
	each := *workerEvents / clients
	receiver := newLanes(t, time.Millisecond)
	config := streamConfig(t, receiver.URL, startNATS(t))
	broker, address := listen(t, "broker", "-config", config)
	victim := start(t, "worker", "-config", config)
	victim.stdout.waitLine(t, "delivering from MQTT_WEBHOOKS")
	survivor := start(t, "worker", "-config", config)
	survivor.stdout.waitLine(t, "delivering from MQTT_WEBHOOKS")
	done := flood(t, address, clients, each)
	receiver.awaitWork(clients * each / 4)
	victim.signal(syscall.SIGKILL)
	victim.wait()
	done.Wait()
	receiver.await(t, clients*each)
	survivor.end()
	broker.end()
}

func TestWorkerRefuses(t *testing.T) {
	nats := startNATS(t)
	memory := configure(t, "http://127.0.0.1:1/", "on_message_publish")
	for _, tt := range []struct {
		name   string
		args   []string
		status int
		says   string
	}{
		{"help", []string{"-h"}, 0, "-config"},
		{"no configuration", nil, 2, "-config is missing"},
		{"the name of none", []string{"-config", ""}, 2, "-config is missing"},
		{"an argument", []string{"-config", memory, "x"}, 2, "unexpected argument"},
		{"a negative time", []string{"-config", memory, "-drain", "-1s"}, 2, "must not be negative"},
		{"an address that cannot be", []string{"-config", memory, "-stats", "127.0.0.1:x"}, 1, "unknown port"},
		{"no file", []string{"-config", "nowhere.hcl"}, 1, "Unreadable file"},
		{"no stream", []string{"-config", memory}, 1, "jetstream"},
		{"a stream that cannot be", []string{"-config", write(t, fmt.Sprintf("webhook { url = \"http://127.0.0.1:1/\"\n queue { type = jetstream, url = %q, replicas = 3 } }", nats))}, 1, "replicas > 1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := start(t, "worker", tt.args...)
			if got := p.wait(); got != tt.status || !strings.Contains(p.stderr.String(), tt.says) {
				t.Errorf("exit status %d, want %d, and %q on stderr", got, tt.status, tt.says)
			}
		})
	}
}

// TestWorkerWaits starts a worker before NATS is there: its pages say what it waits
// for, then that all is well, and what it has delivered.
func TestWorkerWaits(t *testing.T) {
	t.Parallel() // it mostly waits
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	_ = l.Close()
	receiver := newLanes(t, 0)
	endpoint := func(name, event, stream string) string {
		return fmt.Sprintf("webhook %s {\n  url = %q\n  events = [{ event = %q }]\n  queue { type = \"jetstream\", url = \"nats://127.0.0.1:%d\", stream = %q, partitions = 4 }\n",
			name, receiver.URL, event, port, stream)
	}
	config := write(t, endpoint("a", "on_message_publish", "EVENTS")+"}\n"+endpoint("b", "on_client_connack", "EVENTS")+"}\n"+
		endpoint("c", "on_message_publish", "OTHER")+"  enable = false\n}\n")
	worker := start(t, "worker", "-config", config, "-stats", "127.0.0.1:0", "-metrics", "127.0.0.1:0")
	stats, metrics := urlOf(t, worker, "stats"), urlOf(t, worker, "metrics")
	health := strings.TrimSuffix(stats, "/stats") + "/health"
	worker.stderr.waitLine(t, "waiting for the stream")
	if status, text := get(t, health); status != http.StatusServiceUnavailable || !strings.Contains(text, `endpoint "a": stream has not been reached`) {
		t.Errorf("health without NATS: got %d %q, want 503 that says so", status, text)
	}
	if got := worker.stdout.String(); got != "" {
		t.Errorf("stdout without NATS: %q", got)
	}

	startNATSAt(t, port)
	worker.stdout.waitLine(t, "delivering from EVENTS")
	if status, text := get(t, health); status != http.StatusOK || text != "ok\n" {
		t.Errorf("health: got %d %q, want 200 ok", status, text)
	}
	broker, address := listen(t, "broker", "-config", config)
	const n = 3
	publish(t, address, "x", "0", "1", "2")
	var counters struct {
		Endpoints map[string]struct{ Offered, Delivered int }
	}
	for late := time.Now().Add(patience); counters.Endpoints["a"].Delivered < n && time.Now().Before(late); time.Sleep(20 * time.Millisecond) {
		if _, text := get(t, stats); json.Unmarshal([]byte(text), &counters) != nil {
			t.Fatalf("stats: %s", text)
		}
	}
	if got := counters.Endpoints["a"]; got.Offered != n || got.Delivered != n || len(counters.Endpoints) != 2 {
		t.Errorf("stats: %+v", counters)
	}
	want := fmt.Sprintf(`mochi_webhook_events_total{endpoint="a",event="on_message_publish",outcome="delivered"} %d`, n)
	if _, text := get(t, metrics); !strings.Contains(text, want) {
		t.Errorf("metrics have no %s:\n%s", want, text)
	}
	broker.end()
	worker.end()
	if got, want := worker.stdout.String(), "delivering from EVENTS\n"; got != want {
		t.Errorf("stdout: got %q, want %q", got, want)
	}
}

// TestWorkerDrain stops workers while an attempt hangs, one that is to wait for it
// and one that is not: the event is still in the stream for the next.
func TestWorkerDrain(t *testing.T) {
	t.Parallel() // it mostly waits
	e := newEndpoint(t)
	config := streamConfig(t, e.URL, startNATS(t))
	_, address := listen(t, "broker", "-config", config)
	publish(t, address, "a", "0")
	for _, tt := range []struct {
		drain       string
		least, most time.Duration
	}{{"0", 0, 3 * time.Second}, {"4s", 4 * time.Second, patience}} {
		worker := start(t, "worker", "-config", config, "-drain", tt.drain)
		e.next(t)
		began := time.Now()
		worker.end()
		if took := time.Since(began); took < tt.least || took > tt.most {
			t.Errorf("-drain %s: stopped after %v", tt.drain, took)
		}
	}
	close(e.answer)
	worker := start(t, "worker", "-config", config)
	e.next(t)
	worker.end()
}

func TestWorkerSecondSignal(t *testing.T) {
	t.Parallel()        // it mostly waits
	e := newEndpoint(t) // never answers
	config := streamConfig(t, e.URL, startNATS(t))
	_, address := listen(t, "broker", "-config", config)
	worker := start(t, "worker", "-config", config, "-drain", "1h")
	publish(t, address, "a", "0")
	e.next(t)
	worker.kill()
}
