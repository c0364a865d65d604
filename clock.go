package webhook

import (
	"container/heap"
	"sync"
	"time"
)

const (
	// idleTimeout is how long an unused connection is kept: below the 60 s
	// after which common proxies and servers close theirs.
	idleTimeout = 50 * time.Second

	// dropLogInterval is the least time between two log lines about drops.
	dropLogInterval = 10 * time.Second

	// mostExpired bounds the events that are given up under one hold of the
	// queue's lock.
	mostExpired = 256
)

// A clock does what time makes due in a queue: ends backoffs and pauses, lets
// probes out, gives up events that are too old, closes idle connections, sums
// up drops. One goroutine runs it, from the endpoint's start to its stop.
type clock struct {
	queue *queue
	stop  chan struct{}
	ended sync.WaitGroup

	pool *pool // of the present configuration; the queue's lock guards it

	jobs       []job
	dropLogged time.Time
	logged     [dropReasons]uint64
}

func (c *clock) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-c.stop:
			return
		case <-c.queue.kick:
		case <-timer.C:
		}
		timer.Reset(c.tick(time.Now()))
	}
}

// tick does what is due and returns how long nothing else will be, unless the
// clock is kicked.
func (c *clock) tick(now time.Time) time.Duration {
	q := c.queue
	q.mu.Lock()
	next := q.wakeDue()
	next = min(next, q.reapIdle(now))
	next = min(next, c.expire(now))
	drops, again := c.sumUpDrops(now)
	next = min(next, again)
	q.dispatch()
	next = min(next, q.lingering(now))
	tell, later := q.gate.tellOpen()
	next = min(next, later)
	p := c.pool
	q.mu.Unlock()
	p.logDrops(drops)
	if tell {
		p.tellOpen()
	}
	if len(c.jobs) > 0 {
		p.giveUp(c.jobs)
		return 0 // there may be more
	}
	return next
}

// end stops the clock and sums up the drops that are left to tell: later ones
// have log lines of their own.
func (c *clock) end() {
	close(c.stop)
	c.queue.mu.Lock()
	drops, p := c.untoldDrops(), c.pool
	c.queue.mu.Unlock()
	p.logDrops(drops)
}

// kickClock makes the clock look again at what is due.
func (q *queue) kickClock() {
	select {
	case q.kick <- struct{}{}:
	default:
	}
}

// wakeDue ends the backoffs that are over, or one for a probe, and returns when
// the next one, or the gate, is due.
func (q *queue) wakeDue() time.Duration {
	next, now := int64(time.Hour), q.gate.now()
	for len(q.backoff.at) > 0 {
		at := q.backoff.at[0]
		l := q.lanes.at(at)
		if l.readyAt > now {
			next = l.readyAt - now
			break
		}
		heap.Pop(&q.backoff)
		q.pushReady(at)
	}
	if due, ok := q.gate.due(); ok && due > now {
		next = min(next, due-now)
	}
	// A probe that is due is that of a lane in backoff when there is no other.
	if q.gate.open && q.ready.head == 0 && len(q.backoff.at) > 0 && q.admits() {
		at := heap.Pop(&q.backoff).(uint32)
		l := q.lanes.at(at)
		until := l.readyAt
		q.pushReady(at)
		l.readyAt = until // see job.until
	}
	return time.Duration(next)
}

// reapIdle tells workers that have been idle for long to close their
// connection.
func (q *queue) reapIdle(now time.Time) time.Duration {
	next := idleTimeout
	kept := q.idle[:0]
	for _, w := range q.idle {
		left := idleTimeout - now.Sub(w.idleSince)
		if w.warm && left <= 0 {
			w.warm, w.closeIdle = false, true
			w.wake <- struct{}{}
			continue
		}
		if w.warm {
			next = min(next, left)
		}
		kept = append(kept, w)
	}
	clear(q.idle[len(kept):])
	q.idle = kept
	return next
}

// expire takes the events that are too old into c.jobs.
func (c *clock) expire(now time.Time) time.Duration {
	q := c.queue
	c.jobs = c.jobs[:0]
	maxAge := q.limits.retry.MaxAge
	if maxAge < 0 {
		return time.Hour
	}
	for len(c.jobs) < mostExpired {
		at := q.age.oldestWaiting(&q.entries)
		if at == 0 {
			return maxAge // what comes now will not be due before
		}
		e := q.entries.at(at)
		q.freshen(e)
		if left := maxAge - max(now.Sub(time.UnixMilli(e.born)), 0); left > 0 { // another machine's clock may be ahead
			return left
		}
		c.jobs = q.takeOut(c.jobs, at)
	}
	return 0
}

// sumUpDrops returns the drops that are to be logged now, as attributes, and how long
// nothing more will be.
func (c *clock) sumUpDrops(now time.Time) ([]any, time.Duration) {
	if c.queue.unlogged == 0 {
		return nil, time.Hour
	}
	if wait := dropLogInterval - now.Sub(c.dropLogged); wait > 0 {
		return nil, wait
	}
	c.dropLogged = now
	return c.untoldDrops(), time.Hour
}

// untoldDrops returns how many events were dropped since the last time, as
// attributes of a log line. The queue's lock is held.
func (c *clock) untoldDrops() (attrs []any) {
	q := c.queue
	for r, n := range q.counters.dropped {
		if n > c.logged[r] {
			attrs = append(attrs, dropNames[r], n-c.logged[r])
		}
	}
	c.logged, q.unlogged = q.counters.dropped, 0
	return attrs
}

func (p *pool) logDrops(drops []any) {
	if len(drops) > 0 {
		p.log.Warn("events dropped", drops...)
	}
}
