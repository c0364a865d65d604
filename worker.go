package webhook

import (
	"errors"
	"runtime"
	"time"
)

// A worker delivers events, one attempt at a time, over a connection of its
// own. One goroutine runs it.
type worker struct {
	pool   *pool
	poster poster

	// wake holds one wake-up, which the queue sends only to a parked
	// worker: it never blocks.
	wake chan struct{}

	// Guarded by the queue's lock while the worker is parked, else its own.
	lane      uint32 // held for the next attempt
	probe     bool   // the attempt probes an open breaker
	target    int    // of the gate, when the attempt began
	warm      bool   // the poster may have a connection
	closeIdle bool   // told to close it
	idleSince time.Time

	jobs    []job
	fetched []byte // room for the record of a job that has to be fetched
	ends    []int  // see deliver
	req     request
	ev      event
	batch   batch
}

func (w *worker) run() {
	for w.pool.queue.take(w) {
		if len(w.jobs) > 1 {
			// Taking so many held the queue's lock for long. Whoever waits for it
			// is made runnable behind this goroutine, where no other processor
			// finds it for some 50 microseconds: it goes first.
			runtime.Gosched()
		}
		w.deliver()
		w.shrink()
	}
	w.poster.closeIdle()
	w.pool.live.Add(-1)
}

// deliver makes attempts for w.jobs until all of them are settled. A batch that is
// refused goes out again in halves, until the refused event stands alone: w.ends is
// the stack of where those end that are still to go out. What does not fit into a
// batch is handed back for another worker, or goes out behind it.
func (w *worker) deliver() {
	p := w.pool
	jobs := p.giveUpOld(w.jobs)
	if len(jobs) == 0 {
		p.queue.release(w, nil, result{})
		return
	}
	w.ends = append(w.ends[:0], len(jobs))
	suspects := 0 // of jobs[at:], those that were just refused together
	for at, again := 0, false; at < len(jobs); again = true {
		if again && !p.queue.goesOn(w, jobs[at:]) {
			p.queue.postpone(w, jobs[at:], suspects)
			return
		}
		end := w.ends[len(w.ends)-1]
		n, err := w.prepare(jobs[at:end])
		if err != nil {
			if !w.skipUnreadable(jobs[at:], err) {
				return
			}
			n = 1
		} else {
			if at+n < end && len(w.ends) == 1 {
				end = at + p.queue.handBack(jobs[at:end], n)
				jobs, w.ends[0] = jobs[:end], end
			}
			w.warm = true
			start := time.Now()
			out := w.poster.post(&w.req, start, start.Add(p.config.Timeout))
			took := time.Since(start)
			if out.verdict == refused && n > 1 {
				p.queue.countAttempt(out, took)
				w.ends = append(w.ends, at+n/2)
				suspects = n
				continue
			}
			if !p.conclude(w, jobs[at:], n, suspects, out, took) {
				return
			}
		}
		suspects = 0
		if at += n; at == end {
			w.ends = w.ends[:len(w.ends)-1]
		}
	}
}

// skipUnreadable settles the first of jobs, whose record could not be read, and
// reports whether w still has the others.
func (w *worker) skipUnreadable(jobs []job, err error) (goOn bool) {
	p := w.pool
	p.warnUnreadable(err)
	switch {
	case !errors.Is(err, errUnreadable): // the disk may recover
		p.queue.release(w, jobs, result{fate: fateRetry, backoff: p.config.Retry.next(jobs[0].tries + 1)})
		return false
	case len(jobs) == 1:
		p.queue.release(w, jobs, result{fate: fateCorrupt})
		return false
	}
	p.queue.finish(jobs[:1], result{fate: fateCorrupt})
	return true
}

// shrink lets go of the buffers that a large event has left: as many as there are
// workers would be much memory that no limit counts.
func (w *worker) shrink() {
	w.ev = event{}
	clear(w.jobs)
	clear(w.batch.later[:cap(w.batch.later)])
	if cap(w.req.body) > largestKept {
		w.req.body = nil
	}
	if cap(w.fetched) > largestKept {
		w.fetched = nil
	}
}

// largestKept is the longest buffer that a worker keeps from one attempt to the
// next.
const largestKept = 64 << 10

// prepare makes the request for the first n of jobs, as many as it can carry.
// The error is that of the first job.
func (w *worker) prepare(jobs []job) (n int, err error) {
	p := w.pool
	if p.config.Batch.enabled() {
		n, err = w.prepareBatch(jobs)
	} else {
		n = 1
		w.fetched, err = p.queue.read(&jobs[0], w.fetched, &w.ev)
		if err == nil {
			w.renderAlone()
		}
	}
	if err == nil && p.config.Compression == Gzip {
		w.req.compress()
	}
	return n, err
}

// renderAlone makes the request of w.ev.
func (w *worker) renderAlone() {
	w.req.id, w.req.body = w.ev.id.append(w.req.id[:0]), w.req.body[:0]
	w.pool.render(&w.req, &w.ev)
}
