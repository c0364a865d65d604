package webhook

const (
	// chunkLen is the number of items of one chunk of a slab: large enough
	// that an allocation per chunk does not show, small enough that an idle
	// queue holds little. Chunks of 16-byte multiples then are of sizes that
	// the allocator has, or nearly.
	chunkLen = 128

	// spareChunks is how many chunks a slab keeps although all their items
	// are free: a queue that fills and empties over and over does not
	// allocate, and clear, the same memory each time.
	spareChunks = 32
)

// A slab holds items of one type by index, so that lists and trees of them
// link by number instead of pointer: the collector has nothing to scan in a
// chunk of pointer-free items, however many wait. Index 0 is never given out
// and means none. A slab shrinks when whole chunks are free.
type slab[T any] struct {
	slots
	chunks []*[chunkLen]T
}

// at returns the item with index i; the pointer is good until i is freed.
func (s *slab[T]) at(i uint32) *T {
	return &s.chunks[i/chunkLen][i%chunkLen]
}

// alloc returns the index of an item, whose value is whatever was left in it.
func (s *slab[T]) alloc() uint32 {
	i, grown := s.take()
	if grown {
		s.chunks = putChunk(s.chunks, i, new([chunkLen]T))
	}
	return i
}

// release gives an item back.
func (s *slab[T]) release(i uint32) {
	if s.give(i) {
		s.chunks[i/chunkLen] = nil
	}
}

// putChunk puts the chunk that item i is in among the others: behind them, or in
// the place of one that was let go.
func putChunk[C any](chunks []C, i uint32, chunk C) []C {
	at := int(i / chunkLen)
	if at == len(chunks) {
		return append(chunks, chunk)
	}
	chunks[at] = chunk
	return chunks
}

// slots keep account of which items of a slab are in use.
type slots struct {
	free  []*freeSlots // by chunk; nil for one that was let go
	avail []uint32     // chunks with free items; may name one that was filled or let go since
	spare int          // chunks all of whose items are free
	holes []uint32     // chunks that were let go
}

// freeSlots is a stack of the free items of a chunk.
type freeSlots struct {
	slot  [chunkLen]uint8
	n     int
	avail bool // listed in slots.avail
}

// take returns the index of a free item, and whether it is the first of a
// chunk that the slab has to allocate.
func (s *slots) take() (i uint32, grown bool) {
	for len(s.avail) > 0 {
		at := s.avail[len(s.avail)-1]
		if f := s.free[at]; f != nil && f.n > 0 {
			if f.n == chunkLen {
				s.spare--
			}
			f.n--
			return at*chunkLen + uint32(f.slot[f.n]), false
		} else if f != nil {
			f.avail = false
		}
		s.avail = s.avail[:len(s.avail)-1]
	}
	f := &freeSlots{avail: true}
	for i := range f.slot {
		f.slot[i] = uint8(chunkLen - 1 - i)
	}
	at := uint32(len(s.free))
	if n := len(s.holes); n > 0 {
		at, s.holes = s.holes[n-1], s.holes[:n-1]
		s.free[at] = f
	} else {
		s.free = append(s.free, f)
	}
	s.avail = append(s.avail, at)
	f.n = chunkLen - 1
	if at == 0 { // index 0 means none
		f.n--
	}
	return at*chunkLen + uint32(f.slot[f.n]), true
}

// give takes an item back and reports whether the slab has to let its chunk
// go.
func (s *slots) give(i uint32) (letGo bool) {
	at := i / chunkLen
	f := s.free[at]
	f.slot[f.n] = uint8(i % chunkLen)
	f.n++
	if f.n == chunkLen {
		if s.spare++; s.spare > spareChunks {
			s.spare--
			s.free[at] = nil
			s.holes = append(s.holes, at)
			return true
		}
	}
	if !f.avail {
		f.avail = true
		s.avail = append(s.avail, at)
	}
	return false
}
