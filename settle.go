package webhook

import (
	"container/heap"
	"math"
	"time"
)

// A result says how a job ended, or when it goes on.
type result struct {
	fate    fate
	status  int           // of fateRetry: the HTTP status that the attempt got, 0 for none
	backoff time.Duration // of fateRetry
	alone   bool          // of fateRetry and fateAgain: no batch any more
	paused  bool          // of fateAgain: after an attempt, which the endpoint put off
	cut     bool          // of fateAgain: in an attempt, which was canceled
}

type fate uint8

const (
	fateDelivered fate = iota
	fateDead           // refused or given up: dead letter
	fateRetry          // back into its lane, after the backoff
	fateAgain          // back into its lane as if it had not been tried
	fateCorrupt        // the record cannot be read back
	fateUnwritten      // the record is lost with the process
	fateShutdown       // nobody will try again
	fateReturned       // back to its stream, for another worker or another time
)

// waits reports whether the event waits again in this queue.
func (f fate) waits() bool { return f == fateRetry || f == fateAgain }

// release settles jobs of w for which no attempt could be made: the first, if
// there is one, ends with r, the others wait again.
func (q *queue) release(w *worker, jobs []job, r result) {
	for i := range jobs {
		jobs[i].result = result{fate: fateAgain}
	}
	if len(jobs) > 0 {
		jobs[0].result = r
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if w.probe && w.target == q.gate.target {
		q.gate.probed(q.limits.breaker) // or else the next one would be due at once
	}
	q.leave(w)
	q.settle(jobs)
}

// postpone settles jobs of w that have to wait before the next attempt. The
// first of them, suspects, were refused together: from now on each goes alone,
// because as a batch they would be refused again, and wait again.
func (q *queue) postpone(w *worker, jobs []job, suspects int) {
	for i := range jobs {
		jobs[i].result = result{fate: fateAgain, alone: i < suspects}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.leave(w)
	q.settle(jobs)
}

// finish settles jobs for which no attempt was made.
func (q *queue) finish(jobs []job, r result) {
	for i := range jobs {
		jobs[i].result = r
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.settle(jobs)
	q.dispatch()
}

// handBack lets those of jobs wait again that do not fit into a batch with the first
// n, if the queue has room for them: whichever worker is free next takes them. It
// returns how many jobs are left: what follows the n in the lane of the last of them
// stays with them.
func (q *queue) handBack(jobs []job, n int) (left int) {
	left = n
	for left < len(jobs) && jobs[left].lane == jobs[n-1].lane {
		left++
	}
	rest := jobs[left:]
	if len(rest) == 0 {
		return left
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	bytes := int64(0)
	for i := range rest {
		rest[i].result = result{fate: fateAgain}
		bytes += q.store.cost(int(q.entries.at(rest[i].entry).size))
	}
	if !q.fits(len(rest), bytes) {
		return len(jobs)
	}
	q.settle(rest)
	for i := len(rest) - 1; i >= 0; i-- { // in front, the oldest first: they were due
		at := rest[i].lane
		if rest[i].result.fate == fateAgain && q.lanes.at(at).state == laneReady {
			q.ready.remove(&q.lanes, at)
			q.ready.pushFront(&q.lanes, at)
		}
	}
	q.batching.until = 1
	q.dispatch()
	return left
}

// settle ends jobs that were taken, each with its result. Jobs of one lane that wait
// again must come in one call, in order: the last one is put back first.
func (q *queue) settle(jobs []job) {
	within := q.within()
	if len(jobs) > 1 {
		q.age.look(&q.entries, jobs)
	}
	for i := len(jobs) - 1; i >= 0; i-- { // those that go back to their lane's front must end up in order
		j := &jobs[i]
		e, r := q.entries.at(j.entry), &j.result
		q.inFlight--
		e.flags &^= entryInFlight
		switch {
		case !r.fate.waits():
		case q.abandoned != keep:
			r.fate = fateShutdown
		case q.isOver(e.ref):
			r.fate = fateReturned
		}
		switch r.fate {
		case fateDelivered:
			if n := &q.counters.events[e.kind()]; q.limits.forwards {
				n.Forwarded++
			} else {
				n.Delivered++
			}
			q.remove(j.entry)
		case fateUnwritten:
			q.drop(e.kind(), dropDisk)
			q.remove(j.entry)
		case fateDead:
			q.counters.events[e.kind()].Dead++
			q.remove(j.entry)
		case fateCorrupt:
			q.drop(e.kind(), dropCorrupt)
			q.remove(j.entry)
		case fateShutdown:
			q.drop(e.kind(), q.abandoned)
			q.remove(j.entry)
		case fateReturned:
			q.giveBack(j.entry)
		default:
			q.waitAgain(j, e)
		}
		if j.lane != 0 {
			q.freeLane(j.lane)
		}
	}
	// New events may have taken the room of those that come back. What waits above
	// limits that a reload has lowered stays.
	for within && q.limits.queue.Overflow == DropOldest && !q.within() && q.dropOldest(dropQueueFull) {
	}
	q.lookDrained()
}

// waitAgain puts the entry e of a job at the front of its lane, as its result says.
func (q *queue) waitAgain(j *job, e *entry) {
	l, r := q.lanes.at(j.lane), &j.result
	if r.fate == fateRetry || r.paused {
		q.counters.retried++
	}
	if r.fate == fateRetry {
		l.status = uint16(r.status)
	}
	if r.cut { // for its dead letter: the endpoint may have it
		e.tries += b2u(e.tries < 255)
		l.status = 0
	}
	switch {
	case j.until != 0: // its backoff goes on
		l.readyAt = max(l.readyAt, q.bounded(j.until))
	case r.fate == fateRetry:
		e.tries += b2u(e.tries < 255)
		if r.status != 0 && e.attempts < math.MaxUint16 {
			e.attempts++
		}
		l.readyAt = max(l.readyAt, q.bounded(q.gate.now()+int64(r.backoff)))
	}
	if r.alone {
		e.flags |= entryAlone
	}
	e.next = l.head
	l.head = j.entry
	l.waiting++
	if l.tail == 0 {
		l.tail = j.entry
	}
	q.countWaiting(e, +1)
	q.age.back(&q.entries, j.entry)
	if q.age.cursor == j.entry {
		q.kickClock() // it may be too old already
	}
}

// bounded returns the end of a backoff, which a reload may have shortened meanwhile.
func (q *queue) bounded(until int64) int64 {
	return min(until, q.gate.now()+int64(q.limits.retry.MaxBackoff))
}

// freeLane lets a lane go on when all its entries in flight have ended.
func (q *queue) freeLane(at uint32) {
	l := q.lanes.at(at)
	l.inFlight--
	switch {
	case l.inFlight > 0:
	case l.head == 0:
		q.forgetLane(at)
	case l.readyAt > 0:
		l.state = laneBackoff
		heap.Push(&q.backoff, at)
		q.kickClock()
	default:
		q.pushReady(at)
	}
}

// lookDrained closes drained when the queue is closed and nothing goes out of it any
// more. Where the endpoint is disabled only what is in flight goes out; if it was
// removed, what waits keeps the queue from being drained, as a reload may bring it back.
func (q *queue) lookDrained() {
	idle := q.limits.workers == 0 && !q.removed
	if !q.closed || q.inFlight > 0 || q.waiting > 0 && !idle {
		return
	}
	select {
	case <-q.drained:
	default:
		close(q.drained)
	}
}

func b2u(b bool) uint8 {
	if b {
		return 1
	}
	return 0
}
