package webhook

import (
	"maps"
	"math/rand/v2"
	"testing"
)

// TestLaneTable compares a table with a map, over random additions and removals
// of keys that collide in one slot, in their tags, or hardly ever.
func TestLaneTable(t *testing.T) {
	for _, tt := range []struct{ keys, factor uint64 }{
		{3, 1 << 32}, {300, 1 << 32}, {300, 1 << 30}, {300, 1 << 20}, {300, 1}, {30000, 0x9e3779b97f4a7c15},
	} {
		keys := tt.keys
		seed := rand.Uint64()
		r := rand.New(rand.NewPCG(seed, keys))
		var lanes slab[lane]
		var table laneTable
		want := make(map[uint64]uint32)
		grow := true
		for range 20 * keys {
			if n := uint64(len(want)); n == keys || n == 0 {
				grow = n == 0
			}
			key := r.Uint64N(keys) * tt.factor
			at, ok := want[key]
			if got := table.find(&lanes, key); got != at {
				t.Fatalf("seed %d: find(%#x) = %d, want %d", seed, key, got, at)
			}
			switch {
			case !ok && (grow || r.IntN(3) == 0):
				at := lanes.alloc()
				lanes.at(at).key = key
				table.add(key, at)
				want[key] = at
			case ok && (!grow || r.IntN(3) == 0):
				table.remove(key, at)
				lanes.release(at)
				delete(want, key)
			}
			if table.used != len(want) || 2*table.used > len(table.slots) {
				t.Fatalf("seed %d: %d used of %d, want %d", seed, table.used, len(table.slots), len(want))
			}
		}
		for key, at := range maps.All(want) {
			if got := table.find(&lanes, key); got != at {
				t.Errorf("seed %d: find(%#x) = %d, want %d", seed, key, got, at)
			}
			table.remove(key, at)
		}
		if table.used != 0 || len(table.slots) > leastSlots {
			t.Errorf("seed %d: empty, with %d used of %d", seed, table.used, len(table.slots))
		}
	}
}
