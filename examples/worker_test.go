package examples_test

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
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
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true, JetStream: true, StoreDir: t.TempDir(),
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
		{"no configuration", nil, 2, "-config is missing"},
		{"the name of none", []string{"-config", ""}, 2, "-config is missing"},
		{"an argument", []string{"-config", memory, "x"}, 2, "unexpected argument"},
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
