package webhook

import (
	"crypto/sha256"
	"encoding/hex"
)

// A batch is what a worker needs to put events together.
type batch struct {
	ids   []byte // of all events, in their text form
	later []job  // that the request leaves out because of their headers
	seen  byte   // see look
}

// prepareBatch makes the request for the first n of jobs, as many as fit. A request
// has one set of headers, so it moves the jobs that have those of the first one to the
// front, without changing the order within a lane. The error is that of the first job.
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
