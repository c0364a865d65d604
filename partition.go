package webhook

import (
	"hash/fnv"
	"math/rand/v2"
	"strconv"
)

// partition returns the partition of a stream, of n, in which ev's lane is. All
// brokers and all versions agree on it: a lane that moved would lose its order.
// Without order, any will do.
func (ev *event) partition(n int, ordered bool) int {
	if !ordered {
		return rand.IntN(n)
	}
	h := fnv.New64a()
	h.Write([]byte{byte(ev.lane)})
	switch ev.lane {
	case laneTopic:
		h.Write([]byte(ev.topic))
	case laneConn:
		h.Write(strconv.AppendUint(nil, ev.conn, 10))
	default:
		h.Write([]byte(ev.actor()))
	}
	return int(h.Sum64() % uint64(n))
}
