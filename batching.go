package webhook

import "time"

// batching decides when what waits goes out as a batch: when there is enough
// for a full one, or when the first of its events has waited long enough. So
// batches grow with load, and an idle system adds no more delay than the
// lingering. The queue's lock guards it.
type batching struct {
	ready  int   // entries in ready lanes
	claims int   // workers that hold a lane and have yet to take a batch of those
	until  int64 // when the first of them has waited enough, Unix nanoseconds; 0 before there is one
}

// lingerFor sees to it that an entry that may go out does not linger too long.
func (q *queue) lingerFor(e *entry) {
	until := e.born*int64(time.Millisecond) + int64(max(q.limits.batch.Linger, 0))
	if q.batching.until == 0 || until < q.batching.until || q.batching.ready == int(q.lanes.at(e.lane).waiting) {
		q.batching.until = until
		if len(q.idle) > 0 {
			q.kickClock()
		}
	}
}

// lingerForRest does so for what a batch has left ready: for the oldest entry, which
// need not be the first. Where enough is left for another full batch, whoever takes that
// comes here again; until then nothing counts as having lingered.
func (q *queue) lingerForRest() {
	if q.unclaimed() >= q.limits.batch.MaxEvents {
		q.batching.until = time.Now().UnixNano() + int64(max(q.limits.batch.Linger, 0))
		return
	}
	q.batching.until = 0
	for at := q.ready.head; at != 0; at = q.lanes.at(at).next {
		q.lingerFor(q.entries.at(q.lanes.at(at).head))
	}
}

// unclaimed is the number of entries that may go out and that no worker is
// about to take.
func (q *queue) unclaimed() int {
	return q.batching.ready - q.batching.claims*q.limits.batch.MaxEvents
}

// full reports whether there is enough for one more full batch, or no room for more
// to come and nothing old that would give way. Whether the bytes are enough is
// estimated from the average event.
func (q *queue) full() bool {
	n, b := q.unclaimed(), &q.limits.batch
	if n <= 0 || n >= b.MaxEvents {
		return n > 0
	}
	average := q.waitingBytes / int64(q.waiting)
	return int64(n)*leastBody(int(average)) >= b.MaxBytes || q.crowded(n, int64(n)*average) ||
		q.limits.queue.Overflow != DropOldest && !q.room(average)
}

// crowded reports whether half of what may wait does nothing but linger: that could
// cost events.
func (q *queue) crowded(events int, bytes int64) bool {
	l := &q.limits.queue
	return l.Capacity >= 0 && 2*events >= l.Capacity || l.MaxBytes >= 0 && 2*bytes >= l.MaxBytes
}

// leastBody is about how long the body of an event is at least, by the size of
// its record.
func leastBody(size int) int64 { return int64(size) + 64 }

// due reports whether an attempt may start for what is in ready lanes: always, unless
// it is to be a batch that is not full and has not lingered. A probe is a single event.
func (q *queue) due() bool {
	b := &q.limits.batch
	return b.MaxEvents == 1 || q.gate.open || q.full() ||
		q.unclaimed() > 0 && (q.closed || q.lingered(time.Now()))
}

// lingered reports whether the first of what is in ready lanes has waited for
// long enough. When there is longer to go than the lingering, the wall clock was
// set back.
func (q *queue) lingered(now time.Time) bool {
	left := q.batching.until - now.UnixNano()
	return left <= 0 || left > int64(q.limits.batch.Linger)
}

// lingering returns how long what is in ready lanes goes on waiting for more.
func (q *queue) lingering(now time.Time) time.Duration {
	b := &q.limits.batch
	if b.MaxEvents == 1 || len(q.idle) == 0 || q.unclaimed() <= 0 || !q.admits() {
		return time.Hour // who changes that looks, or has the clock look again
	}
	if q.lingered(now) {
		return 0
	}
	return time.Duration(q.batching.until - now.UnixNano())
}
