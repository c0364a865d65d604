package webhook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mochi-hooks/webhook/internal/stream"
)

// A fakeSource is a stream of which a test is the server.
type fakeSource struct {
	letter func(line []byte) error // nil takes all

	mu      sync.Mutex
	resets  []int
	letters [][]byte
}

// reset returns the partitions that were given back.
func (s *fakeSource) reset() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.resets)
}

func (s *fakeSource) Start(stream.Sink) {}

func (s *fakeSource) DeadLetter(_ context.Context, _ string, line []byte) error {
	if s.letter != nil {
		if err := s.letter(line); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.letters = append(s.letters, line)
	return nil
}

func (s *fakeSource) Reset(partition int, _ bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.resets = append(s.resets, partition)
}

func (s *fakeSource) Err() error              { return nil }
func (s *fakeSource) Release(context.Context) {}
func (s *fakeSource) Close()                  {}

// A fakeMessage is an event of a fakeSource.
type fakeMessage struct {
	data  []byte
	acked atomic.Bool
}

func messageOf(ev *event) *fakeMessage { return &fakeMessage{data: appendRecord(nil, ev)} }

func (m *fakeMessage) Data() []byte  { return m.data }
func (m *fakeMessage) Ack()          { m.acked.Store(true) }
func (m *fakeMessage) isAcked() bool { return m.acked.Load() }

// startIntake starts a worker's part of an endpoint, which has a lease.
func startIntake(t *testing.T, c Endpoint, source *fakeSource, answer func(req *request, deadline time.Time, canceled <-chan struct{}) outcome) *consumer {
	t.Helper()
	w, err := newConsumer(&c, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for _, worker := range w.endpoint.pool.workers {
		worker.poster = &fakePoster{answer: answer, stop: make(chan struct{})}
	}
	w.intake.source, w.letters.source, w.source = source, source, source
	w.endpoint.start()
	w.intake.Lease(time.Now().Add(time.Hour))
	return w
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// TestLease begins attempts while there is a lease, and no others.
func TestLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent atomic.Int32
		w := startIntake(t, defaultEndpoint(), &fakeSource{}, func(*request, time.Time, <-chan struct{}) outcome {
			sent.Add(1)
			time.Sleep(time.Second)
			return outcome{status: 200}
		})
		w.intake.Lease(time.Now().Add(2500 * time.Millisecond))
		for i := range 10 {
			w.intake.Event(0, messageOf(publishOf("c", fmt.Sprint(i))))
		}
		time.Sleep(time.Minute)
		if got := sent.Load(); got != 3 {
			t.Errorf("%d attempts, want 3: those that began within the lease", got)
		}
		w.intake.Lease(time.Now().Add(time.Minute))
		synctest.Wait()
		if got := sent.Load(); got != 4 {
			t.Errorf("%d attempts, want 4: the next as soon as there is a lease", got)
		}
		w.intake.Lease(time.Now()) // which ends it
		time.Sleep(time.Minute)
		if got := sent.Load(); got != 4 {
			t.Errorf("%d attempts, want 4: none after the lease", got)
		}
		checkSum(t, w.endpoint.queue.stats())
		w.stop(0)
	})
}

// TestNothingOvertakesWhatIsGivenBack lets events come after one that had to be
// given back, before the source knows of it.
func TestNothingOvertakesWhatIsGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent []string
		full := true
		source := &fakeSource{letter: func([]byte) error {
			if full {
				return errors.New("full")
			}
			return nil
		}}
		w := startIntake(t, defaultEndpoint(), source, func(req *request, _ time.Time, _ <-chan struct{}) outcome {
			sent = append(sent, payloadOf(req.body))
			if payloadOf(req.body) == "1" {
				return outcome{verdict: refused, status: 400}
			}
			return outcome{status: 200}
		})
		messages := make([]*fakeMessage, 3)
		for i := range messages {
			messages[i] = messageOf(publishOf("c", fmt.Sprint(i)))
		}
		w.intake.Event(7, messages[0])
		w.intake.Event(7, messages[1])
		synctest.Wait()
		w.intake.Event(7, messages[2])
		synctest.Wait()
		if want := []string{"0", "1"}; !slices.Equal(sent, want) {
			t.Errorf("sent %v, want %v", sent, want)
		}
		if want := []int{7}; !slices.Equal(source.reset(), want) {
			t.Errorf("partitions that were reset: %v, want %v", source.reset(), want)
		}
		if !messages[0].isAcked() || messages[1].isAcked() || messages[2].isAcked() {
			t.Error("not the first alone is acknowledged")
		}
		if !isClosed(w.intake.End(7)) {
			t.Error("the partition has not ended")
		}
		full = false
		w.intake.Event(7, messages[1]) // taken anew
		w.intake.Event(7, messages[2])
		synctest.Wait()
		if want := []string{"0", "1", "1", "2"}; !slices.Equal(sent, want) {
			t.Errorf("sent %v, want %v", sent, want)
		}
		checkSum(t, w.endpoint.queue.stats())
		w.stop(0)
	})
}

// TestLongLetter has a stream that takes no long letters.
func TestLongLetter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &fakeSource{letter: func(line []byte) error {
			if len(line) > 1000 {
				return &stream.Refused{Err: errors.New("too long")}
			}
			return nil
		}}
		w := startIntake(t, defaultEndpoint(), source, func(*request, time.Time, <-chan struct{}) outcome {
			return outcome{verdict: refused, status: 413}
		})
		long := messageOf(publishOf("c", string(make([]byte, 800))))
		w.intake.Event(0, long)
		synctest.Wait()
		if !long.isAcked() || len(source.letters) != 1 {
			t.Fatalf("%d letters, acknowledged: %v", len(source.letters), long.isAcked())
		}
		if want := "a body of 4943 bytes is too long for the stream"; !strings.Contains(string(source.letters[0]), want) {
			t.Errorf("got %s, want one that says: %s", source.letters[0], want)
		}
		if err := new(redelivery).offer(source.letters[0]); err == nil || !strings.HasPrefix(err.Error(), "body:") {
			t.Errorf("a letter without its body can be sent again: %s: %v", source.letters[0], err)
		}
		w.stop(0)
	})
}

// TestEndOfPartitions ends one of two partitions that have events of one
// client, as brokers leave them whose ordering was another one.
func TestEndOfPartitions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &fakeSource{}
		w := startIntake(t, defaultEndpoint(), source, func(_ *request, deadline time.Time, canceled <-chan struct{}) outcome {
			time.Sleep(10 * time.Millisecond)
			return outcome{status: 200}
		})
		var first, second []*fakeMessage
		for i := range 20 {
			m := messageOf(publishOf("c", fmt.Sprint(i)))
			if i%2 == 0 {
				first = append(first, m)
			} else {
				second = append(second, m)
			}
			w.intake.Event(i%2, m)
		}
		ended := w.intake.End(1)
		time.Sleep(time.Second)
		if !isClosed(ended) {
			t.Error("the partition has not ended")
		}
		for i, m := range first {
			if !m.isAcked() {
				t.Errorf("event %d of the other partition is not delivered", i)
			}
		}
		for i, m := range second[1:] {
			if m.isAcked() {
				t.Errorf("event %d of the partition that ended is delivered", i+1)
			}
		}
		s := w.endpoint.queue.stats()
		checkSum(t, s)
		if s.Waiting+s.InFlight > 0 {
			t.Errorf("%+v", s)
		}
		w.stop(0)
	})
}

// TestNewerEvent gives a partition back at an event that only another worker can
// read, when what is before it has ended, and each time that it comes.
func TestNewerEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &fakeSource{}
		w := startIntake(t, defaultEndpoint(), source, func(*request, time.Time, <-chan struct{}) outcome {
			time.Sleep(time.Second)
			return outcome{status: 200}
		})
		warned := 0 // the log alone says why a partition stands still
		w.intake.warn = func(error) { warned++ }
		before, newer, behind := messageOf(publishOf("c", "0")), &fakeMessage{data: []byte("\xffnewer")}, messageOf(publishOf("c", "1"))
		for _, m := range []*fakeMessage{before, newer, behind} {
			w.intake.Event(7, m)
		}
		synctest.Wait()
		if len(source.reset()) > 0 {
			t.Error("the partition is given back before the event before the newer one has ended")
		}
		time.Sleep(2 * time.Second)
		if want := []int{7}; !slices.Equal(source.reset(), want) {
			t.Fatalf("partitions that were reset: %v, want %v", source.reset(), want)
		}
		if !isClosed(w.intake.End(7)) {
			t.Error("the partition has not ended")
		}
		w.intake.Event(7, newer) // taken anew
		w.intake.Event(7, behind)
		time.Sleep(2 * time.Second)
		if want := []int{7, 7}; !slices.Equal(source.reset(), want) {
			t.Errorf("partitions that were reset: %v, want %v", source.reset(), want)
		}
		if !before.isAcked() || newer.isAcked() || behind.isAcked() {
			t.Error("not the first alone is acknowledged")
		}
		if warned != 2 {
			t.Errorf("%d warnings, want one each time", warned)
		}
		checkSum(t, w.endpoint.queue.stats())
		w.stop(0)
	})
}

// TestDamagedEvent does not keep the source waiting.
func TestDamagedEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answer := make(chan error)
		source := &fakeSource{letter: func([]byte) error { return <-answer }}
		w := startIntake(t, defaultEndpoint(), source, func(*request, time.Time, <-chan struct{}) outcome {
			return outcome{status: 200}
		})
		damaged := &fakeMessage{data: []byte("\x01junk")}
		returned := make(chan struct{})
		go func() {
			w.intake.Event(0, damaged)
			close(returned)
		}()
		synctest.Wait()
		if !isClosed(returned) {
			t.Error("Event waits for the letter")
		}
		ended := w.intake.End(0)
		if isClosed(ended) {
			t.Error("the partition ends before the letter is written")
		}
		answer <- nil
		synctest.Wait()
		if !damaged.isAcked() || !isClosed(ended) {
			t.Errorf("acknowledged: %v, ended: %v", damaged.isAcked(), isClosed(ended))
		}
		checkSum(t, w.endpoint.queue.stats())

		again := &fakeMessage{data: []byte("\x01junk")}
		w.intake.Event(0, again)
		answer <- errors.New("full")
		synctest.Wait()
		if again.isAcked() || !slices.Equal(source.reset(), []int{0}) {
			t.Errorf("without a letter: acknowledged: %v, resets: %v", again.isAcked(), source.reset())
		}
		if !isClosed(w.intake.End(0)) {
			t.Error("the partition has not ended")
		}

		late := &fakeMessage{data: []byte("\x01junk")}
		w.intake.Event(0, late)
		ended = w.intake.End(0)
		answer <- errors.New("full")
		synctest.Wait()
		if late.isAcked() || !isClosed(ended) {
			t.Errorf("without a letter, after the end: acknowledged: %v, ended: %v", late.isAcked(), isClosed(ended))
		}
		if want := []int{0}; !slices.Equal(source.reset(), want) { // somebody may have it by now
			t.Errorf("partitions that were reset: %v, want %v", source.reset(), want)
		}
		w.stop(0)
	})
}

// TestBatchOfEndedPartition takes a partition away in the middle of a batch that
// is refused: the halves do not go out any more.
func TestBatchOfEndedPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := defaultEndpoint()
		c.Batch = Batch{MaxEvents: 4, MaxBytes: 1 << 20, Linger: time.Millisecond}
		var attempts atomic.Int32
		w := startIntake(t, c, &fakeSource{}, func(*request, time.Time, <-chan struct{}) outcome {
			attempts.Add(1)
			time.Sleep(time.Second)
			return outcome{verdict: refused, status: 400}
		})
		for i := range 4 {
			w.intake.Event(0, messageOf(publishOf(fmt.Sprint("c", i), "x")))
		}
		time.Sleep(500 * time.Millisecond)
		ended := w.intake.End(0)
		time.Sleep(time.Minute)
		if n := attempts.Load(); n != 1 || !isClosed(ended) {
			t.Errorf("%d attempts, want 1; ended: %v", n, isClosed(ended))
		}
		checkSum(t, w.endpoint.queue.stats())
		w.stop(0)
	})
}

// TestDelivererTransport refuses, as a Hook does, settings that a Transport leaves
// without effect.
func TestDelivererTransport(t *testing.T) {
	cfg := &Config{Endpoints: []Endpoint{{URL: "https://127.0.0.1:1/", TLS: TLS{InsecureSkipVerify: true}, Stream: Stream{URL: "nats://127.0.0.1:1"}}}}
	err := (&Deliverer{Config: cfg, Transport: http.DefaultTransport}).Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "Transport") {
		t.Errorf("got %v, want one about the Transport", err)
	}
}

// TestDelivererRunsOnce.
func TestDelivererRunsOnce(t *testing.T) {
	cfg := &Config{Endpoints: []Endpoint{{URL: "http://127.0.0.1:1/", Stream: Stream{URL: "nats://127.0.0.1:1"}}}}
	d := &Deliverer{Config: cfg}
	_ = d.Run(t.Context())
	if err := d.Run(t.Context()); err == nil || err.Error() != "webhook: a Deliverer runs once" {
		t.Errorf("a second time: got %v", err)
	}
}
