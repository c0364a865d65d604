package jetstream_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/nats-io/nats-server/v2/server"

	"github.com/mochi-hooks/webhook"
	_ "github.com/mochi-hooks/webhook/jetstream"
)

// startNATS starts a server with JetStream on a port of its own choice.
func startNATS(t testing.TB, change func(*server.Options)) *server.Server {
	t.Helper()
	opts := &server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true,
		JetStream: true, StoreDir: t.TempDir(),
	}
	if change != nil {
		change(opts)
	}
	s, err := server.NewServer(opts)
	if err != nil {
		t.Fatal(err)
	}
	go s.Start() // ends with Shutdown
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("NATS does not start")
	}
	t.Cleanup(func() { stopNATS(s) })
	return s
}

func stopNATS(s *server.Server) {
	s.Shutdown()
	s.WaitForShutdown()
}

// config is one of an endpoint with a stream.
func config(endpoint, nats string, change func(*webhook.Endpoint)) *webhook.Config {
	e := webhook.Endpoint{
		Name: "orders", URL: endpoint, Events: []webhook.Rule{{Event: webhook.OnMessagePublish}},
		Timeout: 2 * time.Second,
		Retry:   webhook.Retry{MinBackoff: 20 * time.Millisecond, MaxBackoff: 200 * time.Millisecond},
		Breaker: webhook.Breaker{Cooldown: 100 * time.Millisecond},
		Stream:  webhook.Stream{URL: webhook.Secret(nats), Partitions: 8, MaxBytes: 1 << 30},
	}
	if change != nil {
		change(&e)
	}
	return &webhook.Config{Endpoints: []webhook.Endpoint{e}}
}

// A logLines keeps what is logged for when the test fails.
type logLines struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func logger(t testing.TB, name string) (*slog.Logger, *logLines) {
	lines := new(logLines)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of %s:\n%s", name, lines)
		}
	})
	return slog.New(slog.NewTextHandler(lines, nil)), lines
}

// A broker is a hook with clients whose messages it is shown as the broker
// shows them.
type broker struct {
	*webhook.Hook
	clients []*mqtt.Client
	sent    []int // messages of each client
}

func startBroker(t testing.TB, cfg *webhook.Config, clients int) *broker {
	t.Helper()
	h := new(webhook.Hook)
	log, _ := logger(t, "broker")
	h.SetOpts(log, nil)
	if err := h.Init(&webhook.Options{Config: cfg}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Stop() })
	b := &broker{Hook: h, sent: make([]int, clients)}
	s := mqtt.New(&mqtt.Options{Logger: slog.New(slog.DiscardHandler)})
	for i := range clients {
		b.clients = append(b.clients, s.NewClient(nil, "tcp", fmt.Sprintf("c%d", i), false))
	}
	return b
}

// publish publishes the next message of a client: its number.
func (b *broker) publish(client int) {
	b.OnPublished(b.clients[client], packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Publish},
		TopicName:   "t", Payload: fmt.Append(nil, b.sent[client]),
	})
	b.sent[client]++
}

func (b *broker) publishAll(n int) {
	for i := range n {
		b.publish(i % len(b.clients))
	}
}

// A receiver checks that each client's messages come in order, each at least
// once: the first time that a message comes, all before it must have come.
type receiver struct {
	*httptest.Server
	answer func(client string, n int) int // the status; nil is 200

	mu     sync.Mutex
	t      testing.TB
	next   map[string]int // by client: the message that comes next
	first  int            // messages that came for the first time
	again  int            // that came once more
	failed bool
}

func startReceiver(t testing.TB) *receiver {
	r := &receiver{t: t, next: make(map[string]int)}
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return
	}
	var events []map[string]any
	if body[0] != '[' {
		body = append(append([]byte("["), body...), ']')
	}
	if err := json.Unmarshal(body, &events); err != nil {
		r.t.Errorf("body %s: %v", body, err)
	}
	for _, e := range events {
		var n int
		client := e["from_client_id"].(string)
		_, _ = fmt.Sscan(e["payload"].(string), &n)
		r.mu.Lock()
		answer := r.answer
		r.mu.Unlock()
		if answer != nil {
			if status := answer(client, n); status != 200 {
				w.WriteHeader(status)
				return
			}
		}
		r.count(client, n)
	}
}

func (r *receiver) count(client string, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch next := r.next[client]; {
	case n < next:
		r.again++
	case n == next:
		r.next[client]++
		r.first++
	case !r.failed:
		r.failed = true
		r.t.Errorf("%s: message %d came before %d", client, n, next)
	}
}

func (r *receiver) counts() (first, again int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.first, r.again
}

// await waits until n messages have come, for as long as some do.
func (r *receiver) await(n int) {
	r.t.Helper()
	for first := 0; first < n; {
		before := first
		eventually(r.t, time.Minute, func() string {
			var again int
			if first, again = r.counts(); first == before {
				return fmt.Sprintf("%d of %d messages came, and %d again", first, n, again)
			}
			return ""
		})
	}
}

// eventually waits until f has nothing to say.
func eventually(t testing.TB, most time.Duration, f func() string) {
	t.Helper()
	deadline := time.Now().Add(most)
	for {
		what := f()
		if what == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// A worker is a running deliverer.
type worker struct {
	*webhook.Deliverer
	cancel context.CancelFunc
	ended  chan error // closed when Run has returned
}

func startWorker(t testing.TB, cfg *webhook.Config) *worker {
	t.Helper()
	return startWorkerWith(t, &webhook.Deliverer{Config: cfg})
}

func startWorkerWith(t testing.TB, d *webhook.Deliverer) *worker {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	if d.Log == nil {
		d.Log, _ = logger(t, "worker")
	}
	w := &worker{d, cancel, make(chan error, 1)}
	go func() { // ends with cancel
		defer close(w.ended)
		if err := w.Run(ctx); err != nil {
			w.ended <- err
		}
	}()
	select {
	case <-w.Ready():
	case err := <-w.ended:
		t.Fatal(err)
	case <-time.After(20 * time.Second):
		t.Fatal("worker is not ready")
	}
	t.Cleanup(w.stop)
	return w
}

// stop ends a worker; it may be called twice.
func (w *worker) stop() {
	w.cancel()
	<-w.ended
}

// addUp checks the counters of an endpoint.
func addUp(t testing.TB, s webhook.EndpointStats) {
	t.Helper()
	dropped := uint64(0)
	for _, n := range s.Dropped {
		dropped += n
	}
	out := s.Delivered + s.Dead + dropped + s.Forwarded + uint64(s.Waiting) + uint64(s.InFlight)
	if s.Offered+s.Recovered != out {
		t.Errorf("%d offered, %d recovered, %d out: %+v", s.Offered, s.Recovered, out, s)
	}
}

func TestEndToEnd(t *testing.T) {
	t.Parallel() // like all tests here: they mostly wait
	nats := startNATS(t, nil)
	r := startReceiver(t)
	cfg := config(r.URL, nats.ClientURL(), nil)
	b := startBroker(t, cfg, 100)
	workers := []*worker{startWorker(t, cfg), startWorker(t, cfg)}
	const n = 5000
	b.publishAll(n)
	r.await(n)
	eventually(t, 10*time.Second, func() string {
		if s := b.Stats().Endpoints["orders"]; s.Forwarded != n {
			return fmt.Sprintf("%d forwarded", s.Forwarded)
		}
		return ""
	})
	for _, w := range workers {
		s := w.Stats().Endpoints["orders"]
		addUp(t, s)
		t.Logf("%+v", s)
	}
}
