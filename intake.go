package webhook

import (
	"errors"
	"sync"
	"time"

	"github.com/mochi-hooks/webhook/internal/stream"
)

// An intake is the store of a queue whose events come from the partitions of a
// stream, and the sink that they come to. What has ended here is acknowledged
// to the stream; what has not is the stream's, for whoever has the partition
// next. The queue's lock guards it.
type intake struct {
	memory
	queue   *queue
	source  stream.Source
	letters *streamLetters
	warn    func(error) // about an event that cannot be read

	messages map[uint64]held // by reference
	tenures  map[int]*tenure // of the partitions that this worker has
	burying  sync.WaitGroup  // goroutines that write letters about what is damaged
}

// A held event is one that has not ended: its message, and whose it is.
type held struct {
	message stream.Message
	tenure  *tenure
}

// A tenure is the time for which this worker has a partition.
type tenure struct {
	partition int
	events    int           // that have not ended
	stalled   bool          // there is one that only another worker can read
	over      bool          // what has not ended is in flight, and nothing more comes
	ended     chan struct{} // closed when it is over and nothing is
}

// remove acknowledges an event.
func (b *intake) remove(ref uint64) {
	b.messages[ref].message.Ack()
	b.forget(ref)
}

// forget forgets an event, which the stream still has unless it was acknowledged.
func (b *intake) forget(ref uint64) {
	t := b.messages[ref].tenure
	delete(b.messages, ref)
	b.memory.remove(ref)
	t.events--
	b.look(t)
}

// look sees whether nothing is left of a tenure.
func (b *intake) look(t *tenure) {
	switch {
	case t.events > 0:
	case t.over:
		close(t.ended)
	case t.stalled:
		b.source.Reset(t.partition, true)
	}
}

// tenure returns that of a partition.
func (b *intake) tenure(partition int) *tenure {
	t := b.tenures[partition]
	if t == nil {
		t = &tenure{partition: partition, ended: make(chan struct{})}
		b.tenures[partition] = t
	}
	return t
}

// Event takes an event; see [stream.Sink].
func (b *intake) Event(partition int, m stream.Message) {
	rec := m.Data()
	var ev event
	err := decodeRecord(rec, &ev)
	q := b.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	t := b.tenure(partition)
	switch {
	case t.stalled || t.over:
		return // for who has the partition next
	case errors.Is(err, errRecordNewer):
		// Another worker may be able to, or this one after an update: what is
		// before it goes out, and nothing behind it.
		b.warn(err)
		t.stalled = true
		b.look(t)
		return
	case err != nil:
		t.events++
		b.burying.Go(func() { b.buryUnreadable(t, m, err) }) // the source does not wait for the letter
		return
	}
	ref, _ := b.memory.put(rec)
	b.messages[ref] = held{m, t}
	t.events++
	// Brokers with another ordering may have put a client's events into several
	// partitions. A lane has those of one, with which it ends.
	var its ticket
	its.set(&ev, ev.laneKey(q.seed)^uint64(partition), len(rec))
	q.entered(&its, ref, keep)
}

// buryUnreadable writes the dead letter of an event that is damaged.
func (b *intake) buryUnreadable(t *tenure, m stream.Message, err error) {
	b.warn(err)
	l := &deadLetter{Time: time.Now().UTC(), Endpoint: b.letters.endpoint, Error: "unreadable: " + err.Error()}
	l.setBody(m.Data())
	_, err = b.letters.write(l)
	b.queue.mu.Lock()
	defer b.queue.mu.Unlock()
	t.events--
	if err != nil {
		b.giveBackPartition(t)
		return
	}
	b.queue.counters.events[0].Offered++
	b.queue.counters.events[0].Dead++
	m.Ack()
	b.look(t)
}

// End takes a partition away; see [stream.Sink].
func (b *intake) End(partition int) <-chan struct{} {
	b.queue.mu.Lock()
	defer b.queue.mu.Unlock()
	t := b.tenure(partition)
	delete(b.tenures, partition)
	if !t.over {
		b.endTenure(t)
	}
	return t.ended
}

// endTenure forgets what waits of a partition. What is in flight ends as it
// does, and does not wait again.
func (b *intake) endTenure(t *tenure) {
	t.stalled = false
	q := b.queue
	for at := q.age.head; at != 0; {
		e := q.entries.at(at)
		next := e.newer
		if b.messages[e.ref].tenure == t && e.flags&entryInFlight == 0 { // the first of its lane, all of which is of this tenure
			q.takeHead(e.lane)
			b.pass(at)
		}
		at = next
	}
	t.over = true
	b.look(t)
}

// pass leaves an event that is in no lane any more to the stream.
func (b *intake) pass(at uint32) {
	q := b.queue
	e := q.entries.at(at)
	q.counters.events[e.kind()].Forwarded++
	b.forget(e.ref)
	q.forgetEntry(at)
}

// isOver reports whether an event in flight is of a partition that this worker
// does not have any more.
func (q *queue) isOver(ref uint64) bool {
	in, ok := q.store.(*intake)
	return ok && in.messages[ref].tenure.over
}

// giveBackPartition ends a tenure because an event of it has to be dealt with by
// another worker, or by this one later: what is behind that event must wait for it.
// What the source sends before it has heard of this comes again.
func (b *intake) giveBackPartition(t *tenure) {
	if t.over {
		b.look(t)
		return
	}
	b.endTenure(t)
	b.source.Reset(t.partition, true)
}

// giveBack leaves an event to another worker, and its partition with it.
func (q *queue) giveBack(at uint32) {
	b := q.store.(*intake)
	t := b.messages[q.entries.at(at).ref].tenure
	b.pass(at)
	if !t.over {
		b.giveBackPartition(t)
	}
}

// Lease lets attempts begin until then; see [stream.Sink].
func (b *intake) Lease(until time.Time) {
	q := b.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	q.gate.lease(until)
	q.dispatch()
	q.kickClock()
}
