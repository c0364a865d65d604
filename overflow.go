package webhook

import (
	"slices"
	"time"
)

// A patience is how a publish that may wait for room waits. It is offered to all
// queues first, without waiting, and then waits for all that were full at the same time.
type patience struct {
	waits bool      // the offer waits for room; else it only says that it would have to
	since time.Time // from when the block timeout counts; zero before that
	turn  *turn     // that the publish has until it waits, nil for none
}

// begin begins the waiting.
func (p *patience) begin() {
	if p.since.IsZero() {
		p.since = time.Now()
	}
	p.turn.end() // or else the client's other events would wait too
	p.turn = nil
}

// A waiter is a publish that waits for room.
type waiter struct {
	since time.Time     // that of its patience; a pointer to that would put it on the heap for every publish
	room  chan struct{} // holds one: a wake-up must not be lost while the waiter is about to wait
}

func (w *waiter) wake() {
	select {
	case w.room <- struct{}{}:
	default: // it has yet to notice the last one
	}
}

// admit stores an event's record if there is room, or says why not.
func (q *queue) admit(t *ticket, rec []byte) (ref uint64, reason dropReason) {
	if reason := q.makeRoom(t); reason != keep {
		return 0, reason
	}
	ref, reason = q.store.put(rec)
	if l := &q.limits.queue; reason == dropQueueFull && l.Overflow == DropOldest && q.waitingBytes+q.store.overhead() > l.MaxBytes/2 && q.dropOldest(reason) {
		// A disk has room again when a segment's last event is gone, which
		// this may have been. If not, the next offers go on with it. With
		// less waiting, each event in a segment of its own at worst, the disk
		// is behind with removing what is done, and dropping more would not help.
		ref, reason = q.store.put(rec)
	}
	return ref, reason
}

// makeRoom returns keep when there is room for an event, or the reason why it is
// dropped.
func (q *queue) makeRoom(t *ticket) dropReason {
	cost := q.store.cost(int(t.size))
	switch {
	case q.closed:
		return q.refusal()
	case int64(t.payload) > q.limits.mostPayload(t.rule):
		return dropTooLarge
	case q.limits.queue.MaxBytes >= 0 && cost > q.limits.queue.MaxBytes:
		return dropTooLarge
	case t.lane == laneConn && !q.refusedRoom(cost):
		return dropRefusedQuota
	}
	for before := q.waitingBytes; !q.room(cost); {
		if q.limits.queue.Overflow == DropOldest && before-q.waitingBytes >= cost {
			break // a reload has lowered the limits; what waits above them stays, and makes room for as much
		}
		if q.limits.queue.Overflow != DropOldest || !q.dropOldest(dropQueueFull) {
			return dropQueueFull
		}
	}
	return keep
}

// refusal is why a closed queue takes no events.
func (q *queue) refusal() dropReason {
	if q.removed {
		return dropEndpointRemoved
	}
	return dropStopped
}

// room reports whether an event of the given cost fits.
func (q *queue) room(cost int64) bool { return q.fits(1, cost) }

// within reports whether what waits is within the limits.
func (q *queue) within() bool { return q.fits(0, 0) }

// fits reports whether so much more may wait.
func (q *queue) fits(events int, bytes int64) bool {
	l := &q.limits.queue
	return (l.Capacity < 0 || q.waiting+events <= l.Capacity) && (l.MaxBytes < 0 || q.waitingBytes+bytes <= l.MaxBytes)
}

// refusedRoom reports whether an event of a refused connection fits: anybody
// can make those, so they get a tenth of the queue.
func (q *queue) refusedRoom(cost int64) bool {
	l := &q.limits.queue
	return (l.Capacity < 0 || q.refused < max(l.Capacity/10, 1)) &&
		(l.MaxBytes < 0 || q.refusedBytes+cost <= max(l.MaxBytes/10, cost))
}

// blocks reports whether publishes wait for room.
func (q *queue) blocks() bool { return q.limits.queue.Overflow == Block && q.limits.workers > 0 }

// waitForRoom calls admit as soon as the event is the first of those that wait and
// there may be room for it, until the block timeout is over, and returns what came of
// it. The lock is released meanwhile. Nobody overtakes: those in front may be events of
// the same client, and one that needs much room would never get it. A reload wakes all.
func (q *queue) waitForRoom(p *patience, admit func() dropReason) (reason dropReason) {
	p.begin()
	most := q.waitsFor(p.since)
	w := &waiter{since: p.since, room: make(chan struct{}, 1)}
	timer := time.NewTimer(most)
	defer timer.Stop()
	q.blocked = append(q.blocked, w)
	for {
		q.mu.Unlock()
		select {
		case <-w.room:
		case <-timer.C:
		}
		q.mu.Lock()
		reason = dropQueueFull
		if q.blocked[0] == w {
			if reason = admit(); reason != dropQueueFull {
				break
			}
		}
		left := q.waitsFor(w.since)
		if left <= 0 && (q.blocked[0] == w || q.waitsFor(q.blocked[0].since) > 0) {
			break
		}
		// If the time is over for the first one, too, or a reload has changed the
		// policy, that one leaves before this one, which may find room then.
		timer.Reset(max(left, time.Millisecond))
	}
	at := slices.Index(q.blocked, w)
	q.blocked = slices.Delete(q.blocked, at, at+1)
	if len(q.blocked) > 0 {
		q.blocked[0].wake() // there may be room for it
	}
	return reason
}

// waitsFor returns for how much longer a publish may wait whose waiting began at since.
func (q *queue) waitsFor(since time.Time) time.Duration {
	if !q.blocks() {
		return 0
	}
	return q.limits.queue.BlockTimeout - time.Since(since)
}

// wakeBlocked lets the publish that has waited longest look again.
func (q *queue) wakeBlocked() {
	if len(q.blocked) == 0 || !q.room(0) {
		return
	}
	q.blocked[0].wake()
}

// wakeAllBlocked lets all of them look.
func (q *queue) wakeAllBlocked() {
	for _, w := range q.blocked {
		w.wake()
	}
}

// dropOldest drops the oldest waiting entry and reports whether there was one.
func (q *queue) dropOldest(reason dropReason) bool {
	at := q.age.oldestWaiting(&q.entries)
	if at == 0 {
		return false
	}
	e := q.entries.at(at)
	q.takeHead(e.lane)
	q.drop(e.kind(), reason)
	q.remove(at)
	return true
}
