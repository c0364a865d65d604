package spool

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	logSuffix  = ".log"
	doneSuffix = ".done"
	tempSuffix = ".tmp"
	lockName   = "spool.lock"
)

const (
	minSegment = 64 << 10
	maxSegment = 64 << 20

	// segmentOverhead is what a segment costs beside its records and their
	// marks: two files, each rounded up to blocks of 4 KiB.
	segmentOverhead = 8 << 10
)

// segmentSize is the length at which a segment ends, for a folder of at most
// maxBytes.
func segmentSize(maxBytes int64) int64 {
	if maxBytes < 0 {
		return maxSegment
	}
	return min(max(maxBytes/64, min(minSegment, maxBytes/4)), maxSegment)
}

// An id is what a segment's file names say.
type id struct {
	seq  uint64
	gen  uint8
	seed uint64
}

func (i id) name(suffix string) string {
	return fmt.Sprintf("%010x-%02x-%016x%s", i.seq, i.gen, i.seed, suffix)
}

// parseName is the inverse of name. It reports whether name is one.
func parseName(name string) (i id, suffix string, ok bool) {
	stem, suffix, found := strings.Cut(name, ".")
	if !found {
		return i, "", false
	}
	suffix = "." + suffix
	part := strings.Split(stem, "-")
	if len(part) != 3 {
		return i, "", false
	}
	seq, err1 := strconv.ParseUint(part[0], 16, 64-refBits)
	gen, err2 := strconv.ParseUint(part[1], 16, 8)
	seed, err3 := strconv.ParseUint(part[2], 16, 64)
	if err1 != nil || err2 != nil || err3 != nil {
		return i, "", false
	}
	i = id{seq, uint8(gen), seed}
	return i, suffix, i.name(suffix) == name && slices.Contains([]string{logSuffix, doneSuffix, tempSuffix}, suffix)
}

// A segment is a file of records.
type segment struct {
	key key

	// Under Spool.mu.
	bytes   int64 // length, with what is still in memory
	records int   // that need room for a mark
	live    int   // records that are not done
	fresh   bool  // no flush has begun to write it
	sealed  bool  // nothing more is appended
	broken  bool  // could not be read to its end: it stays

	// The writer's.
	out      file          // for writing; nil before the first write and after sealing
	unsynced bool          // out was written to since the last sync
	marks    int64         // length of the file of marks
	rewrite  bool          // syncing the marks failed
	rest     time.Time     // until when it is not compacted, because that failed
	restFor  time.Duration // how long that is, twice as long each time
	fixed    bool          // it is not compacted at all: its marks could not be read

	// Under Spool.files.mu.
	id    id
	in    file   // for reading; nil if closed
	moves []move // of a compacted segment, by position
	gone  bool   // removed
}

// A move is where compaction put a record.
type move struct{ pos, off uint32 }

func newSegment(i id) *segment {
	return &segment{id: i, key: newKey(i.seed, i.seq)}
}

// finished reports whether the segment is to be removed, or is.
func (g *segment) finished() bool { return g.sealed && g.live == 0 && !g.broken }

// close closes the file for writing. What matters was synced, so an error is
// of no consequence.
func (g *segment) close() {
	if g.out != nil {
		_ = g.out.Close()
		g.out = nil
	}
}

// cost is the segment's part in the folder's size.
func (g *segment) cost() int64 {
	return segmentOverhead + g.bytes + int64(g.records)*markSize
}

// offset is where in the file the record of a position lies.
func (g *segment) offset(pos int64) (off int64, ok bool) {
	if g.id.gen == 0 {
		return pos, true
	}
	i, ok := slices.BinarySearchFunc(g.moves, pos, func(m move, pos int64) int { return cmp.Compare(int64(m.pos), pos) })
	if !ok {
		return 0, false
	}
	return int64(g.moves[i].off), true
}
