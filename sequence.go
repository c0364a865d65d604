package webhook

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
)

// A sequence numbers events so that the numbers of each lane rise in the order
// in which its events are queued, though several goroutines of the broker have
// events of one client. It is not reset: a number that nobody sees is a gap.
type sequence struct {
	last  atomic.Uint64
	turns [64]turn // of lanes, by their key
}

// A turn is held from the moment when an event gets its number until it is
// queued. Nobody waits for anything else meanwhile.
type turn struct {
	mu sync.Mutex
	_  [cacheLine]byte // not to share one
}

// turnSeed spreads lanes over turns.
var turnSeed = maphash.MakeSeed()

// number gives ev its number, and begins its turn, which the caller ends.
func (s *sequence) number(ev *event) *turn {
	t := &s.turns[ev.laneKey(turnSeed)%uint64(len(s.turns))]
	t.mu.Lock()
	ev.more().seq = s.last.Add(1)
	return t
}

// end ends a turn; nil is none.
func (t *turn) end() {
	if t != nil {
		t.mu.Unlock()
	}
}
