package jetstream

import (
	"context"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// A partition is one that this worker has: its consumer, and what came from it
// and is not acknowledged.
type partition struct {
	source  *source
	n       int
	name    string // of the consumer
	consume jetstream.ConsumeContext
	closed  <-chan struct{} // when the client takes no more events

	mu      sync.Mutex
	over    bool
	next    uint64              // the consumer's next sequence number
	last    uint64              // the last event's sequence number in the stream
	unacked map[uint64]*message // by sequence number in the stream
	acked   string              // where the last acknowledgement went
	size    int                 // of those of them that the worker has
	room    chan struct{}       // says that there may be room; holds one
}

// take makes a consumer for a partition, which fails while there is another.
func (s *source) take(n int) error {
	ctx, cancel := timeout(s.ctx)
	defer cancel()
	held := max(mostHeld/s.config.Partitions, leastHeld)
	p := &partition{source: s, n: n, name: s.consumerName(n), next: 1, unacked: make(map[uint64]*message), room: make(chan struct{}, 1)}
	consumer, err := s.js.CreateConsumer(ctx, s.config.Name, jetstream.ConsumerConfig{
		Name:              p.name,
		FilterSubject:     subject(&s.config, n),
		AckPolicy:         jetstream.AckExplicitPolicy,
		AckWait:           ackWait,
		MaxDeliver:        -1,
		MaxAckPending:     held,
		InactiveThreshold: inactive,
		MemoryStorage:     true, // it is worth nothing without its worker
	})
	if err != nil {
		return err
	}
	if err := p.begin(consumer, held); err != nil {
		s.delete(p)
		return err
	}
	return nil
}

// begin lets events come, as many at a time as may be held, unless Release has
// begun, which does not see the partition.
func (p *partition) begin(consumer jetstream.Consumer, held int) (err error) {
	s := p.source
	p.mu.Lock() // nothing comes before the partition is this worker's
	defer p.mu.Unlock()
	// As many as it may hold: there is always a pull that shows that it lives.
	// But no more bytes at once than the longest event has: the server ends a
	// connection for which it has 64 MiB to send.
	most := max(int(s.conn.MaxPayload()), 1<<20) + 64<<10
	p.consume, err = consumer.Consume(p.receive, jetstream.PullMaxMessagesWithBytesLimit(held, most), jetstream.PullExpiry(pullExpiry),
		jetstream.ConsumeErrHandler(func(jetstream.ConsumeContext, error) {})) // look finds out what matters
	if err != nil {
		return err
	}
	p.closed = p.consume.Closed()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.ctx.Err(); err != nil {
		p.over = true
		p.consume.Stop()
		return err
	}
	s.partitions[p.n] = p
	delete(s.resting, p.n)
	return nil
}

// stopped reports whether the client has ended to take events by itself.
func (p *partition) stopped() bool {
	select {
	case <-p.closed:
		return true
	default:
		return false
	}
}

// receive takes an event from the server.
func (p *partition) receive(m jetstream.Msg) {
	meta, err := m.Metadata()
	if err != nil {
		return // not from a stream
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch held := p.unacked[meta.Sequence.Stream]; {
	case p.over:
		return
	case meta.Sequence.Consumer != p.next:
		// Something was on its way when the connection was lost. It would
		// come again, behind what is after it.
		p.over = true
		p.source.Reset(p.n, false)
		return
	case held != nil:
		held.received = time.Now()
		p.next++
		return
	case meta.Sequence.Stream <= p.last:
		// Its acknowledgement was lost. What was behind it may have been
		// delivered, so it must not go out again.
		_ = m.Ack()
		p.next++
		return
	}
	p.next++
	own := &message{Msg: m, partition: p, seq: meta.Sequence.Stream, received: time.Now()}
	p.unacked[own.seq], p.last = own, own.seq
	if p.admit(len(m.Data())) {
		p.source.sink.Event(p.n, own)
	}
}

// admit waits until there is room for an event of n bytes. It reports false if
// the partition is over. p.mu is held, but not meanwhile.
func (p *partition) admit(n int) bool {
	for most := mostBytes / p.source.config.Partitions; !p.over && p.size > 0 && p.size+n > most; {
		p.mu.Unlock()
		<-p.room
		p.mu.Lock()
	}
	p.size += n
	return !p.over
}

// end lets no more events come.
func (p *partition) end() {
	p.mu.Lock()
	p.over = true
	p.mu.Unlock()
	signal(p.room)
	p.consume.Stop()
}

// settle returns when the server has taken the acknowledgements that are sent.
// It has them in a line of their own, which goes with the consumer.
func (p *partition) settle(ctx context.Context) {
	p.mu.Lock()
	last := p.acked
	p.mu.Unlock()
	if last == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout/2) // and then it has to be deleted
	defer cancel()
	_, _ = p.source.conn.RequestWithContext(ctx, last, []byte("+ACK")) // once more does no harm
}

// touch tells the server that events are being worked on.
func (p *partition) touch() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	for _, m := range p.unacked {
		if now.Sub(m.received) >= progress/2 {
			_ = m.InProgress()
		}
	}
}

// A message is an event that is not acknowledged.
type message struct {
	jetstream.Msg
	partition *partition
	seq       uint64
	received  time.Time // under partition.mu
}

// Ack implements [stream.Message].
func (m *message) Ack() { m.partition.source.acks.add(m) }

// acknowledge tells the server that an event is dealt with.
func (p *partition) acknowledge(m *message) {
	p.mu.Lock()
	delete(p.unacked, m.seq)
	p.size -= len(m.Data())
	p.acked = m.Reply()
	p.mu.Unlock()
	signal(p.room)
	_ = m.Msg.Ack() // one that is lost makes the event come again
}
