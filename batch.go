package webhook

import (
	"crypto/sha256"
	"encoding/hex"
	"time"
)

// A batch is what a worker needs to put events together.
type batch struct {
	ids   []byte // of all events, in their text form
	later []job  // that the request leaves out because of their headers
	seen  byte   // see look
}

// prepareBatch makes the request for the first n of jobs, as many as fit. A request
// has one set of headers, so those with the first one's come to the front; the order
// of a lane's jobs stays. The error is that of the first job.
func (w *worker) prepareBatch(jobs []job) (n int, err error) {
	p, b, req := w.pool, &w.batch, &w.req
	c := &p.config.Batch
	b.ids, b.later = b.ids[:0], b.later[:0]
	b.look(jobs)
	head := uint32(0)
	req.body = append(req.body[:0], '[')
	for at := range jobs {
		j := &jobs[at]
		if last := len(b.later) - 1; last >= 0 && b.later[last].lane == j.lane {
			b.later = append(b.later, *j)
			continue
		}
		inMemory := j.rec != nil
		w.fetched, err = p.queue.read(j, w.fetched, &w.ev)
		if !inMemory {
			j.rec = nil // the buffer is used again
		}
		if err != nil {
			if n > 0 {
				err = nil // its turn will come
				break
			}
			return 0, err
		}
		f := p.formatOf(&w.ev)
		if p.asIs && !f.fitsBatch(&w.ev) {
			if n > 0 {
				break
			}
			w.renderAlone()
			return 1, nil
		}
		if n == 0 {
			head = f.head
		} else if f.head != head {
			b.later = append(b.later, *j)
			continue
		}
		end := len(req.body)
		if n > 0 {
			req.body = append(req.body, ',')
		}
		from := len(req.body)
		p.render(req, &w.ev)
		b.ids = w.ev.id.append(b.ids)
		if !c.WithoutIDs && !p.format.hasID && !(p.asIs && hasMemberID(req.body[from:])) {
			req.body = appendMemberID(req.body, b.ids[n*idLen:])
		}
		if n > 0 && int64(len(req.body)+len("]")) > c.MaxBytes {
			req.body, b.ids = req.body[:end], b.ids[:n*idLen]
			break
		}
		if n < at {
			jobs[n] = *j
		}
		n++
	}
	copy(jobs[n:], b.later)
	req.body = append(req.body, ']')
	req.head, req.contentType, req.header = head, p.format.batchType, req.header[:0]
	sum := sha256.Sum256(b.ids)
	req.id = hex.AppendEncode(append(req.id[:0], "batch_"...), sum[:16])
	return n, nil
}

// cacheLine is the usual size of one, in bytes.
const cacheLine = 64

// look reads a little of all that the batch is about to be made of. Records
// lie all over the memory, and other processors have written them; loads that do
// nothing else wait for all of that at once, instead of for one record after the
// other.
func (b *batch) look(jobs []job) {
	for i := range jobs {
		for rec, at := jobs[i].rec, 0; at < min(len(rec), maxSlot); at += cacheLine {
			b.seen += rec[at]
		}
	}
}

// appendMemberID puts an id at the end of the JSON object that dst ends with.
func appendMemberID(dst, id []byte) []byte {
	end := len(dst) - 1
	if dst[end] != '}' {
		return dst
	}
	dst = dst[:end]
	if dst[end-1] != '{' {
		dst = append(dst, ',')
	}
	dst = append(append(dst, `"id":"`...), id...)
	return append(dst, `"}`...)
}

// batching decides when what waits goes out as a batch: when there is enough
// for a full one, or when the first of its events has waited long enough. So
// batches grow with load, and an idle system adds no more delay than the
// lingering. The queue's lock guards it.
type batching struct {
	ready  int   // entries in ready lanes
	claims int   // workers that were woken, or are about, to take a batch of those
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

// lingerForRest does so for what a batch has left ready: for the oldest, which need
// not be the first. Where enough is left for another batch, whoever takes that looks
// again; until then nothing else has lingered.
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
// to come, which nothing that is old makes. That the bytes are enough is an estimate
// from the average event.
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

// due reports whether an attempt may start for what is in ready lanes: always,
// but in batches. A probe is a single event.
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
