package webhook

import (
	"sync"
	"sync/atomic"
)

// A stage takes events off the broker's goroutines while no worker could begin
// on them: a copy under a lock that is held for a few nanoseconds. Whoever takes
// the queue's lock next puts them in their lanes first, all at once, so that
// nobody who looks at the queue can tell. What is done in a queue for an event
// touches memory all over the place, which is cheap for many events in a row and
// dear for cores in turn.
type stage struct {
	mu      sync.Mutex
	filling staged
	count   atomic.Int32 // of filling

	spare staged // the queue's lock guards it
}

// staged are events on their way into a queue, in their order.
type staged struct {
	tickets []ticket
	records []byte // of all, one behind the other
}

// A ticket is what a queue needs to know of an event beside its record.
type ticket struct {
	key     uint64 // of its lane
	time    int64
	rule    uint32
	size    uint32 // of the record
	payload int
	kind    kind
	lane    laneKind
}

// stageLen is how many events a stage takes before somebody has to make room:
// enough to share the cost of the queue's lock.
const stageLen = 64

// put takes an event and reports whether the stage is full. rec is copied.
func (s *stage) put(t ticket, rec []byte) (full bool) {
	s.mu.Lock()
	s.filling.tickets = append(s.filling.tickets, t)
	s.filling.records = append(s.filling.records, rec...)
	n := len(s.filling.tickets)
	s.count.Store(int32(n))
	s.mu.Unlock()
	return n >= stageLen
}

// clear returns what is there, which is good until the next clear.
func (s *stage) clear() staged {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.filling
	s.filling = staged{s.spare.tickets[:0], s.spare.records[:0]}
	s.spare = all
	s.count.Store(0)
	return all
}

// A queueLock is the lock of a queue. Who has it sees all events that were
// offered before.
type queueLock struct {
	sync.Mutex
	queue *queue
	eager atomic.Bool // offers have to take the lock
}

func (l *queueLock) Lock() {
	l.Mutex.Lock()
	if l.queue.stage.count.Load() > 0 {
		l.queue.absorb()
	}
}

// Unlock says first whether offers have to take the lock from now on. An offer
// that was staged before that may not have seen it; one that is staged later
// does.
func (l *queueLock) Unlock() {
	q := l.queue
	for {
		eager := q.isEager()
		l.eager.Store(eager)
		if !eager || q.stage.count.Load() == 0 {
			break
		}
		q.absorb()
	}
	l.Mutex.Unlock()
}

// visit takes the lock for what that does.
func (l *queueLock) visit() {
	l.Lock()
	defer l.Unlock()
}

// isEager reports whether events have to be put in their lanes as they come:
// a worker waits for them, or they have to be on disk soon, or there is a batch
// to be filled.
func (q *queue) isEager() bool {
	if _, inMemory := q.store.(*memory); !inMemory || q.limits.batch.MaxEvents > 1 {
		return true
	}
	return len(q.idle) > 0 && q.admits()
}

// absorb puts staged events in their lanes.
func (q *queue) absorb() {
	all := q.stage.clear()
	for i := range all.tickets {
		t := &all.tickets[i]
		rec := all.records[:t.size]
		all.records = all.records[t.size:]
		q.enter(t, rec)
	}
}
