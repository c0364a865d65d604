package webhook

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// TestMemory puts, loads and removes records of all lengths at random, against
// a map, and then expects the memory back.
func TestMemory(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var m memory
	kept := make(map[uint64][]byte)
	for range 200000 {
		if rnd.IntN(2) == 0 && len(kept) < 20000 {
			n := 1 + rnd.IntN(300)
			if rnd.IntN(100) == 0 {
				n = maxSlot - 2 + rnd.IntN(5)
			}
			rec := make([]byte, n)
			for i := range rec {
				rec[i] = byte(rnd.Uint32())
			}
			ref, _ := m.put(bytes.Clone(rec))
			if _, ok := kept[ref]; ok {
				t.Fatalf("reference %d given out twice", ref)
			}
			kept[ref] = rec
			continue
		}
		for ref, want := range kept { // any one
			got := m.load(ref, len(want))
			if !bytes.Equal(got, want) {
				t.Fatalf("record %d: got %x, want %x", ref, got, want)
			}
			m.remove(ref)
			delete(kept, ref)
			break
		}
	}
	for ref := range kept {
		m.remove(ref)
	}
	held := 0
	for i := range m.sizes {
		size := &m.sizes[i]
		for _, c := range size.chunks {
			held += min(len(c), 1)
		}
		if size.spare > spareChunks+1 { // the chunk of index 0 is never whole
			t.Errorf("%d of %d chunks held when empty", size.spare, len(size.chunks))
		}
	}
	if held > slotSizes*(spareChunks+1) || len(m.large) != 0 {
		t.Errorf("%d chunks and %d large records held when empty", held, len(m.large))
	}
}

func TestSlabDoesNotAllocateAtTheEdgeOfAChunk(t *testing.T) {
	var s slab[entry]
	for range chunkLen - 1 { // index 0 is none, so the first chunk is full
		s.alloc()
	}
	s.release(s.alloc())
	if n := testing.AllocsPerRun(100, func() { s.release(s.alloc()) }); n != 0 {
		t.Errorf("%v allocations to add and remove one item", n)
	}
}
