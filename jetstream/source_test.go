package jetstream_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/mochi-hooks/webhook/internal/stream"
)

// A sink is a worker whose attempts end when a test says so.
type sink struct {
	events chan stream.Message // room for all that a test has
	ended  chan struct{}       // what End returns
	ends   chan int            // partitions of which it was called
	log    *logLines           // of its source

	mu     sync.Mutex
	leased time.Time // until when, as far as is known
	over   bool      // the last word was that it is over
}

func newSink() *sink {
	return &sink{events: make(chan stream.Message, 1000), ended: make(chan struct{}), ends: make(chan int, 1000)}
}

func (s *sink) Event(_ int, m stream.Message) { s.events <- m }

func (s *sink) End(partition int) <-chan struct{} {
	s.ends <- partition
	return s.ended
}

func (s *sink) Lease(until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leased, s.over = until, !until.After(time.Now())
}

// await waits for a lease, or for its end before its time.
func (s *sink) await(t *testing.T, lease bool) {
	t.Helper()
	eventually(t, 20*time.Second, func() string {
		s.mu.Lock()
		defer s.mu.Unlock()
		switch {
		case lease && time.Until(s.leased) <= 0:
			return "there is no lease"
		case !lease && !s.over:
			return "the lease goes on"
		}
		return ""
	})
}

// startSource starts a source and a publisher.
func startSource(t *testing.T, url, publisherURL string, partitions int, to *sink) (stream.Source, stream.Publisher) {
	t.Helper()
	engine, err := stream.Find("jetstream")
	if err != nil {
		t.Fatal(err)
	}
	log, lines := logger(t, "source")
	to.log = lines
	c := stream.Config{URL: publisherURL, Name: "MQTT_WEBHOOKS", Endpoint: "orders", Partitions: partitions, Replicas: 1, MaxBytes: 1 << 30, Log: log}
	p, err := engine.Publisher(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	c.URL = url
	s, err := engine.Source(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		s.Release(ctx)
		s.Close()
	})
	s.Start(to)
	return s, p
}

func publishOne(t *testing.T, p stream.Publisher, id string) {
	t.Helper()
	eventually(t, 20*time.Second, func() string { // it may not be connected yet
		if err := p.Publish(t.Context(), 0, id, []byte(id)); err != nil {
			return err.Error()
		}
		return ""
	})
}

// next waits for the next event.
func (s *sink) next(t *testing.T) stream.Message {
	t.Helper()
	select {
	case m := <-s.events:
		return m
	case <-time.After(30 * time.Second):
		t.Fatal("no event comes")
		return nil
	}
}

// TestPartitionLeaves gives a partition back while an attempt hangs, for longer
// than the server waits for an acknowledgement: nobody else may have it before
// the attempt has ended.
func TestPartitionLeaves(t *testing.T) {
	t.Parallel()
	nats := startNATS(t, nil)
	js := client(t, nats.ClientURL())
	to := newSink()
	s, p := startSource(t, nats.ClientURL(), nats.ClientURL(), 1, to)
	publishOne(t, p, "a")
	m := to.next(t)
	before := consumers(t, js)
	if len(before) != 1 {
		t.Fatalf("consumers %v", before)
	}
	s.Reset(0, false)
	<-to.ends
	for end := time.Now().Add(22 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if now := consumers(t, js); len(now) != 1 || now[0] != before[0] {
			t.Fatalf("consumers %v, before %v", now, before)
		}
	}
	m.Ack()
	close(to.ended)
	eventually(t, 20*time.Second, func() string { // it comes again as another one
		if now := consumers(t, js); len(now) != 1 || now[0] == before[0] {
			return fmt.Sprintf("consumers %v, before %v", now, before)
		}
		return ""
	})
	awaitEmpty(t, js)
	if len(to.events) > 0 {
		t.Error("the event came again")
	}
}

// TestAckLost loses acknowledgements on their way: what was delivered, and what
// came after it, must not go out again behind it.
func TestAckLost(t *testing.T) {
	t.Parallel()
	nats := startNATS(t, nil)
	js := client(t, nats.ClientURL())
	via := startProxy(t, nats.ClientURL())
	to := newSink()
	_, p := startSource(t, via.url(), nats.ClientURL(), 1, to)
	publishOne(t, p, "a")
	m := to.next(t)
	via.swallow("+ACK")
	m.Ack()
	eventually(t, 20*time.Second, func() string {
		if !via.swallowed() {
			return "the acknowledgement is not on its way"
		}
		return ""
	})
	via.cut(true)
	to.await(t, false)
	via.open() // the server knows by now: it sends nothing to the old connection
	to.await(t, true)
	publishOne(t, p, "b")
	m = to.next(t)
	if got := string(m.Data()); got != "b" {
		t.Fatalf("got %s, want b", got)
	}
	m.Ack()
	awaitEmpty(t, js)
	if len(to.events) > 0 {
		t.Errorf("%s came again", (<-to.events).Data())
	}
}

// TestLeaseEnds cuts the connection: another worker may have the partitions as
// soon as a server has started again.
func TestLeaseEnds(t *testing.T) {
	t.Parallel()
	nats := startNATS(t, nil)
	via := startProxy(t, nats.ClientURL())
	to := newSink()
	startSource(t, via.url(), nats.ClientURL(), 1, to)
	to.await(t, true)
	via.cut(true)
	to.await(t, false)
	via.open()
	to.await(t, true)
}

// TestLostPartitions takes all partitions away at once, as a server does that
// starts again: that is a line in the log, not one for each.
func TestLostPartitions(t *testing.T) {
	t.Parallel()
	nats := startNATS(t, nil)
	js := client(t, nats.ClientURL())
	to := newSink()
	const partitions = 32
	startSource(t, nats.ClientURL(), nats.ClientURL(), partitions, to)
	var names []string
	eventually(t, 20*time.Second, func() string {
		if names = consumers(t, js); len(names) < partitions {
			return fmt.Sprintf("%d consumers", len(names))
		}
		return ""
	})
	began := time.Now()
	for _, name := range names {
		if err := js.DeleteConsumer(t.Context(), "MQTT_WEBHOOKS", name); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, 20*time.Second, func() string {
		if have := len(to.ends); have < partitions {
			return fmt.Sprintf("%d partitions ended", have)
		}
		return ""
	})
	lines, most := strings.Count(to.log.String(), "partitions lost"), 4+int(time.Since(began)/time.Second)
	if lines == 0 || lines > most { // the worker may have looked in between, each second
		t.Errorf("%d lines in the log, want at most %d:\n%s", lines, most, to.log)
	}
}

// TestLongEvents takes no more of them than there is room for.
func TestLongEvents(t *testing.T) {
	t.Parallel()
	nats := startNATS(t, nil)
	to := newSink()
	_, p := startSource(t, nats.ClientURL(), nats.ClientURL(), 64, to)
	const n, most = 12, 2 // of 900 kB, in the 2 MiB of a partition
	for i := range n {
		event := make([]byte, 900_000)
		event[0] = byte(i)
		if err := p.Publish(t.Context(), 0, fmt.Sprint(i), event); err != nil {
			t.Fatal(err)
		}
	}
	for i := range n {
		eventually(t, 20*time.Second, func() string {
			if have := len(to.events); have < min(most, n-i) {
				return fmt.Sprintf("%d events came", have)
			}
			return ""
		})
		time.Sleep(10 * time.Millisecond) // for more to come
		if have := len(to.events); have > most {
			t.Fatalf("%d events came, more than %d", have, most)
		}
		m := to.next(t)
		if m.Data()[0] != byte(i) {
			t.Fatalf("event %d came before %d", m.Data()[0], i)
		}
		m.Ack()
	}
}

// TestHeld takes no more events of a partition than it may hold.
func TestHeld(t *testing.T) {
	t.Parallel()
	nats := startNATS(t, nil)
	to := newSink()
	_, p := startSource(t, nats.ClientURL(), nats.ClientURL(), 64, to)
	const most = 64
	for i := range 3 * most {
		publishOne(t, p, fmt.Sprint(i))
	}
	eventually(t, 20*time.Second, func() string {
		if have := len(to.events); have < most {
			return fmt.Sprintf("%d events came", have)
		}
		return ""
	})
	time.Sleep(100 * time.Millisecond) // for more to come
	if have := len(to.events); have > most {
		t.Errorf("%d events came, want %d", have, most)
	}
}

// TestReleasedDoesNotCount lets a worker that has begun to stop answer no roll call,
// though its attempts still run: others take its part.
func TestReleasedDoesNotCount(t *testing.T) {
	t.Parallel()
	s := startNATS(t, nil)
	source, _ := startSource(t, s.ClientURL(), s.ClientURL(), 1, newSink())
	conn, err := nats.Connect(s.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	counts := func(want bool) {
		t.Helper()
		eventually(t, 20*time.Second, func() string {
			_, err := conn.Request("MQTT_WEBHOOKS_WORKERS.orders", nil, time.Second)
			if (err == nil) != want {
				return fmt.Sprintf("a roll call: %v", err)
			}
			return ""
		})
	}
	counts(true)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	source.Release(ctx)
	counts(false)
}

// TestAcksComeFirst gives a partition back as soon as all is acknowledged.
func TestAcksComeFirst(t *testing.T) {
	t.Parallel()
	nats := startNATS(t, nil)
	to := newSink()
	s, p := startSource(t, nats.ClientURL(), nats.ClientURL(), 1, to)
	const n = 900
	for i := range n {
		publishOne(t, p, fmt.Sprint(i))
	}
	messages := make([]stream.Message, n)
	for i := range messages {
		messages[i] = to.next(t)
	}
	for _, m := range messages {
		m.Ack()
	}
	close(to.ended)
	s.Reset(0, false)
	<-to.ends
	publishOne(t, p, "last")
	if got := string(to.next(t).Data()); got != "last" {
		t.Errorf("%s came again", got)
	}
}
