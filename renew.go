package webhook

import (
	"container/heap"
	"errors"
	"log/slog"
	"net/http"
	"path/filepath"
	"reflect"
	"slices"
	"time"
)

// next prepares the endpoint that goes on with e's queue under another
// configuration, which has passed the checks. e stays as it is until renew;
// discardNext undoes next.
func (e *endpoint) next(config *Endpoint, rt http.RoundTripper, log *slog.Logger) (*endpoint, error) {
	if err := needsRestart(e.config, config); err != nil {
		return nil, err
	}
	if equalFold(config.Name, e.config.Name) {
		config.Name = e.config.Name // the spelling under which it is counted
	}
	n := &endpoint{
		config: config, log: log.With("endpoint", config.Name), wants: config.Body.wants(), ruleKeys: config.ruleKeys(),
		stream: e.stream, queue: e.queue, disk: e.disk, clock: e.clock,
	}
	var err error
	if n.stream == nil {
		if n.client, err = newClient(config, rt); err != nil {
			return nil, err
		}
	}
	if samePool(e.config.sending(), config.sending()) && (n.stream != nil || n.client.same(e.client)) {
		n.client, n.pool = e.client, e.pool // and its connections
		return n, nil
	}
	staffed := *config
	if config.Disabled {
		staffed.PoolSize = 0
	}
	n.pool = n.newPool(&staffed)
	switch {
	case config.DeadLetter == e.config.DeadLetter:
		n.pool.letters = e.pool.letters
	case config.DeadLetter.File != "":
		n.pool.letters, err = openLetterFile(config.DeadLetter)
	}
	return n, err
}

// discardNext closes what next has opened.
func (e *endpoint) discardNext(old *endpoint) {
	if e.pool.letters != nil && e.pool.letters != old.pool.letters {
		_ = e.pool.letters.close()
	}
}

// needsRestart returns an error for changes that a reload cannot make: a queue
// stays where it is, and keeps what it has promised to publishers.
func needsRestart(old, changed *Endpoint) error {
	var errs []error
	refuse := func(what string) {
		errs = append(errs, errors.New(what+" cannot be changed by a reload, it needs a restart"))
	}
	if old.Stream.enabled() != changed.Stream.enabled() {
		refuse("queue.type")
		return errors.Join(errs...)
	}
	block, before, after := changed.queueBlock(), &old.Queue, &changed.Queue
	if before.Type != after.Type {
		refuse(block + "type")
	} else if filepath.Clean(before.Dir) != filepath.Clean(after.Dir) {
		refuse(block + "dir")
	}
	if before.Sync != after.Sync {
		refuse(block + "sync")
	}
	if old.Stream != changed.Stream {
		refuse("the stream of a queue")
	}
	return errors.Join(errs...)
}

// samePool reports whether all that a pool and its workers know of their
// configuration is the same. The rest is the queue's and the rules'.
func samePool(a, b *Endpoint) bool {
	x, y := *a, *b
	x.Events, y.Events = x.particular(), y.particular()
	x.Queue, y.Queue = Queue{}, Queue{}
	if !a.Stream.enabled() { // else it says what partition an event goes to
		x.Ordering, y.Ordering = "", ""
	}
	x.RateLimit, y.RateLimit = RateLimit{}, RateLimit{}
	x.known, y.known = identity{}, identity{}
	return reflect.DeepEqual(x, y)
}

// renew puts an endpoint that next has prepared in the place of the old one.
// Attempts in flight end as they began and settle their events; what waits, and
// what goes back to wait, is the new pool's.
func (e *endpoint) renew(old *endpoint) {
	if e.disk != nil { // before it wakes those who wait for room
		e.disk.spool.SetMaxBytes(e.config.Queue.MaxBytes)
	}
	q := e.queue
	q.mu.Lock()
	counted, ordered := q.limits.events, q.limits.ordered
	q.limits = limitsOf(e.config)
	if ordered && !q.limits.ordered {
		q.scatter()
	}
	q.limits.events |= counted // what has been counted stays in Stats
	q.gate.limit(q.limits.rate)
	e.clock.pool = e.pool
	if e.pool != old.pool {
		e.pool.older, old.pool.older = old.pool.unended(), nil
		q.retire(old.pool)
	}
	if e.config.URL != old.config.URL && e.stream == nil {
		q.gate.retarget()
		q.endBackoffs()
	} else if e.pool != old.pool {
		e.pool.lastFailure.Store(old.pool.lastFailure.Load())
		q.gate.shorten(q.limits.breaker, q.limits.retry.MaxRetryAfter)
		q.shortenBackoffs(q.limits.retry.MaxBackoff)
	}
	if q.closed { // it had been removed
		q.closed, q.removed, q.drained = false, false, make(chan struct{})
	}
	q.batching.until = 0 // the new lingering begins
	q.wakeAllBlocked()
	q.dispatch()
	q.kickClock()
	q.mu.Unlock()

	if e.pool != old.pool {
		e.pool.start()
	}
}

// closeOld closes the dead letter file that old had open if its successor, e, has
// another one or none. It may wait for a disk.
func (e *endpoint) closeOld(old *endpoint) {
	if letters := old.pool.letters; letters != nil && letters != e.pool.letters {
		if err := letters.close(); err != nil {
			e.log.Warn("dead letter file was not closed", "error", err)
		}
	}
}

// retire lets no worker of p begin another attempt.
func (q *queue) retire(p *pool) {
	p.retired = true
	q.idle = slices.DeleteFunc(q.idle, func(w *worker) bool {
		if w.pool == p {
			w.wake <- struct{}{}
		}
		return w.pool == p
	})
}

// scatter gives each event that waits a lane of its own, the oldest first: none waits
// for another any more. Events that have been tried stay together in their lane, which
// has one backoff for them.
func (q *queue) scatter() {
	for _, slot := range q.byKey.slots {
		if slot.at != 0 {
			q.cut(q.lanes.at(slot.at))
		}
	}
	q.byKey = laneTable{}
	for at := q.age.head; at != 0; at = q.entries.at(at).newer {
		if e := q.entries.at(at); e.lane == 0 {
			e.lane = q.lanes.alloc()
			*q.lanes.at(e.lane) = lane{head: at, tail: at, waiting: 1}
			q.pushReady(e.lane)
		}
	}
}

// cut takes the events that wait for others out of a lane, and leaves them in none.
func (q *queue) cut(l *lane) {
	l.keyed = false
	last, next := uint32(0), l.head
	for next != 0 && (last == 0 && l.inFlight == 0 || q.entries.at(next).tries > 0) {
		last, next = next, q.entries.at(next).next
	}
	if l.tail = last; last == 0 {
		l.head = 0
	} else {
		q.entries.at(last).next = 0
	}
	for next != 0 {
		e := q.entries.at(next)
		next, e.next, e.lane = e.next, 0, 0
		l.waiting--
		if l.state == laneReady {
			q.batching.ready--
		}
	}
}

// endBackoffs makes every lane ready that is in backoff.
func (q *queue) endBackoffs() {
	for len(q.backoff.at) > 0 {
		at := q.backoff.at[0]
		heap.Pop(&q.backoff)
		q.pushReady(at)
	}
}

// shortenBackoffs lets no lane wait for longer than most from now on. Their
// order stays.
func (q *queue) shortenBackoffs(most time.Duration) {
	latest := q.gate.now() + int64(most)
	for _, at := range q.backoff.at {
		l := q.lanes.at(at)
		l.readyAt = min(l.readyAt, latest)
	}
}

// unended returns those of p and its older pools that have workers left.
func (p *pool) unended() []*pool {
	return slices.DeleteFunc(append(slices.Clone(p.older), p), func(p *pool) bool { return p.live.Load() == 0 })
}
