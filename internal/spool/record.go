package spool

import (
	"encoding/binary"
	"hash/crc32"
	"io"
)

const (
	headerSize = 16
	alignment  = 8

	// maxRecord bounds a record's length, so that positions and lengths fit
	// into 32 bits with room to spare.
	maxRecord = 1 << 30
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A Ref names a record of a spool. Refs are never 0 and go up in the order of
// appending, over restarts too.
type Ref uint64

// refBits is the width of a position in a Ref, in units of alignment: 128 MiB,
// twice the longest segment of more than one record.
const refBits = 24

func makeRef(seq uint64, pos int64) Ref {
	return Ref(seq<<refBits | uint64(pos)/alignment)
}

func (r Ref) seq() uint64 { return uint64(r) >> refBits }
func (r Ref) pos() int64  { return int64(r&(1<<refBits-1)) * alignment }

// Cost is what a record of n bytes counts toward Options.MaxBytes, with the mark that
// it is done.
func Cost(n int) int64 { return recordSize(n) + markSize }

// recordSize is the length on disk of a record of n bytes.
func recordSize(n int) int64 {
	return (headerSize + int64(n) + alignment - 1) &^ (alignment - 1)
}

// A key is what a segment's checksums start from.
type key struct {
	header uint32
	body   uint32
}

func newKey(seed, seq uint64) key {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], seq)
	return key{
		header: crc32.Update(uint32(seed), castagnoli, b[:]),
		body:   bodySeed(seed),
	}
}

func bodySeed(seed uint64) uint32 { return uint32(seed >> 32) }

// appendRecord appends a record whose content has the checksum sum.
func (k key) appendRecord(dst []byte, pos int64, rec []byte, sum uint32) []byte {
	at := len(dst)
	var h [headerSize]byte
	binary.LittleEndian.PutUint32(h[4:], sum)
	binary.LittleEndian.PutUint32(h[8:], uint32(len(rec)))
	binary.LittleEndian.PutUint32(h[12:], uint32(pos))
	dst = append(dst, h[:]...)
	// Summed where it lies: an array on the stack would escape.
	binary.LittleEndian.PutUint32(dst[at:], crc32.Update(k.header, castagnoli, dst[at+4:at+headerSize]))
	dst = append(dst, rec...)
	var zero [alignment]byte
	return append(dst, zero[:recordSize(len(rec))-headerSize-int64(len(rec))]...)
}

// A header is a record's, as read.
type header struct {
	sum uint32
	n   int
	pos int64
}

// parse reads the header at the beginning of b. It reports whether there is
// one.
func (k key) parse(b []byte) (h header, ok bool) {
	if len(b) < headerSize {
		return h, false
	}
	h = header{
		sum: binary.LittleEndian.Uint32(b[4:]),
		n:   int(binary.LittleEndian.Uint32(b[8:])),
		pos: int64(binary.LittleEndian.Uint32(b[12:])),
	}
	ok = uint(h.n) <= maxRecord && binary.LittleEndian.Uint32(b) == crc32.Update(k.header, castagnoli, b[4:headerSize])
	return h, ok
}

// good reports whether rec is the content that h belongs to.
func (k key) good(h header, rec []byte) bool {
	return crc32.Update(k.body, castagnoli, rec) == h.sum
}

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
