package spool

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

var (
	// ErrLocked is Open's error for a spool that is open already, in this
	// process or another one.
	ErrLocked = errors.New("spool is in use")

	// ErrFull is Append's error when Options.MaxBytes would be exceeded.
	ErrFull = errors.New("spool is full")

	// ErrBehind is Append's error when the buffer is full: the disk is too
	// slow, or it fails, which Err tells.
	ErrBehind = errors.New("disk cannot keep up")

	// ErrTooLarge is Append's error for a record that is longer than 1 GiB
	// or would not fit into an empty spool.
	ErrTooLarge = errors.New("record is too large for the spool")

	// ErrNotFound is the error for a Ref of no record, or of one whose
	// segment is gone because all its records are done.
	ErrNotFound = errors.New("no such record in the spool")

	// ErrCorrupt is Read's error for a record whose checksum is wrong.
	ErrCorrupt = errors.New("record is damaged")

	// ErrClosed is the error for using a spool after Close.
	ErrClosed = errors.New("spool is closed")
)

var errHangs = fmt.Errorf("the disk has not answered for %v", hangsFor)

// Special values of Options.Sync.
const (
	Always time.Duration = -1 // sync at once, for Wait
	Never  time.Duration = -2 // leave it to the operating system
)

// Options configures a spool. The zero value of a field means its default.
type Options struct {
	// MaxBytes bounds the size of the folder; -1 is unlimited. Below 1 MiB
	// the overhead of segments shows. Defaults to 1 GiB.
	MaxBytes int64

	// Sync is at most how long a record waits until it is synced, Always or
	// Never. Defaults to 100 ms.
	Sync time.Duration

	// Notify is called when writing begins to fail, with the error, and with
	// nil when it works again. The writer calls it, so it must not wait for
	// the spool: no Wait, no Close. May be nil.
	Notify func(error)

	// Room is called when compaction has made room, by the writer as well. May be
	// nil.
	Room func()

	fs          fileSystem
	bufferSize  int
	segmentSize int64
}

const (
	defaultMaxBytes = 1 << 30
	defaultSync     = 100 * time.Millisecond

	// hangsFor is how long the writer may take for all that it has at a time.
	hangsFor = 5 * time.Second

	// defaultBufferSize is when no more records are accepted before some are
	// synced: at 100 MB/s an fsync may take 150 ms.
	defaultBufferSize = 16 << 20
)

// A Spool is an open spool. Its methods are safe from several goroutines at
// the same time.
type Spool struct {
	dir         string
	fs          fileSystem
	lock        io.Closer
	maxBytes    atomic.Int64 // -1: unlimited; changed under mu
	segmentSize int64
	bufferSize  int
	sync        time.Duration
	notify      func(error)
	room        func()
	seed        uint64 // of this Open's segments
	pool        sync.Pool

	mu       sync.Mutex
	segments map[uint64]*segment
	active   *segment // the one that is appended to, if any
	nextSeq  uint64
	size     int64      // cost of segments
	lowered  int64      // as much may be in the folder all the same, since it was there when maxBytes was lowered; 0: no more than maxBytes
	slack    int64      // of that: it gets smaller by whole segments, of which this was the largest
	buried   int64      // cost of graves
	graves   []*segment // whose records are all done, to be removed
	chunks   []*chunk   // what is not synced yet, and the last one
	held     int        // capacity of chunks
	last     Ref        // the last one appended
	safe     Ref        // the last one synced (under Never: written)
	marks    []Ref      // done and not written yet
	next     *round     // who waits for the next flush, if anybody
	quorum   int        // as many who wait are enough for the writer, which waits for them; 0: it does not
	flight   *round     // of the flush under way, if any
	flightTo Ref        // the last one that it covers
	dirty    bool       // flag: there are records to flush
	urgent   bool       // flag: now, not when the interval is over
	chores   bool       // flag: there are marks to write or segments to remove
	hurry    bool       // flag: now
	news     bool       // a flag was raised that the writer was not woken for
	dataErr  error      // of the last flush
	choreErr error      // of the last maintenance
	busy     time.Time  // since when the writer is at what it does; zero: it is at nothing
	closed   bool
	closeErr error

	files  files
	writer writer

	wake   chan struct{} // of size 1: one waiting signal is as good as many
	exited chan struct{} // closed when the writer has ended
}

// A round is a flush that callers of Wait wait for.
type round struct {
	done    chan struct{}
	waiters int   // under the spool's lock until the flush begins
	err     error // valid when done is closed
}

func newRound() *round { return &round{done: make(chan struct{})} }

// Append adds a record and returns its reference. It copies rec and never
// waits for the disk. It fails with ErrFull, ErrBehind, ErrTooLarge or
// ErrClosed, and then the record is not in the spool.
func (s *Spool) Append(rec []byte) (Ref, error) {
	n := recordSize(len(rec))
	limit := s.maxBytes.Load()
	if len(rec) > maxRecord || limit >= 0 && Cost(len(rec))+segmentOverhead > limit {
		return 0, ErrTooLarge
	}
	sum := crc32.Update(bodySeed(s.seed), castagnoli, rec)
	s.mu.Lock()
	ref, err := s.append(rec, n, sum)
	s.unlock()
	return ref, err
}

// append does Append's work under the lock.
func (s *Spool) append(rec []byte, n int64, sum uint32) (Ref, error) {
	if s.closed {
		return 0, ErrClosed
	}
	for limit := s.maxBytes.Load(); !s.fits(n, limit); {
		if s.sealHalfDone() {
			continue
		}
		if s.fits(n, s.allowed(limit)) {
			break
		}
		s.raise(&s.chores)
		return 0, ErrFull
	}
	g := s.active
	if g != nil && g.bytes > 0 && g.bytes+n > s.segmentSize {
		g = nil
	}
	c := s.tail()
	if g == nil || c == nil || c.seg != g || c.room() < n {
		// The last chunk stays when it is synced, so held alone does not tell.
		if s.isBehind() {
			s.press()
			return 0, ErrBehind
		}
		if g == nil || g.sealed {
			g = s.begin()
		}
		c = s.newChunk(g, s.chunkSize(n))
	}
	ref := makeRef(g.id.seq, g.bytes)
	c.buf = g.key.appendRecord(c.buf, g.bytes, rec, sum)
	g.bytes += n
	g.records++
	g.live++
	s.size += n + markSize
	s.last = ref

	s.raise(&s.dirty)
	if s.held > s.bufferSize/2 {
		s.press()
	} else if s.sync == Always {
		s.raise(&s.urgent)
	}
	return ref, nil
}

// isBehind reports whether the buffer is full. While the disk fails, the next flush
// comes with a tick, but what is done meanwhile makes room without it.
func (s *Spool) isBehind() bool {
	if s.held < s.bufferSize || s.safe >= s.last {
		return false
	}
	if s.dataErr != nil && s.flight == nil {
		s.sealHalfDone()
		s.releaseFinished()
	}
	return s.held >= s.bufferSize
}

// press asks for a flush that waits for nobody.
func (s *Spool) press() {
	s.raise(&s.urgent)
	s.news = s.news || s.quorum > 0
}

// fits reports whether n more bytes of a record fit into the folder.
func (s *Spool) fits(n, limit int64) bool {
	if limit < 0 {
		return true
	}
	size := s.size + n + markSize
	if s.active == nil || s.active.bytes+n > s.segmentSize {
		size += segmentOverhead
	}
	// Graves go before anything is written, unless they cannot be removed.
	return size <= limit && (s.choreErr == nil || size+s.buried-s.segmentSize <= limit)
}

// allowed is the limit while there is more in the folder than a lower one allows.
func (s *Spool) allowed(limit int64) int64 {
	if s.lowered = min(s.lowered, s.size+s.slack); s.size <= limit {
		s.lowered = 0
	}
	return max(limit, s.lowered)
}

// begin starts a segment. Its file is made when there is something to write.
func (s *Spool) begin() *segment {
	if s.active != nil {
		s.seal()
	}
	g := newSegment(id{seq: s.nextSeq, seed: s.seed})
	g.fresh = true
	s.nextSeq++
	s.segments[g.id.seq] = g
	s.active = g
	s.size += g.cost()
	return g
}

// seal ends the active segment.
func (s *Spool) seal() {
	g := s.active
	s.active = nil
	g.sealed = true
	s.bury(g)
}

// sealHalfDone ends the active segment, if there is one and half of its records
// are done: only a sealed one goes away or is compacted.
func (s *Spool) sealHalfDone() bool {
	if s.active == nil || 2*s.active.live > s.active.records {
		return false
	}
	s.seal()
	return true
}

// bury hands a segment to the writer for removal if all is done.
func (s *Spool) bury(g *segment) {
	if !g.finished() {
		return
	}
	delete(s.segments, g.id.seq)
	s.size -= g.cost()
	if g.fresh { // there is no file
		s.release(func(c *chunk) bool { return c.seg != g })
		return
	}
	s.buried += g.cost()
	s.graves = append(s.graves, g)
	s.raise(&s.chores)
	if s.buried >= s.segmentSize {
		s.raise(&s.hurry)
	}
}

// Done marks a record as done, so that it does not come back when the spool is
// opened again. It must be called at most once for each record, since a
// segment is removed when it was called as often as the segment has records.
// It does no I/O. After Close it does nothing.
func (s *Spool) Done(ref Ref) {
	s.mu.Lock()
	defer s.unlock()
	g := s.segments[ref.seq()]
	if g == nil || g.live == 0 || s.closed {
		return
	}
	s.marks = append(s.marks, ref)
	s.raise(&s.chores)
	g.live--
	s.bury(g)
}

// Wait returns when the record is synced, under Never when it is written. It
// asks for that at once, whatever Options.Sync says. An error is the context's
// cause, or the disk's; after either the record is still in the spool and may
// become durable.
func (s *Spool) Wait(ctx context.Context, ref Ref) error {
	r, err := s.roundOf(ref)
	if r == nil {
		return err
	}
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Sync is Wait for all that was appended up to now.
func (s *Spool) Sync(ctx context.Context) error {
	s.mu.Lock()
	last := s.last
	s.mu.Unlock()
	return s.Wait(ctx, last)
}

// Synced returns the last record that is synced (under Never: written). So are
// those before it.
func (s *Spool) Synced() Ref {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.safe
}

// roundOf returns the round that a record has to wait for. It is nil for a
// record that need not wait, and where there is an error.
func (s *Spool) roundOf(ref Ref) (*round, error) {
	s.mu.Lock()
	defer s.unlock()
	switch {
	case ref <= s.safe:
		return nil, nil
	case ref > s.last:
		return nil, ErrNotFound
	case s.flight != nil && ref <= s.flightTo:
		return s.flight, nil
	case s.closed:
		return nil, ErrClosed
	}
	if s.next == nil {
		s.next = newRound()
	}
	s.next.waiters++
	s.raise(&s.urgent)
	s.news = s.news || s.next.waiters == s.quorum
	return s.next, nil
}

// SetMaxBytes changes Options.MaxBytes. What is in the spool stays, and when that is
// more, as much may be in it until it is less: a record is then taken when others have
// been done for it. The size of segments is still that of Open.
func (s *Spool) SetMaxBytes(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.setMaxBytes(n)
}

func (s *Spool) setMaxBytes(n int64) {
	s.maxBytes.Store(n)
	if n < 0 || s.size <= n {
		s.lowered = 0
		return
	}
	if s.lowered > 0 {
		return // and as much as before
	}
	s.slack = s.segmentSize
	for _, g := range s.segments {
		s.slack = max(s.slack, g.cost())
	}
	s.lowered = s.size + s.slack
}

// Overhead is what the segments count toward Options.MaxBytes beside records and marks.
func (s *Spool) Overhead() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return int64(len(s.segments)) * segmentOverhead
}

// Err returns the error that keeps the spool from writing now, or nil. A disk that
// has not answered for hangsFor is one.
func (s *Spool) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.err(); err != nil {
		return err
	}
	if !s.busy.IsZero() && time.Since(s.busy) >= hangsFor {
		return errHangs
	}
	return nil
}

// WriteErr returns the error that keeps records from being written now, or nil:
// Err without what is about marks and files that are done.
func (s *Spool) WriteErr() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dataErr
}

func (s *Spool) err() error {
	if s.dataErr != nil {
		return s.dataErr
	}
	return s.choreErr
}

// Close writes and syncs (not under Never) records and marks, and unlocks the
// folder. The error says what could not be written. It waits for a write or
// fsync under way, however long the disk takes. Further calls wait for the
// first and return the same.
func (s *Spool) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.signal()
	<-s.exited
	return s.closeErr
}

// raise sets one of the flags that tell the writer what to do.
func (s *Spool) raise(flag *bool) {
	if !*flag {
		*flag = true
		s.news = true
	}
}

// unlock gives the lock back and wakes the writer if a flag was raised.
func (s *Spool) unlock() {
	wake := s.news
	s.news = false
	s.mu.Unlock()
	if wake {
		s.signal()
	}
}

// signal wakes the writer.
func (s *Spool) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// path is the path of one of the spool's files.
func (s *Spool) path(name string) string { return filepath.Join(s.dir, name) }
