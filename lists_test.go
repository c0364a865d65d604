package webhook

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// TestAgeList compares the list with a slice under random operations.
func TestAgeList(t *testing.T) {
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 7))
		var entries slab[entry]
		var list ageList
		var model []uint32 // oldest first
		pick := func(inFlight bool) uint32 {
			var of []uint32
			for _, at := range model {
				if (entries.at(at).flags&entryInFlight != 0) == inFlight {
					of = append(of, at)
				}
			}
			if len(of) == 0 {
				return 0
			}
			return of[rnd.IntN(len(of))]
		}
		for step := range 2000 {
			switch op := rnd.IntN(5); op {
			case 0, 1:
				if len(model) < 60 {
					at := entries.alloc()
					*entries.at(at) = entry{}
					list.push(&entries, at)
					model = append(model, at)
				}
			case 2: // into flight
				if at := pick(false); at != 0 {
					entries.at(at).flags |= entryInFlight
				}
			case 3: // back from flight
				if at := pick(true); at != 0 {
					entries.at(at).flags &^= entryInFlight
					list.back(&entries, at)
				}
			case 4:
				if at := pick(rnd.IntN(2) == 0); at != 0 {
					list.remove(&entries, at)
					entries.release(at)
					model = slices.DeleteFunc(model, func(m uint32) bool { return m == at })
				}
			}
			var want uint32
			if i := slices.IndexFunc(model, func(at uint32) bool { return entries.at(at).flags&entryInFlight == 0 }); i >= 0 {
				want = model[i]
			}
			if rnd.IntN(2) == 0 { // not each time: the cursor moves only then
				if got := list.oldestWaiting(&entries); got != want {
					t.Fatalf("seed %d, step %d: oldest waiting %d, want %d of %v", seed, step, got, want, model)
				}
			}
			var linked []uint32
			for at := list.head; at != 0; at = entries.at(at).newer {
				linked = append(linked, at)
			}
			if !slices.Equal(linked, model) {
				t.Fatalf("seed %d, step %d: list %v, want %v", seed, step, linked, model)
			}
		}
	}
}
