package spool

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"time"
)

const (
	// idleDelay is how long records under Never, and marks under Always and
	// Never, wait for more to be written with them.
	idleDelay = 100 * time.Millisecond

	// longestGather bounds how long a flush is put off for others to share it.
	longestGather = 5 * time.Millisecond

	// mostDoubts is the most flushes in a row that are not put off, between
	// two that are, while nobody comes to share them.
	mostDoubts = 31

	// retryDelay is the time between attempts while writing fails.
	retryDelay = 100 * time.Millisecond
)

// A writer is the state of the goroutine that does all writing.
type writer struct {
	jobs      []job
	newNames  bool          // the folder has entries that are not synced
	spare     []Ref         // memory for Spool.marks
	marked    []*segment    // whose marks are not synced
	leftovers []string      // files to be removed when newNames is false
	compactAt time.Time     // not before
	took      time.Duration // of the last flush
	expected  int           // to wait for the next one: who waited for it, and who came meanwhile
	doubts    int           // how many flushes are not put off after one that was for nothing
	skip      int           // how many of those are left
}

// A job is what a flush writes of a chunk.
type job struct {
	chunk *chunk
	buf   []byte // the chunk's, as it was when the flush began
}

// run is the writer. Open starts it, Close ends it.
func (s *Spool) run() {
	defer close(s.exited)
	delay := s.sync
	if delay < 0 {
		delay = idleDelay
	}
	timer := time.NewTimer(delay)
	due := time.Now().Add(delay) // zero: the timer is not set
	for {
		tick := false
		select {
		case <-s.wake:
		case <-timer.C:
			tick, due = true, time.Time{}
		}
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			s.finish()
			return
		}
		s.urgent = s.urgent && s.dirty
		// What failed is tried again by ticks only.
		flush := s.dirty && (tick || s.urgent && s.dataErr == nil)
		upkeep := s.chores && (tick || s.hurry && s.choreErr == nil)
		if flush || upkeep {
			s.busy = time.Now()
		}
		s.mu.Unlock()

		if flush {
			s.gather()
			s.flush()
		}
		if upkeep {
			s.maintain(false)
		}

		s.mu.Lock()
		s.busy = time.Time{}
		wait := delay
		if s.err() != nil {
			wait = min(delay, retryDelay)
		}
		pending := s.dirty || s.chores
		s.mu.Unlock()
		if next := time.Now().Add(wait); pending && (due.IsZero() || next.Before(due)) {
			due = next
			timer.Reset(wait)
		}
	}
}

// gather waits until all wait for the next flush who waited for the last one or
// came during it, but no longer than that took: those whom it woke are about to
// append again, and what a sync costs, in time and on the processor, is worth
// sharing. When they do not come, as appenders that depend on nothing may not, it
// does without for a while.
func (s *Spool) gather() {
	runtime.Gosched()
	w := &s.writer
	if w.expected < 2 {
		return
	}
	if w.skip > 0 {
		w.skip--
		return
	}
	timer := time.NewTimer(min(w.took, longestGather))
	defer timer.Stop()
	late := false
	for !late && !s.gathered(w.expected) {
		select {
		case <-s.wake:
		case <-timer.C:
			late = true
		}
	}
	s.mu.Lock()
	s.quorum = 0
	s.mu.Unlock()
	if late {
		w.doubts = min(2*w.doubts+1, mostDoubts)
	} else {
		w.doubts /= 2
	}
	w.skip = w.doubts
	s.signal() // what woke it may have been about something else
}

// gathered reports whether a flush has nobody to wait for any more; if it has,
// the writer is woken when that changes.
func (s *Spool) gathered(expected int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.quorum = expected
	return s.next != nil && s.next.waiters >= expected || s.closed || s.held > s.bufferSize/2
}

// flush writes and syncs what was appended up to now.
func (s *Spool) flush() {
	w := &s.writer
	s.mu.Lock()
	s.digOut()
	s.releaseFinished()
	w.jobs = w.jobs[:0]
	for _, c := range s.chunks {
		c.seg.fresh = false
		w.jobs = append(w.jobs, job{c, c.buf})
	}
	round, last := s.next, s.last
	if round == nil {
		round = newRound()
	}
	s.flight, s.flightTo, s.next = round, last, nil
	s.dirty, s.urgent = false, false
	s.mu.Unlock()

	begin := time.Now()
	err := errors.Join(s.write(w.jobs), s.syncJobs(w.jobs))
	w.took, w.expected = time.Since(begin), round.waiters

	s.mu.Lock()
	if s.next != nil {
		w.expected += s.next.waiters
	}
	if err == nil {
		s.safe = last
	} else {
		s.safe = max(s.safe, s.durable(w.jobs))
		s.dirty = true
		if s.held > s.bufferSize/2 || s.active != nil && s.active.live == 0 {
			s.sealHalfDone() // what is finished makes room without the disk
		}
	}
	s.flight = nil
	tail := s.tail()
	s.release(func(c *chunk) bool { return c == tail || c.synced < len(c.buf) })
	for _, j := range w.jobs {
		if g := j.chunk.seg; g.out != nil && g.sealed && !s.buffers(g) {
			g.close()
		}
	}
	before := s.err()
	s.dataErr = err
	after := s.err()
	s.mu.Unlock()

	clear(w.jobs)
	round.err = err
	close(round.done)
	s.tell(before, after)
}

// durable returns how far a flush has come that has failed.
func (s *Spool) durable(jobs []job) Ref {
	if s.writer.newNames && s.sync != Never {
		return 0
	}
	for _, j := range jobs {
		if c := j.chunk; c.synced < len(j.buf) {
			return makeRef(c.seg.id.seq, c.base+int64(c.synced)) - 1
		}
	}
	return 0 // what failed was about names only
}

// digOut makes room for what a flush is about to write: it removes finished
// segments. It gives the lock back meanwhile.
func (s *Spool) digOut() {
	for err := error(nil); len(s.graves) > 0 && err == nil; {
		graves := s.graves
		s.graves = nil
		s.mu.Unlock()
		err = s.remove(graves) // if not, maintain tells
		s.mu.Lock()
	}
}

// buffers reports whether a chunk holds records of g.
func (s *Spool) buffers(g *segment) bool {
	return slices.ContainsFunc(s.chunks, func(c *chunk) bool { return c.seg == g })
}

// write writes what is not written yet. After an error it begins again at the
// same place.
func (s *Spool) write(jobs []job) error {
	for _, j := range jobs {
		c, g := j.chunk, j.chunk.seg
		if c.written == len(j.buf) {
			continue
		}
		if g.out == nil {
			f, err := s.fs.open(s.path(g.id.name(logSuffix)), os.O_WRONLY|os.O_CREATE)
			if err != nil {
				return err
			}
			g.out = f
			s.writer.newNames = true
		}
		g.unsynced = true
		if _, err := g.out.WriteAt(j.buf[c.written:], c.base+int64(c.written)); err != nil {
			return err
		}
		c.written = len(j.buf)
	}
	return nil
}

// syncJobs syncs what write has written.
func (s *Spool) syncJobs(jobs []job) error {
	for _, j := range jobs {
		c, g := j.chunk, j.chunk.seg
		if g.unsynced && s.sync != Never {
			if err := g.out.Sync(); err != nil {
				// The kernel may have dropped what was written.
				for _, j := range jobs {
					if j.chunk.seg == g {
						j.chunk.written = j.chunk.synced
					}
				}
				return err
			}
			g.unsynced = false
		}
		c.synced = c.written
	}
	return s.syncNames()
}

// syncNames makes what was created, renamed or removed durable.
func (s *Spool) syncNames() error {
	if !s.writer.newNames || s.sync == Never {
		return nil
	}
	if err := s.fs.syncDir(s.dir); err != nil {
		return err
	}
	s.writer.newNames = false
	return nil
}

// tell reports a change between failing and not failing.
func (s *Spool) tell(before, after error) {
	if s.notify != nil && (before == nil) != (after == nil) {
		s.notify(after)
	}
}

// finish writes all that is left, once, and gives everything back.
func (s *Spool) finish() {
	s.mu.Lock()
	if s.active != nil {
		s.seal()
	}
	s.mu.Unlock()
	s.flush()
	s.maintain(true)

	s.mu.Lock()
	if s.dataErr != nil && len(s.segments) > 0 {
		s.closeErr = fmt.Errorf("records are lost that could not be written: %w", s.dataErr)
	}
	if s.choreErr != nil {
		s.closeErr = errors.Join(s.closeErr, fmt.Errorf("finished records may come back: %w", s.choreErr))
	}
	for _, g := range s.segments {
		g.close()
	}
	s.chunks = nil
	s.mu.Unlock()

	s.files.close()
	s.closeErr = errors.Join(s.closeErr, s.lock.Close())
}
