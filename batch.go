package webhook

import (
	"crypto/sha256"
	"encoding/hex"
	"time"
)

// A batch is what a worker needs to put events together.
type batch struct {
	item request // of one event
	ids  []byte  // of all, in their text form
	seen byte    // see look
}

// prepareBatch makes the request for the first n of jobs, as many as fit. The
// error is that of the first job.
func (w *worker) prepareBatch(jobs []job) (n int, err error) {
	p, b := w.pool, &w.batch
	c := &p.config.Batch
	b.ids = b.ids[:0]
	b.look(jobs)
	w.req.contentType = p.format.batchType
	w.req.body = append(w.req.body[:0], '[')
	for n < len(jobs) {
		j := &jobs[n]
		inMemory := j.rec != nil
		if w.fetched, err = p.queue.read(j, w.fetched, &w.ev); err != nil {
			if n > 0 {
				err = nil // its turn will come
				break
			}
			return 0, err
		}
		p.render(&b.item, &w.ev)
		if !inMemory {
			j.rec = nil // the buffer is used again
		}
		if n == 0 {
			w.req.head = b.item.head
		} else if b.item.head != w.req.head {
			break // a request has one set of headers
		}
		b.ids = w.ev.id.append(b.ids)
		item := b.item.body
		if !c.WithoutIDs && !p.format.hasID {
			item = appendMemberID(item, b.ids[n*idLen:])
			b.item.body = item
		}
		if n > 0 {
			if int64(len(w.req.body)+len(",]")+len(item)) > c.MaxBytes {
				b.ids = b.ids[:n*idLen]
				break
			}
			w.req.body = append(w.req.body, ',')
		}
		w.req.body = append(w.req.body, item...)
		n++
	}
	w.req.body = append(w.req.body, ']')
	sum := sha256.Sum256(b.ids)
	w.req.id = hex.AppendEncode(append(w.req.id[:0], "batch_"...), sum[:16])
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

// appendMemberID puts an id at the end of a JSON object.
func appendMemberID(object, id []byte) []byte {
	end := len(object) - 1
	if end < 1 || object[end] != '}' {
		return object
	}
	object = object[:end]
	if object[end-1] != '{' {
		object = append(object, ',')
	}
	object = append(append(object, `"id":"`...), id...)
	return append(object, `"}`...)
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

// unclaimed is the number of entries that may go out and that no worker is
// about to take.
func (q *queue) unclaimed() int {
	return q.batching.ready - q.batching.claims*q.limits.batch.MaxEvents
}

// full reports whether there is enough for one more full batch. That the bytes
// are enough is an estimate from the average event.
func (q *queue) full() bool {
	n, b := q.unclaimed(), &q.limits.batch
	return n >= b.MaxEvents ||
		n > 0 && int64(n)*leastBody(int(q.waitingBytes/int64(max(q.waiting, 1)))) >= b.MaxBytes
}

// leastBody is about how long the body of an event is at least, by the size of
// its record.
func leastBody(size int) int64 { return int64(size) + 64 }

// due reports whether an attempt may start for what is in ready lanes: always,
// but in batches.
func (q *queue) due() bool {
	b := &q.limits.batch
	return b.MaxEvents == 1 || q.full() ||
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
