package spool

import (
	"cmp"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"slices"
)

const (
	markSize = 8

	// marksSyncs is how many files of marks one maintenance syncs: records of
	// many segments may finish at once, and records must not wait for all
	// those syncs.
	marksSyncs = 2
)

// writeMarks writes marks, grouped by segment. What cannot be written goes
// back to Spool.marks.
func (s *Spool) writeMarks(marks []Ref) error {
	slices.Sort(marks)
	var errs []error
	for len(marks) > 0 {
		seq := marks[0].seq()
		n, _ := slices.BinarySearchFunc(marks, seq+1, func(r Ref, seq uint64) int { return cmp.Compare(r.seq(), seq) })
		s.mu.Lock()
		g := s.segments[seq]
		if g != nil && g.fresh { // it has no file yet, and may never get one
			s.marks = append(s.marks, marks[:n]...)
			g = nil
		}
		s.mu.Unlock()
		if g != nil {
			if err := s.appendMarks(g, marks[:n]); err != nil {
				errs = append(errs, err)
				s.mu.Lock()
				s.marks = append(s.marks, marks[:n]...)
				s.mu.Unlock()
			}
		}
		marks = marks[n:]
	}
	return errors.Join(errs...)
}

// appendMarks writes marks of one segment.
func (s *Spool) appendMarks(g *segment, marks []Ref) error {
	buf := make([]byte, 0, len(marks)*markSize)
	for _, ref := range marks {
		buf = g.key.appendMark(buf, uint32(ref.pos()))
	}
	f, err := s.fs.open(s.path(g.id.name(doneSuffix)), os.O_WRONLY|os.O_CREATE)
	if err != nil {
		return err
	}
	s.writer.newNames = s.writer.newNames || g.marks == 0
	_, err = f.WriteAt(buf, g.marks)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	g.marks += int64(len(buf))
	if !slices.Contains(s.writer.marked, g) {
		s.writer.marked = append(s.writer.marked, g)
	}
	return nil
}

// syncMarks syncs the files of marks that were written longest ago.
func (s *Spool) syncMarks(all bool) error {
	w := &s.writer
	if s.sync == Never {
		w.marked = nil
		return nil
	}
	s.mu.Lock()
	w.marked = slices.DeleteFunc(w.marked, (*segment).finished)
	s.mu.Unlock()
	for n := 0; len(w.marked) > 0 && (all || n < marksSyncs); n++ {
		if err := s.syncMarksOf(w.marked[0]); err != nil {
			return err
		}
		w.marked = slices.Delete(w.marked, 0, 1)
	}
	return s.syncNames()
}

// syncMarksOf syncs a segment's file of marks.
func (s *Spool) syncMarksOf(g *segment) error {
	f, err := s.fs.open(s.path(g.id.name(doneSuffix)), os.O_RDWR)
	if err != nil {
		return err
	}
	if g.rewrite {
		_, err = io.Copy(io.NewOffsetWriter(f, 0), io.NewSectionReader(f, 0, g.marks))
	}
	if err == nil {
		err = f.Sync()
	}
	g.rewrite = err != nil // the kernel may have dropped what was written
	return errors.Join(err, f.Close())
}

// appendMark appends the mark of the record at a position.
func (k key) appendMark(dst []byte, pos uint32) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, pos)
	at := len(dst)
	dst = append(dst, "done"...)
	sum := crc32.Update(k.header, castagnoli, dst[at-4:])
	return binary.LittleEndian.AppendUint32(dst[:at], sum)
}

// readMarks returns the positions of the records that a file of marks says are
// done, sorted, and the length of the file without the half of a mark that a
// crash may leave at its end. Damaged marks are skipped: their records come
// back.
func (k key) readMarks(f file) (done []uint32, size int64, err error) {
	if size, err = f.size(); err != nil {
		return nil, 0, err
	}
	// The next mark is written over the half one. Behind it, it would fill the
	// rest of that one with zeros, and might make it whole.
	size -= size % markSize
	buf := make([]byte, min(size, scanBuffer))
	var again [2 * markSize]byte
	for off := int64(0); off < size; off += int64(len(buf)) {
		n, err := f.ReadAt(buf, off)
		if err != nil && err != io.EOF {
			return nil, size, err
		}
		for b := buf[:n]; len(b) >= markSize; b = b[markSize:] {
			pos := binary.LittleEndian.Uint32(b)
			if string(k.appendMark(again[:0], pos)) == string(b[:markSize]) {
				done = append(done, pos)
			}
		}
	}
	slices.Sort(done)
	return done, size, nil
}

// marksOf reads a segment's marks.
func (s *Spool) marksOf(g *segment) (done []uint32, size int64, err error) {
	f, err := s.fs.open(s.path(g.id.name(doneSuffix)), os.O_RDONLY)
	if errors.Is(err, os.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	return g.key.readMarks(f)
}
