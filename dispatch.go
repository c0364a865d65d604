package webhook

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// A job is an entry that a worker has taken.
type job struct {
	entry    uint32
	lane     uint32 // 0 for one that was taken out of its lane to be given up
	born     int64  // when the event happened, Unix milliseconds
	ref      uint64 // in the store
	rec      []byte // the event's record, good until the job is settled; nil: fetch it first
	attempts int    // before this one, that got an HTTP status
	tries    int    // before this one
	status   int    // of one that is to be given up: that its last attempt got
	result   result // how it ended

	// until is not 0 for a probe that goes out before the event's backoff is
	// over: that costs the event no attempt, and its backoff goes on.
	until int64
}

// dispatch wakes idle workers for the lanes that may go out now.
func (q *queue) dispatch() {
	for len(q.idle) > 0 && q.ready.head != 0 && q.admits() && q.due() {
		w := q.idle[len(q.idle)-1]
		q.idle = q.idle[:len(q.idle)-1]
		q.hold(w)
		w.wake <- struct{}{}
	}
}

// admits reports whether a worker may begin an attempt.
func (q *queue) admits() bool { return q.busy < q.limits.workers && q.gate.admits() }

// hold gives the first ready lane to w.
func (q *queue) hold(w *worker) {
	w.lane = q.popReady()
	w.probe, w.target = q.gate.enter(), q.gate.target
	q.awaitToken()
	q.batching.claims++
	q.busy++
}

// awaitToken makes sure that the clock lets workers go on when there is a token
// again, if there is none now.
func (q *queue) awaitToken() {
	if q.gate.limiter != nil && q.gate.tokenIn(q.gate.now()) > 0 {
		q.kickClock()
	}
}

// take fills w.jobs with events to deliver, waiting until there are some. It
// returns false when the worker has to end.
func (q *queue) take(w *worker) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		if q.halted || w.pool.retired {
			q.putBack(w)
			q.dispatch() // a worker of the next pool may be waiting for this one to be done
			q.kickClock()
			return false
		}
		if w.lane == 0 && q.ready.head != 0 && q.admits() && q.due() {
			q.hold(w)
		}
		if w.lane != 0 && q.fill(w) {
			return true
		}
		q.park(w)
		if q.ready.head != 0 && q.limits.batch.MaxEvents > 1 {
			q.kickClock() // it ends the lingering, now that there is a worker for it
		}
		q.mu.Unlock()
		<-w.wake
		if w.closeIdle {
			w.closeIdle = false
			w.poster.closeIdle()
		}
		q.mu.Lock()
	}
}

// park puts w among the idle workers: on top, to be the first to work again,
// unless it has no connection.
func (q *queue) park(w *worker) {
	if w.warm {
		w.idleSince = time.Now()
		q.idle = append(q.idle, w)
	} else {
		q.idle = slices.Insert(q.idle, 0, w)
	}
}

// fill takes events from the lane that w holds, and then from other ready
// lanes, until w has as many as one attempt carries. It reports whether there
// were any: what the lane held may have been dropped since w was woken.
func (q *queue) fill(w *worker) bool {
	w.jobs = w.jobs[:0]
	most, room := q.limits.batch.MaxEvents, q.limits.batch.MaxBytes
	if w.probe {
		most = 1 // a single event, so that a refusal is the end of it and not of the probe
	}
	at := w.lane
	w.lane = 0
	q.batching.claims--
	for {
		l := q.lanes.at(at)
		for l.head != 0 && len(w.jobs) < most && (room > 0 || len(w.jobs) == 0) {
			if q.alone(l) {
				if len(w.jobs) > 0 {
					break
				}
				most = 1
			}
			room -= leastBody(int(q.entries.at(l.head).size))
			q.takeJob(w, at, l)
		}
		if l.inFlight == 0 {
			q.forgetLane(at)
		}
		if q.ready.head == 0 || len(w.jobs) > 0 && (len(w.jobs) == most || room <= 0 || q.alone(q.lanes.at(q.ready.head))) {
			break
		}
		at = q.popReady()
	}
	if len(w.jobs) == 0 {
		q.leave(w)
	}
	if q.limits.batch.MaxEvents > 1 && q.ready.head != 0 { // however few were taken
		q.lingerForRest()
	}
	q.dispatch() // lanes that this attempt's end, or its full batch, left ready
	return len(w.jobs) > 0
}

// alone reports whether the first event of a lane goes into no batch.
func (q *queue) alone(l *lane) bool { return q.entries.at(l.head).flags&entryAlone != 0 }

// leave ends what hold began; it tells the gate if w's attempt was a probe.
func (q *queue) leave(w *worker) {
	q.busy--
	if w.probe && w.target == q.gate.target {
		q.gate.left()
		q.kickClock() // the next one, which may be that of a lane in backoff
	}
	w.probe = false
}

// takeJob moves the first event of a busy lane into w.jobs.
func (q *queue) takeJob(w *worker, laneAt uint32, l *lane) {
	at := l.head
	q.takeHead(laneAt)
	q.freshen(q.entries.at(at))
	l.inFlight++
	w.jobs = q.begin(w.jobs, at)
	j := &w.jobs[len(w.jobs)-1]
	j.lane, j.until, l.readyAt = laneAt, l.readyAt, 0
}

// freshen lets the age of an entry that was never sent begin anew when others got an
// answer meanwhile, if limits.lenient says so.
func (q *queue) freshen(e *entry) {
	if q.limits.lenient && e.tries == 0 {
		e.born = max(e.born, q.answered)
	}
}

// begin puts an entry that is in no lane any more in flight: it appends a job
// to jobs.
func (q *queue) begin(jobs []job, at uint32) []job {
	e := q.entries.at(at)
	e.flags |= entryInFlight
	q.inFlight++
	return append(jobs, job{
		entry: at, ref: e.ref, born: e.born, rec: q.store.load(e.ref, int(e.size)),
		attempts: int(e.attempts), tries: int(e.tries),
	})
}

// errUnreadable is the error for a record that is damaged for good.
var errUnreadable = errors.New("record is damaged")

// read sets ev to the event of a job, whose fields are then views of the job's
// record, or of buf if the record has to be fetched from the store, which it
// returns, grown if necessary.
func (q *queue) read(j *job, buf []byte, ev *event) ([]byte, error) {
	if j.rec == nil {
		rec, err := q.store.fetch(buf, j.ref)
		if err != nil {
			if isGone(err) {
				err = fmt.Errorf("%w: %w", errUnreadable, err)
			}
			return buf, err
		}
		j.rec, buf = rec, rec
	}
	if err := decodeRecord(j.rec, ev); err != nil {
		return buf, fmt.Errorf("%w: %w", errUnreadable, err)
	}
	return buf, nil
}

// putBack returns the lane that w holds without having taken from it.
func (q *queue) putBack(w *worker) {
	if w.lane == 0 {
		return
	}
	if l := q.lanes.at(w.lane); l.head == 0 { // dropped since w was woken
		q.forgetLane(w.lane)
	} else {
		l.state = laneReady
		q.ready.pushFront(&q.lanes, w.lane)
		q.batching.ready += int(l.waiting)
	}
	q.batching.claims--
	w.lane = 0
	q.leave(w)
}
