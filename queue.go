package webhook

import (
	"container/heap"
	"hash/maphash"
	"sync"
	"time"
)

// A queue holds the events of one endpoint, from offer to the end of their
// delivery, and decides which goes out next. Events of one lane go out one
// after the other, retries included; lanes do not wait for each other.
//
// Its methods are where their subject is: in stage.go and here the way of an event
// into its lane, in overflow.go room and what gives way, in dispatch.go the way to a
// worker, in conclude.go what came of an attempt, in settle.go the way back, in bury.go
// what ends undelivered, in batching.go when what waits goes out together, in clock.go
// what time makes due, in intake.go what is a stream's, in renew.go a reload.
//
// Everything is under one lock, held for some hundred nanoseconds for each event
// and never across I/O, so that the counters add up at every moment.
type queue struct {
	mu     queueLock
	stages stages
	limits limits
	store  store
	seed   maphash.Seed

	entries  slab[entry]
	lanes    slab[lane]
	byKey    laneTable // live lanes by event.laneKey
	batching batching

	age     ageList  // all entries, oldest first
	ready   laneList // lanes that may go out, first come first
	backoff backoffHeap
	gate    gate
	idle    []*worker // parked; the last one parked is the first to work again, so that few connections stay warm
	blocked []*waiter // publishes waiting for room, first come first

	closed    bool       // no more offers
	removed   bool       // closed because the endpoint is not in the configuration any more
	halted    bool       // no more deliveries
	abandoned dropReason // why nothing waits any more
	busy      int        // workers with a lane or events in flight, of all pools

	answered int64 // when an attempt last got an answer, Unix milliseconds; only if limits.lenient

	waiting      int // entries not in flight
	waitingBytes int64
	refused      int // of waiting, those in lanes of refused connections
	refusedBytes int64
	inFlight     int
	counters     counters
	unlogged     uint64 // drops since the last log line about drops

	kick    chan struct{} // tells the clock that something is due sooner; holds one, more would say nothing new
	drained chan struct{} // closed when the queue is closed, and nothing goes out any more
}

// An entry is an event in the queue; the event itself lies in the store.
type entry struct {
	ref      uint64 // in the store
	born     int64  // when the event happened, Unix milliseconds
	lane     uint32
	next     uint32 // the next waiting entry of the lane
	older    uint32
	newer    uint32
	size     uint32 // of the record
	attempts uint16 // that got an HTTP status
	tries    uint8  // all attempts, as far as the backoff needs to know
	flags    entryFlags
}

// entryFlags has the event's kind in its upper half: an entry has no room to
// spare.
type entryFlags uint8

const (
	entryInFlight entryFlags = 1 << iota
	entryPassed              // see ageList
	entryRefused             // of a refused connection
	entryAlone               // goes into no batch, see postpone

	entryKind = 4 // where the kind begins
)

func (e *entry) kind() kind { return kind(e.flags >> entryKind) }

func newQueue(l limits) *queue {
	q := &queue{
		stages:  newStages(),
		limits:  l,
		store:   new(memory),
		seed:    maphash.MakeSeed(),
		gate:    gate{epoch: time.Now()},
		kick:    make(chan struct{}, 1),
		drained: make(chan struct{}),
	}
	q.mu.queue = q
	q.mu.eager.Store(true) // the first Unlock knows better
	q.gate.limit(l.rate)
	q.backoff.lanes = &q.lanes
	return q
}

// offerWith puts an event into the queue or drops it by the overflow policy. It
// copies what it keeps. If that is the policy, and p is not nil, it waits for room
// until the block timeout is over, or says that it has to. It returns the event's
// reference in the store, if it was taken.
func (q *queue) offerWith(ev *event, p *patience) (ref uint64, is admission) {
	key := ev.laneKey(q.seed)
	if p == nil && !q.mu.eager.Load() && ev.isShort() {
		if full := q.stages.put(ev, key); full || q.mu.eager.Load() {
			q.mu.visit()
		}
		return 0, notTaken
	}

	// Encoded before the lock is taken, which others wait for. Beyond a
	// slot's size the bytes are the store's to keep, so they have their own
	// allocation.
	room := recordRoom.Get().(*[]byte)
	defer recordRoom.Put(room)
	rec := (*room)[:0]
	if !ev.isShort() {
		if size := recordSize(ev); size > maxSlot {
			rec = make([]byte, 0, size)
		}
	}
	rec = appendRecord(rec, ev)
	var t ticket
	t.set(ev, key, len(rec))

	q.mu.Lock()
	defer q.mu.Unlock()
	reason := dropQueueFull
	mayWait := p != nil && q.blocks()
	if !mayWait || len(q.blocked) == 0 {
		ref, reason = q.admit(&t, rec)
	}
	if mayWait && reason == dropQueueFull {
		if !p.waits {
			return 0, hasToWait
		}
		reason = q.waitForRoom(p, func() (reason dropReason) {
			ref, reason = q.admit(&t, rec)
			return reason
		})
	}
	q.entered(&t, ref, reason) // not before the wait, during which the event is nowhere
	if reason != keep {
		return 0, notTaken
	}
	return ref, taken
}

// An admission is what came of an offer, as far as that can be said at once: of a
// disk it can.
type admission uint8

const (
	notTaken admission = iota // or nobody knows yet
	taken
	hasToWait // for room, which p does not do yet: nothing has happened
)

// enter offers an event that does not wait for room.
func (q *queue) enter(t *ticket, rec []byte) {
	ref, reason := q.admit(t, rec)
	q.entered(t, ref, reason)
}

// entered counts an event, and puts it in its lane unless there is a reason why
// not.
func (q *queue) entered(t *ticket, ref uint64, reason dropReason) {
	q.counters.events[t.kind].Offered++
	if reason != keep {
		q.drop(t.kind, reason) // others that made room in vain may have left lanes ready
	} else {
		q.add(t, ref)
	}
	if q.limits.batch.MaxEvents == 1 || q.full() {
		q.dispatch()
	}
}

// recordRoom has buffers for records on their way into a store.
var recordRoom = sync.Pool{New: func() any {
	room := make([]byte, 0, maxSlot)
	return &room
}}

// reject counts an event that cannot be offered.
func (q *queue) reject(k kind, reason dropReason) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.counters.events[k].Offered++
	q.drop(k, reason)
}

// add appends the record of an event to its lane.
func (q *queue) add(t *ticket, ref uint64) {
	at := q.entries.alloc()
	e := q.entries.at(at)
	*e = entry{ref: ref, born: t.time, size: t.size, flags: entryFlags(t.kind) << entryKind}
	if t.lane == laneConn {
		e.flags |= entryRefused
	}
	q.age.push(&q.entries, at)
	q.countWaiting(e, +1)

	laneAt := uint32(0)
	if q.limits.ordered {
		laneAt = q.byKey.find(&q.lanes, t.key)
	}
	if laneAt != 0 {
		l := q.lanes.at(laneAt)
		e.lane = laneAt
		if l.head == 0 {
			l.head = at
		} else {
			q.entries.at(l.tail).next = at
		}
		l.tail = at
		l.waiting++
		if l.state == laneReady {
			q.batching.ready++
		}
		return // ready, busy or in backoff already
	}
	laneAt = q.lanes.alloc()
	e.lane = laneAt
	l := q.lanes.at(laneAt)
	*l = lane{key: t.key, head: at, tail: at, waiting: 1, keyed: q.limits.ordered}
	if l.keyed {
		q.byKey.add(t.key, laneAt)
	}
	q.pushReady(laneAt)
}

// pushReady puts a lane among those that may go out.
func (q *queue) pushReady(at uint32) {
	l := q.lanes.at(at)
	l.state, l.readyAt = laneReady, 0
	q.ready.push(&q.lanes, at)
	q.batching.ready += int(l.waiting)
	if q.limits.batch.MaxEvents > 1 {
		q.lingerFor(q.entries.at(l.head))
	}
}

// popReady takes the first lane that may go out and makes it busy.
func (q *queue) popReady() uint32 {
	at := q.ready.head
	l := q.lanes.at(at)
	q.ready.remove(&q.lanes, at)
	l.state = laneBusy
	q.batching.ready -= int(l.waiting)
	return at
}

// countWaiting adjusts the counters for an entry that starts (n = 1) or stops
// (n = -1) waiting.
func (q *queue) countWaiting(e *entry, n int) {
	cost := q.store.cost(int(e.size)) * int64(n)
	q.waiting += n
	q.waitingBytes += cost
	if e.flags&entryRefused != 0 {
		q.refused += n
		q.refusedBytes += cost
	}
	if n < 0 && len(q.blocked) > 0 {
		q.wakeBlocked()
	}
}

// takeHead unlinks the first waiting entry from its lane; the oldest waiting
// entry of the queue is always the first of its lane. A lane that was waiting
// and has no more events is forgotten; one in backoff whose next event has not
// been tried is ready.
func (q *queue) takeHead(laneAt uint32) {
	l := q.lanes.at(laneAt)
	e := q.entries.at(l.head)
	q.countWaiting(e, -1)
	l.head = e.next
	l.waiting--
	e.next = 0
	if l.head == 0 {
		l.tail = 0
	}
	if l.state == laneReady {
		q.batching.ready--
	}
	if l.state == laneBackoff && l.head != 0 && q.entries.at(l.head).tries > 0 {
		return // the backoff is the next one's, too: they were in a batch
	}
	if l.state == laneBackoff { // the backoff was that entry's
		heap.Remove(&q.backoff, int(l.heapAt))
		l.state, l.readyAt = laneReady, 0
		if l.head != 0 {
			q.pushReady(laneAt)
			return
		}
	} else if l.state == laneReady && l.head == 0 {
		q.ready.remove(&q.lanes, laneAt)
	}
	if l.state == laneReady && l.head == 0 {
		q.forgetLane(laneAt)
	}
}

func (q *queue) forgetLane(at uint32) {
	if l := q.lanes.at(at); l.keyed {
		q.byKey.remove(l.key, at)
	}
	q.lanes.release(at)
}

// remove forgets an entry that is in no lane any more, and its record.
func (q *queue) remove(at uint32) {
	q.store.remove(q.entries.at(at).ref)
	q.forgetEntry(at)
	q.wakeBlocked() // a disk has room only now
}

// forgetEntry forgets an entry that is in no lane any more.
func (q *queue) forgetEntry(at uint32) {
	q.age.remove(&q.entries, at)
	q.entries.release(at)
}

// drop counts an event that ends here.
func (q *queue) drop(k kind, reason dropReason) {
	q.counters.events[k].Dropped++
	q.counters.dropped[reason]++
	if q.unlogged++; q.unlogged == 1 {
		q.kickClock()
	}
}

// close refuses further events. Those that wait still go out: where the breaker
// is open a probe goes out at once, backoffs stay. drained is closed when
// nothing is left to do.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.gate.probeNow()
	q.wakeAllBlocked()
	q.lookDrained()
	q.kickClock()
}

// dismiss is close for an endpoint that was taken out of the configuration.
func (q *queue) dismiss() {
	q.mu.Lock()
	q.removed = true
	q.mu.Unlock()
	q.close()
}

// halt ends the deliveries: no worker gets another job.
func (q *queue) halt() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.halted = true
	for _, w := range q.idle {
		w.wake <- struct{}{}
	}
	q.idle = nil
}

// countLostLetters counts dead letters that could not be written, and returns how
// many those are by now.
func (q *queue) countLostLetters(n int) uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.counters.lostLetters += uint64(n)
	return q.counters.lostLetters
}

// countSyncLate counts a publish that did not wait for the disk any longer.
func (q *queue) countSyncLate() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.counters.syncLate++
}

// abandon drops all that wait, and returns how many events that and what is in
// flight are. What is in flight ends as it does, but waits no more.
func (q *queue) abandon(reason dropReason) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.abandoned = reason
	n := q.waiting + q.inFlight
	for q.dropOldest(reason) {
	}
	return n
}
