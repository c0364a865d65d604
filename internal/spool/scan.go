package spool

import (
	"encoding/binary"
	"io"
)

// A scan goes through the records of a segment file.
type scan struct {
	r     io.ReaderAt
	size  int64 // of the file
	key   key
	moved bool // the segment was compacted: positions are not offsets

	end  int64 // of the last good record
	lost int   // damaged places before end; at least one record each

	buf []byte
	at  int64 // offset of buf
}

// scanBuffer is how much a scan reads at once.
const scanBuffer = 256 << 10

// each calls fn for every good record: its position, its offset in the file,
// and its bytes on disk without the padding, valid during the call. An error
// is fn's or one of reading the file.
func (s *scan) each(fn func(pos, off int64, raw []byte) error) error {
	var off int64   // where the scan is
	var next int64  // no position below this can follow
	var damaged int // damaged places since end
	gap := false    // the last 8 bytes were not a record
	for off+headerSize <= s.size {
		b, err := s.bytes(off, headerSize)
		if err != nil {
			return err
		}
		// The position is looked at before the checksum, because that is
		// quicker: most of what is not a header has a wrong one.
		pos := int64(binary.LittleEndian.Uint32(b[12:]))
		plausible := pos >= next && (pos == off || s.moved && pos > off && pos%alignment == 0)
		h, ok := header{}, false
		if plausible {
			h, ok = s.key.parse(b)
		}
		if !ok || int64(h.n) > s.size-off-headerSize {
			if !gap {
				damaged++
			}
			gap = true
			off += alignment
			continue
		}
		gap = false
		raw, err := s.bytes(off, headerSize+h.n)
		if err != nil {
			return err
		}
		start := off
		off += recordSize(h.n)
		next = h.pos + recordSize(h.n)
		if !s.key.good(h, raw[headerSize:]) {
			damaged++
			continue
		}
		s.lost += damaged
		damaged = 0
		s.end = min(off, s.size)
		if err := fn(h.pos, start, raw); err != nil {
			return err
		}
	}
	return nil
}

// bytes returns n bytes of the file at off, which must be within its size.
func (s *scan) bytes(off int64, n int) ([]byte, error) {
	if from := off - s.at; from >= 0 && from+int64(n) <= int64(len(s.buf)) {
		return s.buf[from : from+int64(n)], nil
	}
	want := int(min(int64(max(n, scanBuffer)), s.size-off))
	if want > cap(s.buf) {
		s.buf = make([]byte, want)
	}
	s.buf, s.at = s.buf[:want], off
	if m, err := s.r.ReadAt(s.buf, off); m < want {
		s.buf = s.buf[:0]
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return s.buf[:n], nil
}

// scan goes through a segment's file.
func (g *segment) scan(f file, fn func(pos, off int64, raw []byte) error) (*scan, error) {
	size, err := f.size()
	if err != nil {
		return &scan{}, err
	}
	sc := &scan{r: f, size: size, key: g.key, moved: g.id.gen > 0}
	return sc, sc.each(fn)
}
