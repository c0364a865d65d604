package spool

import (
	"encoding/binary"
	"hash/crc32"
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
