package jetstream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/mochi-hooks/webhook/internal/stream"
)

// A fakeJetStream keeps in mind which consumers are deleted, and makes none.
type fakeJetStream struct {
	jetstream.JetStream
	mu      sync.Mutex
	deleted []string
	wanted  int // consumers that were to be made
}

func (f *fakeJetStream) CreateConsumer(context.Context, string, jetstream.ConsumerConfig) (jetstream.Consumer, error) {
	f.wanted++
	return nil, errors.New("no answer")
}

func (f *fakeJetStream) DeleteConsumer(_ context.Context, _, name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.deleted = append(f.deleted, name)
	return nil
}

// A fakeStream is as it has to be, and has no consumers.
type fakeStream struct {
	jetstream.Stream
	info   jetstream.StreamInfo
	during func() // runs while it is looked at
}

func (f *fakeStream) Info(context.Context, ...jetstream.StreamInfoOpt) (*jetstream.StreamInfo, error) {
	if f.during != nil {
		f.during()
	}
	return &f.info, nil
}

func (f *fakeStream) ConsumerNames(context.Context) jetstream.ConsumerNameLister { return noNames{} }

// noNames is a list of consumers that is empty.
type noNames struct{}

func (noNames) Name() <-chan string {
	names := make(chan string)
	close(names)
	return names
}

func (noNames) Err() error { return nil }

// A fakeSink keeps in mind what it is told.
type fakeSink struct {
	events []uint64 // by sequence number in the stream
	leased time.Time
}

func (f *fakeSink) Event(_ int, m stream.Message) { f.events = append(f.events, m.(*message).seq) }
func (f *fakeSink) Lease(until time.Time)         { f.leased = until }

func (f *fakeSink) End(int) <-chan struct{} {
	ended := make(chan struct{})
	close(ended)
	return ended
}

// A fakeConsume is the client that takes events.
type fakeConsume struct {
	jetstream.ConsumeContext
	stopped atomic.Bool
}

func (f *fakeConsume) Stop() { f.stopped.Store(true) }

// A fakeMsg is an event from the server.
type fakeMsg struct {
	jetstream.Msg
	consumer, stream uint64
	acked            bool
}

func (m *fakeMsg) Metadata() (*jetstream.MsgMetadata, error) {
	return &jetstream.MsgMetadata{Sequence: jetstream.SequencePair{Consumer: m.consumer, Stream: m.stream}}, nil
}

func (m *fakeMsg) Data() []byte  { return []byte("event") }
func (m *fakeMsg) Reply() string { return "" }

func (m *fakeMsg) Ack() error {
	m.acked = true
	return nil
}

// fakeSource returns a source without a server, and its partition 0.
func fakeSource(partitions int) (*source, *fakeJetStream, *partition) {
	js, st := new(fakeJetStream), new(fakeStream)
	s := &source{
		connection: &connection{js: js}, stream: st, sink: new(fakeSink),
		config:     stream.Config{Name: "MQTT_WEBHOOKS", Endpoint: "orders", Partitions: partitions, Log: slog.New(slog.DiscardHandler)},
		partitions: make(map[int]*partition), leaving: make(map[int]*partition), resting: make(map[int]time.Time),
	}
	s.up.Store(true)
	s.ctx, s.hurry, s.ending = context.Background(), context.Background(), context.Background()
	s.acks.some = make(chan struct{}, 1)
	st.info.Config = eventStream(&s.config)
	c := &st.info.Config
	c.Replicas, c.MaxMsgs, c.MaxMsgsPerSubject, c.MaxMsgSize = 1, -1, -1, -1
	p := &partition{
		source: s, name: "own", next: 1, unacked: make(map[uint64]*message), room: make(chan struct{}, 1),
		consume: new(fakeConsume), closed: make(chan struct{}),
	}
	s.partitions[0] = p
	return s, js, p
}

// TestReceive lets a partition's events come as a server sends them.
func TestReceive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, js, p := fakeSource(1)
		go s.acks.run()
		to := s.sink.(*fakeSink)
		receive := func(consumer, seq uint64) *fakeMsg {
			m := &fakeMsg{consumer: consumer, stream: seq}
			p.receive(m)
			return m
		}
		want := func(what string, seqs ...uint64) {
			t.Helper()
			if !slices.Equal(to.events, seqs) {
				t.Errorf("%s: events %v, want %v", what, to.events, seqs)
			}
		}
		first, second := receive(1, 10), receive(2, 12)
		want("in order", 10, 12)
		time.Sleep(progress)
		receive(3, 10)
		want("again while it is worked on", 10, 12)
		if since := time.Since(p.unacked[10].received); since > 0 {
			t.Errorf("the server has to be told about an event that it sent %v ago, not now", since)
		}
		p.unacked[10].Ack()
		synctest.Wait()
		if !first.acked || second.acked || p.size != len("event") {
			t.Errorf("acknowledged: %v and %v; %d bytes are held", first.acked, second.acked, p.size)
		}
		if again := receive(4, 10); !again.acked {
			t.Error("an event whose acknowledgement was lost is not acknowledged again")
		}
		receive(5, 13)
		want("behind one whose acknowledgement was lost", 10, 12, 13)

		receive(7, 15) // and 6 was lost
		receive(8, 16)
		receive(6, 14)
		want("behind one that was lost", 10, 12, 13)
		synctest.Wait()
		if want := []string{"own"}; !slices.Equal(js.deleted, want) {
			t.Errorf("consumers %v are deleted, want %v", js.deleted, want)
		}
		s.acks.close()
	})
}

// TestNothingComesAfterTheEnd ends a partition, in each way, while the client still
// has events of it: they are not this worker's any more, and none waits for room.
func TestNothingComesAfterTheEnd(t *testing.T) {
	for name, end := range map[string]func(*source){
		"lost":       func(s *source) { s.endLost(nil) },
		"given back": func(s *source) { s.Reset(0, false) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, _, p := fakeSource(mostBytes) // room for an event in each
				go s.acks.run()
				p.receive(&fakeMsg{consumer: 1, stream: 1})
				returned := false
				go func() {
					p.receive(&fakeMsg{consumer: 2, stream: 2})
					returned = true
				}()
				synctest.Wait()
				if returned {
					t.Error("there is room for two events")
				}
				end(s)
				synctest.Wait()
				p.receive(&fakeMsg{consumer: 3, stream: 3})
				if to := s.sink.(*fakeSink); !returned || !slices.Equal(to.events, []uint64{1}) {
					t.Errorf("events %v, want the first alone; the second one waits for room: %v", to.events, !returned)
				}
				if !p.consume.(*fakeConsume).stopped.Load() {
					t.Error("the client still takes events")
				}
				s.acks.close()
			})
		})
	}
}

// TestRests leaves a partition that was given back to others for a while, unless it
// is to be taken anew.
func TestRests(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(*source)
		rest time.Duration
	}{
		{"to be taken anew", func(s *source) { s.Reset(0, false) }, 0},
		{"cannot be worked on", func(s *source) { s.Reset(0, true) }, resetDelay},
		{"is another worker's share", func(s *source) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.giveAway(1)
		}, resetDelay},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, js, _ := fakeSource(1)
				go s.acks.run()
				tt.end(s)
				synctest.Wait()
				rest := time.Duration(0)
				for ; js.wanted == 0 && rest < time.Minute; time.Sleep(beat) {
					_ = s.takeMore(1, nil)
					rest += beat
				}
				if least := tt.rest + beat; rest < least || rest > least+beat {
					t.Errorf("taken anew at the look after %v, want %v", rest-beat, tt.rest)
				}
				s.acks.close()
			})
		})
	}
}

// TestClientStops gives a partition back of whose consumer the client takes
// nothing more, though it is there.
func TestClientStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, js, p := fakeSource(1)
		go s.acks.run()
		s.endLost(map[string]bool{"own": true})
		synctest.Wait()
		if len(s.partitions) != 1 {
			t.Error("a partition whose consumer is there is gone")
		}
		stopped := make(chan struct{})
		close(stopped)
		p.closed = stopped
		s.endLost(map[string]bool{"own": true})
		synctest.Wait()
		if want := []string{"own"}; len(s.partitions)+len(s.leaving) > 0 || !slices.Equal(js.deleted, want) {
			t.Errorf("%d partitions are left, consumers %v are deleted, want %v", len(s.partitions)+len(s.leaving), js.deleted, want)
		}
		s.acks.close()
	})
}

// TestCutWhileLooking loses the connection while a look is under way: what it
// finds is of a time before that, and gives no lease.
func TestCutWhileLooking(t *testing.T) {
	conn, err := nats.Connect("nats://127.0.0.1:1", nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	s, _, _ := fakeSource(0)
	st := s.stream.(*fakeStream)
	s.conn = conn
	clear(s.partitions)
	for _, cut := range []bool{false, true} {
		if cut {
			st.during = s.cut
		}
		if err := s.look(); err != nil {
			t.Fatal(err)
		}
		if leased := time.Until(s.sink.(*fakeSink).leased) > 0; leased == cut {
			t.Errorf("cut: %v; leased: %v", cut, leased)
		}
	}
}

// TestHeard asks a stream's leader from whom it hears.
func TestHeard(t *testing.T) {
	near := &jetstream.PeerInfo{Current: true, Active: time.Second}
	far := &jetstream.PeerInfo{Current: true, Active: time.Minute}
	gone := &jetstream.PeerInfo{Active: time.Second, Offline: true}
	for _, tt := range []struct {
		cluster *jetstream.ClusterInfo
		ok      bool
	}{
		{nil, true},
		{&jetstream.ClusterInfo{Leader: "a"}, true},
		{&jetstream.ClusterInfo{Replicas: []*jetstream.PeerInfo{near, near}}, false}, // no leader
		{&jetstream.ClusterInfo{Leader: "a", Replicas: []*jetstream.PeerInfo{near, near}}, true},
		{&jetstream.ClusterInfo{Leader: "a", Replicas: []*jetstream.PeerInfo{near, far}}, true},
		{&jetstream.ClusterInfo{Leader: "a", Replicas: []*jetstream.PeerInfo{far, far}}, false},
		{&jetstream.ClusterInfo{Leader: "a", Replicas: []*jetstream.PeerInfo{far, gone}}, false},
		{&jetstream.ClusterInfo{Leader: "a", Replicas: []*jetstream.PeerInfo{near}}, true},
		{&jetstream.ClusterInfo{Leader: "a", Replicas: []*jetstream.PeerInfo{far}}, false}, // half is no quorum
	} {
		if err := heard(tt.cluster); (err == nil) != tt.ok {
			t.Errorf("%+v: got %v, fine: %v", tt.cluster, err, tt.ok)
		}
	}
}

// TestSourceErr has one thing after the other wrong with a source.
func TestSourceErr(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, _ := fakeSource(1)
		want := func(want string) {
			t.Helper()
			if got := fmt.Sprint(s.Err()); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		}
		want("<nil>")
		s.unburied, s.unburiedAt = &stream.Refused{Err: errors.New("too long")}, time.Now()
		want("<nil>") // it goes again without its body
		s.unburied = errors.New("full")
		want("dead letters: full")
		s.failed = errors.New("no answer")
		want("no answer")
		s.denied.Store(&denial{err: errors.New("permissions violation"), at: time.Now()})
		want("permissions violation")
		time.Sleep(max(deniedFor, unburiedFor))
		want("no answer")
		s.failed = nil
		want("<nil>")
	})
}
