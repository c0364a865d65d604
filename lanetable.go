package webhook

// A laneTable finds the lane of a key. Every event looks its lane up, and most
// also make or forget one, so it is smaller and simpler than a map: a lane is
// in the first free slot from where its key says (linear probing), the key
// itself being a good hash.
type laneTable struct {
	slots []laneSlot // as many as a power of two, at most half of them in use
	used  int
}

// A laneSlot is free if at is 0.
type laneSlot struct {
	tag uint32 // the low half of the key
	at  uint32 // of the lane
}

// leastSlots is the size of a table that has slots.
const leastSlots = 64

// find returns the lane with the key, or 0.
func (t *laneTable) find(lanes *slab[lane], key uint64) uint32 {
	mask := uint32(len(t.slots) - 1)
	tag := uint32(key)
	for i := tag & mask; t.used > 0; i = (i + 1) & mask {
		s := t.slots[i]
		if s.at == 0 {
			break
		}
		if s.tag == tag && lanes.at(s.at).key == key {
			return s.at
		}
	}
	return 0
}

// add adds a lane whose key is not there.
func (t *laneTable) add(key uint64, at uint32) {
	if t.used++; 2*t.used > len(t.slots) {
		t.resize(max(2*len(t.slots), leastSlots))
	}
	t.put(laneSlot{uint32(key), at})
}

func (t *laneTable) put(s laneSlot) {
	mask := uint32(len(t.slots) - 1)
	i := s.tag & mask
	for t.slots[i].at != 0 {
		i = (i + 1) & mask
	}
	t.slots[i] = s
}

// remove removes a lane that is there. What lies behind it moves up, so that
// the table has no graves to step over.
func (t *laneTable) remove(key uint64, at uint32) {
	mask := uint32(len(t.slots) - 1)
	free := uint32(key) & mask
	for t.slots[free].at != at {
		free = (free + 1) & mask
	}
	for i := (free + 1) & mask; t.slots[i].at != 0; i = (i + 1) & mask {
		// A lane may not move to before where its key says.
		if home := t.slots[i].tag & mask; (i-home)&mask >= (i-free)&mask {
			t.slots[free] = t.slots[i]
			free = i
		}
	}
	t.slots[free] = laneSlot{}
	if t.used--; len(t.slots) > leastSlots && 8*t.used < len(t.slots) {
		t.resize(len(t.slots) / 4)
	}
}

func (t *laneTable) resize(n int) {
	old := t.slots
	t.slots = make([]laneSlot, n)
	for _, s := range old {
		if s.at != 0 {
			t.put(s)
		}
	}
}
