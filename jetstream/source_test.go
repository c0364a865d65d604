package jetstream_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/mochi-hooks/webhook/internal/stream"
)

// A sink is a worker whose attempts end when a test says so.
type sink struct {
	events chan stream.Message // room for all that a test has
	ended  chan struct{}       // what End returns
	ends   chan int            // partitions of which it was called

	mu     sync.Mutex
	leases []time.Time
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
	s.leases = append(s.leases, until)
}

// startSource starts a source with one partition, and a publisher into it.
func startSource(t *testing.T, url, publisherURL string, to stream.Sink) (stream.Source, stream.Publisher) {
	t.Helper()
	engine, err := stream.Find("jetstream")
	if err != nil {
		t.Fatal(err)
	}
	log, _ := logger(t, "source")
	c := stream.Config{URL: publisherURL, Name: "MQTT_WEBHOOKS", Endpoint: "orders", Partitions: 1, Replicas: 1, MaxBytes: 1 << 30, Log: log}
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
	if err := p.Publish(t.Context(), 0, id, []byte(id)); err != nil {
		t.Fatal(err)
	}
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
	s, p := startSource(t, nats.ClientURL(), nats.ClientURL(), to)
	publishOne(t, p, "a")
	m := to.next(t)
	st, err := js.Stream(t.Context(), "MQTT_WEBHOOKS")
	if err != nil {
		t.Fatal(err)
	}
	consumers := func() (names []string) {
		l := st.ConsumerNames(t.Context())
		for name := range l.Name() {
			names = append(names, name)
		}
		if err := l.Err(); err != nil {
			t.Fatal(err)
		}
		return names
	}
	before := consumers()
	if len(before) != 1 {
		t.Fatalf("consumers %v", before)
	}
	s.Reset(0, false)
	<-to.ends
	for end := time.Now().Add(12 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if now := consumers(); len(now) != 1 || now[0] != before[0] {
			t.Fatalf("consumers %v, before %v", now, before)
		}
	}
	m.Ack()
	close(to.ended)
	eventually(t, 20*time.Second, func() string { // it comes again as another one
		if now := consumers(); len(now) != 1 || now[0] == before[0] {
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
	_, p := startSource(t, via.url(), nats.ClientURL(), to)
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
	via.cut(false)
	publishOne(t, p, "b")
	m = to.next(t)
	if got := string(m.Data()); got != "b" {
		t.Fatalf("got %s, want b", got)
	}
	m.Ack()
	eventually(t, 30*time.Second, func() string {
		st, err := js.Stream(t.Context(), "MQTT_WEBHOOKS")
		if err != nil {
			return err.Error()
		}
		if n := st.CachedInfo().State.Msgs; n > 0 {
			return fmt.Sprintf("%d events are left", n)
		}
		return ""
	})
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
	startSource(t, via.url(), nats.ClientURL(), to)
	state := func(want bool) {
		t.Helper()
		eventually(t, 20*time.Second, func() string {
			to.mu.Lock()
			defer to.mu.Unlock()
			n := len(to.leases)
			switch {
			case want && (n == 0 || time.Until(to.leases[n-1]) <= 0):
				return "there is no lease"
			case !want && (n < 2 || !to.leases[n-1].Before(to.leases[n-2])):
				return "the lease goes on"
			}
			return ""
		})
	}
	state(true)
	via.cut(true)
	state(false)
	via.open()
	state(true)
}
