package webhook

// memory is the store of a memory queue. A record lies in a slot of the next
// larger of a few sizes: events finish out of order, and a free slot serves any
// record of its size, so memory in use is what waits, without holes to compact.
type memory struct {
	sizes  [slotSizes]slotSlab
	large  map[uint64][]byte
	lastID uint64
}

const (
	// maxSlot is the longest record that gets a slot. A longer one has an
	// allocation of its own, whose cost the copy of its payload outweighs.
	maxSlot = 1024

	smallSlot = 256 // up to here sizes are 16 bytes apart, then 64
	slotSizes = smallSlot/16 + (maxSlot-smallSlot)/64

	largeRef = 1 << 63 // marks the reference of a record with its own allocation
)

// slotSize returns the size of the slot for a record of n bytes, and its
// number.
func slotSize(n int) (size, number int) {
	if n <= smallSlot {
		number = (n - 1) / 16
		return (number + 1) * 16, number
	}
	number = (n - smallSlot - 1) / 64
	return smallSlot + (number+1)*64, smallSlot/16 + number
}

// A slotSlab is a slab of slots of one size.
type slotSlab struct {
	slots
	chunks [][]byte
}

// entryCost is what an event takes beside its record: its entry, and a part of
// its lane.
const entryCost = 48

func (m *memory) cost(size int) int64 {
	if size <= maxSlot {
		size, _ = slotSize(size)
	}
	return int64(size) + entryCost
}

// overhead is 0: entryCost has it all.
func (m *memory) overhead() int64 { return 0 }

// put keeps rec, which it copies unless it is larger than maxSlot.
func (m *memory) put(rec []byte) (uint64, dropReason) {
	if len(rec) <= maxSlot {
		return m.copy(rec), keep
	}
	if m.large == nil {
		m.large = make(map[uint64][]byte)
	}
	m.lastID++
	ref := m.lastID | largeRef
	m.large[ref] = rec
	return ref, keep
}

// copy is put for a record of at most maxSlot bytes.
func (m *memory) copy(rec []byte) uint64 {
	size, number := slotSize(len(rec))
	s := &m.sizes[number]
	i, grown := s.take()
	if grown {
		s.chunks = putChunk(s.chunks, i, make([]byte, chunkLen*size))
	}
	copy(s.chunks[i/chunkLen][int(i%chunkLen)*size:], rec)
	return uint64(number)<<32 | uint64(i)
}

// load returns the record itself, which stays where it is until remove.
func (m *memory) load(ref uint64, size int) []byte {
	if ref&largeRef != 0 {
		return m.large[ref]
	}
	i := uint32(ref)
	slot, number := slotSize(size)
	at := int(i%chunkLen) * slot
	return m.sizes[number].chunks[i/chunkLen][at : at+size : at+size]
}

// fetch is never called: load finds everything.
func (m *memory) fetch([]byte, uint64) ([]byte, error) { panic("unreachable") }

func (m *memory) remove(ref uint64) {
	if ref&largeRef != 0 {
		delete(m.large, ref)
		return
	}
	s := &m.sizes[ref>>32]
	if i := uint32(ref); s.give(i) {
		s.chunks[i/chunkLen] = nil
	}
}
