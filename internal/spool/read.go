package spool

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
)

const (
	// maxFiles bounds the files that are open for reading.
	maxFiles = 64

	// readSize is how much Read asks for before it knows a record's length.
	readSize = 4 << 10
)

// files are the segments' files open for reading.
type files struct {
	mu     sync.Mutex
	open   []*segment // oldest first
	closed bool
}

// Read returns the content of a record in the storage of buf, which it
// replaces by a larger one where necessary: pass the result's memory on to the
// next call, and no other memory is used. It fails with ErrNotFound,
// ErrCorrupt, ErrClosed or the disk's error. A record that is done can be read
// until its segment is removed.
func (s *Spool) Read(ref Ref, buf []byte) ([]byte, error) {
	s.mu.Lock()
	g := s.segments[ref.seq()]
	if g == nil || s.closed {
		defer s.mu.Unlock()
		if s.closed {
			return nil, ErrClosed
		}
		return nil, ErrNotFound
	}
	c := s.chunkOf(ref)
	if c == nil {
		s.mu.Unlock()
		return s.readFile(g, ref.pos(), buf)
	}
	raw := c.buf[ref.pos()-c.base:]
	if s.pooled(c) {
		// The memory may be used again when the lock is gone.
		defer s.mu.Unlock()
	} else {
		s.mu.Unlock()
	}
	h, ok := g.key.parse(raw)
	if !ok || h.pos != ref.pos() {
		return nil, ErrNotFound
	}
	return append(buf[:0], raw[headerSize:headerSize+h.n]...), nil
}

// readFile reads the record at a position of a segment's file.
func (s *Spool) readFile(g *segment, pos int64, buf []byte) ([]byte, error) {
	for {
		f, off, err := s.openFor(g, pos)
		if err != nil {
			return nil, err
		}
		rec, err := readRecord(f, g.key, pos, off, buf)
		if errors.Is(err, os.ErrClosed) {
			continue // closed meanwhile, to make room or for a compacted file
		}
		return rec, err
	}
}

// readRecord reads the record of a position at an offset of f.
func readRecord(f file, k key, pos, off int64, buf []byte) ([]byte, error) {
	buf = slices.Grow(buf[:0], readSize)[:readSize]
	n, err := f.ReadAt(buf, off)
	if err != nil && err != io.EOF {
		return nil, err
	}
	h, ok := k.parse(buf[:n])
	if !ok || h.pos != pos {
		return nil, fmt.Errorf("%w: no header at its place", ErrCorrupt)
	}
	if size := headerSize + h.n; size > n {
		buf = slices.Grow(buf[:n], size-n)[:size]
		m, err := f.ReadAt(buf[n:], off+int64(n))
		if n+m < size {
			if err == io.EOF {
				err = fmt.Errorf("%w: its file is too short", ErrCorrupt)
			}
			return nil, err
		}
	}
	rec := buf[headerSize : headerSize+h.n]
	if !k.good(h, rec) {
		return nil, fmt.Errorf("%w: wrong checksum", ErrCorrupt)
	}
	// Moved to the front, so that the next Read has all of the storage.
	return buf[:copy(buf, rec)], nil
}

// openFor returns a segment's file, and where in it the record of a position
// lies. The file may be closed by others at any time.
func (s *Spool) openFor(g *segment, pos int64) (file, int64, error) {
	s.files.mu.Lock()
	defer s.files.mu.Unlock()
	if s.files.closed {
		return nil, 0, ErrClosed
	}
	if g.gone {
		return nil, 0, ErrNotFound
	}
	off, ok := g.offset(pos)
	if !ok {
		return nil, 0, ErrNotFound
	}
	if g.in == nil {
		f, err := s.fs.open(s.path(g.id.name(logSuffix)), os.O_RDONLY)
		if errors.Is(err, os.ErrNotExist) && s.isHere() {
			return nil, 0, fmt.Errorf("%w: its file is gone", ErrNotFound)
		}
		if err != nil {
			return nil, 0, err
		}
		if len(s.files.open) == maxFiles {
			s.files.shut(s.files.open[0])
		}
		g.in = f
		s.files.open = append(s.files.open, g)
	}
	return g.in, off, nil
}

// isHere reports whether the folder is the one that was opened: another may be in its
// place, as when it is not mounted any more, which may change.
func (s *Spool) isHere() bool {
	lock, ok := s.lock.(*os.File)
	if !ok {
		return true
	}
	ours, err1 := lock.Stat()
	there, err2 := os.Stat(s.path(lockName))
	return err1 == nil && err2 == nil && os.SameFile(ours, there)
}

// shut closes a segment's file for reading, if it is open. An error would be
// of no consequence.
func (f *files) shut(g *segment) {
	i := slices.Index(f.open, g)
	if i < 0 {
		return
	}
	f.open = slices.Delete(f.open, i, i+1)
	_ = g.in.Close()
	g.in = nil
}

// drop closes a segment's file for good.
func (f *files) drop(g *segment) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.shut(g)
	g.gone = true
}

// close closes all files.
func (f *files) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	for len(f.open) > 0 {
		f.shut(f.open[0])
	}
}
