package spool

import (
	"cmp"
	"slices"
)

// chunkSize is the unit in which the buffer grows and is written.
const chunkSize = 256 << 10

// A chunk holds consecutive records of one segment until they are synced.
type chunk struct {
	seg  *segment
	base int64 // position of buf[0]

	// buf grows under Spool.mu, within its capacity. What it holds does not
	// change, so the writer writes it without the lock.
	buf []byte

	// The writer's: how much of buf is written, and synced.
	written, synced int
}

func (c *chunk) room() int64 { return int64(cap(c.buf) - len(c.buf)) }

// tail is the chunk to append to.
func (s *Spool) tail() *chunk {
	if len(s.chunks) == 0 {
		return nil
	}
	return s.chunks[len(s.chunks)-1]
}

// chunkSize is the capacity of a new chunk for a record of n bytes on disk.
func (s *Spool) chunkSize(n int64) int {
	return int(max(n, min(chunkSize, s.segmentSize)))
}

// newChunk adds a chunk for what g gets next.
func (s *Spool) newChunk(g *segment, size int) *chunk {
	c, _ := s.pool.Get().(*chunk)
	if c == nil || cap(c.buf) != size {
		c = &chunk{buf: make([]byte, 0, size)}
	}
	*c = chunk{seg: g, base: g.bytes, buf: c.buf[:0]}
	s.chunks = append(s.chunks, c)
	s.held += size
	return c
}

// release drops the chunks that keep does not want.
func (s *Spool) release(keep func(*chunk) bool) {
	s.chunks = slices.DeleteFunc(s.chunks, func(c *chunk) bool {
		if keep(c) {
			return false
		}
		s.held -= cap(c.buf)
		if s.pooled(c) {
			s.pool.Put(c)
		}
		return true
	})
}

// releaseFinished gives back the chunks of segments whose records are all done: nobody
// needs them on disk.
func (s *Spool) releaseFinished() {
	s.release(func(c *chunk) bool { return !c.seg.finished() })
}

// pooled reports whether the chunk's memory is used again. A longer one, made
// for one record, is not.
func (s *Spool) pooled(c *chunk) bool { return cap(c.buf) == s.chunkSize(0) }

// chunkOf returns the chunk that holds a record, or nil.
func (s *Spool) chunkOf(ref Ref) *chunk {
	i, found := slices.BinarySearchFunc(s.chunks, ref, func(c *chunk, ref Ref) int {
		return cmp.Compare(makeRef(c.seg.id.seq, c.base), ref)
	})
	if found {
		return s.chunks[i]
	}
	if i == 0 {
		return nil
	}
	c := s.chunks[i-1]
	if c.seg.id.seq != ref.seq() || ref.pos() >= c.base+int64(len(c.buf)) {
		return nil
	}
	return c
}
