package webhook

import "hash/maphash"

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
