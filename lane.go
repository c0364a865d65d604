package webhook

import "hash/maphash"

// A lane is a line of events that go out one after the other. It exists while
// it has events.
type lane struct {
	key        uint64
	head, tail uint32 // waiting entries, oldest first
	prev, next uint32 // in the ready list
	readyAt    int64  // in backoff: until when, in nanoseconds since the gate's epoch
	heapAt     int32  // in backoff: position in the heap
	inFlight   int32  // entries of the attempt that holds the lane
	waiting    uint32 // entries from head to tail
	state      laneState
	keyed      bool   // in byKey
	status     uint16 // that the last attempt at head got, if there was an attempt; 0 for none
}

type laneState uint8

const (
	laneReady   laneState = iota // in the ready list
	laneBusy                     // held by a worker
	laneBackoff                  // in the heap
)

// laneKey returns the number that names ev's lane. Lanes of different kinds
// have different numbers: the two high bits are the kind, the rest is a hash
// under seed, so that nobody can choose a client id or a topic to share the
// lane of another.
func (ev *event) laneKey(seed maphash.Seed) uint64 {
	var hash uint64
	switch ev.lane {
	case laneTopic:
		hash = maphash.String(seed, ev.topic)
	case laneConn:
		hash = maphash.Comparable(seed, ev.conn)
	default:
		hash = maphash.String(seed, ev.actor())
	}
	return uint64(ev.lane)<<62 | hash>>2
}
