package spool

import (
	"bufio"
	"errors"
	"io"
	"math"
	"os"
	"slices"
	"time"
)

const (
	// compactDelay is how long compaction rests after it failed.
	compactDelay = 10 * time.Second

	// restDelay is how long the segment rests for which it failed, at first, and
	// mostRest at most: a part of it may be unreadable for good.
	restDelay = time.Minute
	mostRest  = 24 * time.Hour

	// compactBytes is how much one maintenance compacts, so that records do
	// not wait for long: at least one segment.
	compactBytes = 16 << 20
)

// compact compacts segments that are at least half done, if the folder is
// three quarters full. It reports whether there may be more of them.
func (s *Spool) compact() (more bool, err error) {
	w := &s.writer
	for bytes := int64(0); bytes < compactBytes; {
		g := s.compactable()
		if g == nil || time.Now().Before(w.compactAt) {
			return false, nil
		}
		bytes += g.bytes
		if err := s.rewrite(g); err != nil {
			// Another one may do better, but not at once: the disk may be
			// full.
			g.restFor = min(max(2*g.restFor, restDelay), mostRest)
			g.rest = time.Now().Add(g.restFor)
			w.compactAt = time.Now().Add(compactDelay)
			return false, err
		}
		// At once: what is replaced still takes room.
		if err := s.removeLeftovers(); err != nil {
			return false, err
		}
		if s.room != nil {
			s.room()
		}
	}
	return true, nil
}

// compactable returns the segment with the smallest part of live records among
// those worth compacting, or nil.
func (s *Spool) compactable() *segment {
	limit := s.maxBytes.Load()
	if limit < 0 {
		limit = defaultMaxBytes
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.size < limit/4*3 {
		return nil
	}
	// The last chunk stays for what is appended next, which is nothing in a segment
	// that is sealed, and in a folder that is full.
	s.release(func(c *chunk) bool { return !c.seg.sealed || c.synced < len(c.buf) })
	var best *segment
	for _, g := range s.segments {
		worthIt := g.sealed && 2*g.live <= g.records && g.records > 0
		if !worthIt || g.broken || g.fixed || time.Now().Before(g.rest) || g.id.gen == math.MaxUint8 || s.buffers(g) {
			continue
		}
		if best == nil || int64(g.live)*int64(best.records) < int64(best.live)*int64(g.records) {
			best = g
		}
	}
	return best
}

// rewrite moves the live records of a segment to a new file. References stay
// valid, because a record keeps its position.
func (s *Spool) rewrite(g *segment) (err error) {
	g.close() // it may be open, with its last chunk gone
	done, _, err := s.marksOf(g)
	if err != nil {
		return err
	}
	s.mu.Lock()
	for _, ref := range s.marks { // not written yet
		if ref.seq() == g.id.seq {
			done = append(done, uint32(ref.pos()))
		}
	}
	s.mu.Unlock()
	slices.Sort(done)
	from, err := s.fs.open(s.path(g.id.name(logSuffix)), os.O_RDONLY)
	if err != nil {
		return err
	}
	defer from.Close()

	old, next := g.id, g.id
	next.gen++
	temp := s.path(next.name(tempSuffix))
	defer func() {
		if err != nil {
			_ = s.fs.remove(temp)
		}
	}()
	moves, size, err := s.copyLive(temp, from, g, done)
	if err != nil {
		return err
	}
	if err := s.fs.rename(temp, s.path(next.name(logSuffix))); err != nil {
		return err
	}
	// Durable before the old one goes, under Never too: this is not data
	// that a crash may take.
	if err := s.fs.syncDir(s.dir); err != nil {
		_ = s.fs.remove(s.path(next.name(logSuffix)))
		return err
	}

	s.files.mu.Lock()
	s.files.shut(g)
	g.id.gen, g.moves = next.gen, moves // all else of id is read without lock
	s.files.mu.Unlock()
	s.mu.Lock()
	account := &s.size
	if s.segments[g.id.seq] != g { // its last records were done meanwhile
		account = &s.buried
	}
	*account -= g.cost()
	g.bytes, g.records = size, max(len(moves), g.live) // some may be done meanwhile
	*account += g.cost()
	s.mu.Unlock()
	g.marks = 0
	s.writer.marked = slices.DeleteFunc(s.writer.marked, func(m *segment) bool { return m == g })
	s.writer.leftovers = append(s.writer.leftovers, old.name(logSuffix), old.name(doneSuffix))
	return nil
}

// copyLive writes the records of from that are not done to a new file and
// syncs it.
func (s *Spool) copyLive(name string, from file, g *segment, done []uint32) (moves []move, size int64, err error) {
	to, err := s.fs.open(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	out := bufio.NewWriterSize(io.NewOffsetWriter(to, 0), scanBuffer)
	_, err = g.scan(from, func(pos, _ int64, raw []byte) error {
		if _, found := slices.BinarySearch(done, uint32(pos)); found {
			return nil
		}
		moves = append(moves, move{uint32(pos), uint32(size)})
		padded := recordSize(len(raw) - headerSize)
		size += padded
		_, err1 := out.Write(raw)
		_, err2 := out.Write(make([]byte, padded-int64(len(raw))))
		return errors.Join(err1, err2)
	})
	return moves, size, errors.Join(err, out.Flush(), to.Sync())
}
