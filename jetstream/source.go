package jetstream

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/mochi-hooks/webhook/internal/stream"
)

// A consumer whose worker is gone goes when its last event has not been touched
// for ackWait and then inactive. While a worker lives, it touches what it has
// each progress, and looks each beat at whether its consumers are there. From
// that look on it has the lease: no consumer goes in that time, as lease and
// progress together are less than ackWait.
const (
	beat     = time.Second
	lease    = 4 * time.Second
	progress = 2 * time.Second
	ackWait  = 8 * time.Second
	inactive = 3 * time.Second

	// quorum is how long ago a stream's leader has heard from others that follow
	// it: they tell it each second. Longer than that, and the lease, others cannot
	// have its consumers.
	quorum = 3 * time.Second

	// pullExpiry is how long the server takes a worker for alive that has gone
	// without a word.
	pullExpiry = 5 * time.Second

	// rollCall is how long workers have to answer.
	rollCall = 300 * time.Millisecond

	// closeTimeout is how long NATS has to take the last that there is to tell.
	closeTimeout = 400 * time.Millisecond

	// unburiedFor is how long a worker whose dead letter was not taken says so. An
	// event that still has to become one comes again before that, if not to
	// another worker.
	unburiedFor = time.Minute

	// resetDelay is how long a partition rests that could not be worked on.
	resetDelay = 5 * time.Second
)

// mostHeld is how many events of an endpoint a worker holds of all partitions
// together, and leastHeld how many of each where that is more.
const mostHeld, leastHeld = 4096, 64

// mostBytes is how long all of them are together, but for one of each partition.
const mostBytes = 128 << 20

// A source is a worker's part in a stream.
type source struct {
	*connection
	config stream.Config
	id     string // of the worker
	sink   stream.Sink

	stream jetstream.Stream

	ctx    context.Context // ends when Release begins
	stop   context.CancelFunc
	hurry  context.Context // ends when Close begins: attempts are waited for no longer
	now    context.CancelFunc
	ending context.Context // ends when Close has waited long enough for NATS
	end    context.CancelFunc
	tasks  sync.WaitGroup // the goroutines of this source, but for
	leaves sync.WaitGroup // those that give partitions back
	again  chan struct{}  // a beat before its time; holds one

	// It is not held across anything that waits for the connection. The
	// queue's lock may be taken under it, see Reset for the other way.
	mu         sync.Mutex
	partitions map[int]*partition
	leaving    map[int]*partition // on their way back: their attempts have to end first
	resting    map[int]time.Time  // partitions that are not to be taken before
	failed     error              // of the last beat
	unburied   error              // of the last dead letter
	unburiedAt time.Time          // when that was
	over       int                // beats in a row that said that this worker has more than its share
	cuts       int                // how often the connection was lost

	blocked map[int]bool  // partitions that no worker had and that could not be taken all the same; of run
	named   atomic.Uint64 // consumers that were given a name
	acks    acks
	present *nats.Subscription
}

// Source implements [stream.Driver].
func (driver) Source(ctx context.Context, c stream.Config) (stream.Source, error) {
	conn, err := connectContext(ctx, c)
	if err != nil {
		return nil, err
	}
	st, err := conn.awaitStreams(ctx, &c)
	if err != nil {
		conn.conn.Close()
		return nil, err
	}
	s := &source{
		connection: conn, config: c, id: nuid.Next(), stream: st, again: make(chan struct{}, 1),
		partitions: make(map[int]*partition), leaving: make(map[int]*partition), resting: make(map[int]time.Time),
		blocked: make(map[int]bool),
	}
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.hurry, s.now = context.WithCancel(context.Background())
	s.ending, s.end = context.WithCancel(context.Background())
	s.acks.some = make(chan struct{}, 1)
	return s, nil
}

// Start implements [stream.Source].
func (s *source) Start(sink stream.Sink) {
	s.sink = sink
	// Workers answer a roll call.
	present, err := s.conn.Subscribe(s.presence(), func(m *nats.Msg) {
		if s.takesPart() {
			_ = m.Respond([]byte(s.id))
		}
	})
	if err != nil {
		s.config.Log.Warn("cannot answer roll calls", "error", err)
	}
	s.present = present
	s.conn.SetDisconnectErrHandler(func(_ *nats.Conn, err error) {
		s.cut()
		s.lost(err)
	})
	s.conn.SetReconnectHandler(func(conn *nats.Conn) {
		s.connected(conn)
		signal(s.again)
	})
	s.tasks.Go(s.run)
	s.tasks.Go(s.acks.run)
	s.tasks.Go(s.touch)
}

// leave gives a partition back when its attempts have ended. Until then it stays
// this worker's: an attempt that another worker does not know of could arrive
// after its own. s.mu is held.
func (s *source) leave(p *partition) {
	delete(s.partitions, p.n)
	s.leaving[p.n] = p
	s.leaves.Go(func() {
		p.end()
		select {
		case <-s.sink.End(p.n):
		case <-s.hurry.Done():
		}
		s.acks.flush()
		s.delete(p)
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.leaving, p.n)
	})
}

// delete deletes a partition's consumer, which lets another worker take it.
func (s *source) delete(p *partition) {
	err := s.state()
	if err == nil {
		ctx, cancel := timeout(s.ending)
		defer cancel()
		p.settle(ctx)
		err = s.js.DeleteConsumer(ctx, s.config.Name, p.name)
	}
	if err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) && s.quiet.due(err) {
		s.config.Log.Warn("partition is free only after a while", "partition", p.n, "error", err)
	}
}

// Reset implements [stream.Source]. Who calls it has locks that may be taken under
// s.mu, so it is done elsewhere.
func (s *source) Reset(n int, wait bool) {
	s.tasks.Go(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		p := s.partitions[n]
		if p == nil {
			return // it is on its way back
		}
		if wait {
			s.resting[n] = time.Now().Add(resetDelay)
		}
		s.leave(p)
	})
}

// touch tells the server about events that take long.
func (s *source) touch() {
	ticker := time.NewTicker(progress)
	defer ticker.Stop()
	for {
		select {
		case <-s.hurry.Done():
			return
		case <-ticker.C:
		}
		s.mu.Lock()
		partitions := slices.AppendSeq(slices.Collect(maps.Values(s.partitions)), maps.Values(s.leaving))
		s.mu.Unlock()
		for _, p := range partitions {
			p.touch()
		}
	}
}

// DeadLetter implements [stream.Source].
func (s *source) DeadLetter(ctx context.Context, id string, letter []byte) error {
	send := func() error {
		return publish(ctx, s.js, &s.config, deadStream(&s.config), deadSubject(&s.config), id, letter)
	}
	err := send()
	if errors.Is(err, jetstream.ErrNoStreamResponse) { // it may be gone
		if _, err = ensure(ctx, s.js, letterStream(&s.config)); err == nil {
			err = send()
		}
	}
	if ctx.Err() == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.unburied, s.unburiedAt = err, time.Now()
	}
	return err
}

// Err implements [stream.Source].
func (s *source) Err() error {
	if err := s.state(); err != nil {
		return err
	}
	denied := s.denial()
	s.mu.Lock()
	defer s.mu.Unlock()
	var refused *stream.Refused
	switch {
	case denied != nil: // before what it leads to
		return denied
	case s.failed != nil:
		return s.failed
	case s.unburied != nil && time.Since(s.unburiedAt) < unburiedFor && !errors.As(s.unburied, &refused): // what is refused goes again without its body
		return fmt.Errorf("dead letters: %w", s.unburied)
	}
	return nil
}

// Release implements [stream.Source].
func (s *source) Release(ctx context.Context) {
	s.stop()
	if s.present != nil {
		s.tasks.Go(func() { _ = s.present.Unsubscribe() }) // counted no more
	}
	s.mu.Lock()
	for _, p := range s.partitions {
		s.leave(p)
	}
	s.mu.Unlock()
	left := make(chan struct{})
	s.tasks.Go(func() {
		s.leaves.Wait()
		close(left)
	})
	select {
	case <-left:
	case <-ctx.Done():
	}
}

// Close implements [stream.Source].
func (s *source) Close() {
	late := time.AfterFunc(closeTimeout, s.end)
	defer late.Stop()
	s.now()
	s.leaves.Wait()
	s.acks.close()
	s.tasks.Wait()
	if s.state() == nil {
		_ = s.conn.FlushWithContext(s.ending)
	}
	s.conn.Close()
	s.end()
}
