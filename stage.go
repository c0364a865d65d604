package webhook

import (
	"math"
	"math/bits"
	"runtime"
	"sync"
	"sync/atomic"
)

// Stages take events off the broker's goroutines while no worker could begin on
// them: an event is a copy behind others, in memory that hardly anybody else
// touches. Whoever takes the queue's lock next puts them all in their lanes
// first, so that nobody who looks at the queue can tell. What is done in a queue
// for an event touches memory all over the place, which is cheap for many events
// in a row and dear for cores in turn.
//
// The events of a lane are on one stage, so they keep their order. Those of all
// stages come into the queue in the order in which they were stamped.
type stages struct {
	some  atomic.Uint64 // the stages that have events, a bit each
	all   []stage
	most  int      // events on each, before somebody has to make room
	merge []staged // room for absorb; the queue's lock guards it
}

const (
	// mostStages is enough for two broker goroutines to meet rarely.
	mostStages = 16

	// mostStaged is how many events are staged at most, give or take: enough to
	// share the cost of the queue's lock, not so many that it is held for long.
	mostStaged = 512

	// mostRecords is how many bytes of records a stage takes before somebody has
	// to make room. A stage keeps memory for twice that.
	mostRecords = 8 << 10
)

func newStages() stages {
	n := min(4*runtime.GOMAXPROCS(0), mostStages)
	return stages{all: make([]stage, n), most: mostStaged / n}
}

// A stage is one of them, far enough from the next one not to share a cache line
// with it.
type stage struct {
	mu      sync.Mutex
	filling staged
	spare   staged // the queue's lock guards it
	_       [cacheLine]byte
}

// staged are events on their way into a queue, in their order.
type staged struct {
	tickets []ticket
	records []byte // of all, one behind the other
}

// A ticket is what a queue needs to know of an event beside its record.
type ticket struct {
	key     uint64 // of its lane
	stamped int64
	time    int64
	rule    uint32
	size    uint32 // of the record
	payload int
	kind    kind
	lane    laneKind
}

// set makes t, which is zero, the ticket of an event whose lane and record have
// that key and size. It sets fields one by one where the ticket stays; see
// eventID.renew.
func (t *ticket) set(ev *event, key uint64, size int) {
	t.key = key
	t.stamped = ev.stamped
	t.time = ev.time
	t.rule = ev.rule
	t.size = uint32(size)
	t.payload = len(ev.payload)
	t.kind = ev.kind
	t.lane = ev.lane
}

// put takes a short event for the lane with that key, and reports whether the
// stage is full.
func (s *stages) put(ev *event, key uint64) (full bool) {
	at := key >> 32 % uint64(len(s.all)) // a laneTable goes by the lower half
	g := &s.all[at]
	g.mu.Lock() // given back without defer, which shows
	before := len(g.filling.records)
	g.filling.records = appendRecord(g.filling.records, ev)
	g.filling.tickets = append(g.filling.tickets, ticket{})
	n := len(g.filling.tickets)
	g.filling.tickets[n-1].set(ev, key, len(g.filling.records)-before)
	if n == 1 {
		s.some.Or(1 << at)
	}
	full = n >= s.most || len(g.filling.records) >= mostRecords
	g.mu.Unlock()
	return full
}

// clear returns what is staged, stage by stage, which is good until the next
// clear. Stages are locked until it has found no other one that has events: what
// is left out then was not there before anything that is not.
func (s *stages) clear() []staged {
	var held uint64
	for {
		set := s.some.Load() &^ held
		if set == 0 {
			break
		}
		held |= set
		for ; set != 0; set &= set - 1 {
			s.all[bits.TrailingZeros64(set)].mu.Lock()
		}
	}
	s.some.And(^held)
	clear(s.merge) // it may hold memory that a stage has outgrown
	s.merge = s.merge[:0]
	for ; held != 0; held &= held - 1 {
		g := &s.all[bits.TrailingZeros64(held)]
		g.filling, g.spare = staged{g.spare.tickets[:0], g.spare.records[:0]}, g.filling
		s.merge = append(s.merge, g.spare)
		g.mu.Unlock()
	}
	return s.merge
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
	if l.queue.stages.some.Load() != 0 {
		l.queue.absorb()
	}
}

// Unlock says first whether offers have to take the lock from now on. An offer
// looks after its event was staged: either it sees what Unlock said, or Unlock
// sees the event.
func (l *queueLock) Unlock() {
	q := l.queue
	for {
		eager := q.isEager()
		l.eager.Store(eager)
		if !eager || q.stages.some.Load() == 0 {
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
	all := q.stages.clear()
	for len(all) > 0 {
		first, until := 0, int64(math.MaxInt64) // the one that is first, and when the others begin
		for i := 1; i < len(all); i++ {
			at := all[i].tickets[0].stamped
			if begins := all[first].tickets[0].stamped; at < begins {
				first, until = i, begins
			} else {
				until = min(until, at)
			}
		}
		s := &all[first]
		for len(s.tickets) > 0 && s.tickets[0].stamped <= until {
			t := &s.tickets[0]
			q.enter(t, s.records[:t.size])
			s.tickets, s.records = s.tickets[1:], s.records[t.size:]
		}
		if len(s.tickets) == 0 {
			last := len(all) - 1
			*s = all[last]
			all = all[:last]
		}
	}
}
