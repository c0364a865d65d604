package webhook

import (
	"slices"
	"sync"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// wants reports whether a rule of an endpoint is about events of that kind.
func (h *Hook) wants(k kind) bool { return h.wanted.Load()&(1<<k) != 0 }

// emit offers an event to every endpoint with a rule that matches. It keeps
// nothing of ev. A zero time means now.
func (h *Hook) emit(ev *event) {
	if h.observe != nil {
		h.observe(*ev)
	}
	a := h.active.Load()
	if a == nil {
		return
	}
	var room [8]hit
	hits := a.rules.match(ev.kind, ev.topic, room[:0])
	if hits = a.rules.addConditional(ev, hits); len(hits) == 0 {
		return
	}
	turn := h.stamp(ev, a)
	for _, hit := range hits {
		a.endpoints[hit.endpoint].offer(ev, hit.rule, a, nil)
	}
	turn.end()
}

// emitPublish is emit for a message of a client, which waits for room if an
// endpoint's queue is full and configured so, unless it is the program's own. For
// no endpoint it waits longer than that one's block timeout. Most messages of a
// broker may interest nobody, so no event is built before a rule has matched.
//
// It is called at two stages of a network client's message. Before the broker
// acknowledges one with QoS 1 or 2, it is for the endpoints that record it
// first (SyncAlways), and waits until they have; afterwards it is for the others.
func (h *Hook) emitPublish(cl *mqtt.Client, pk *packets.Packet, at publishStage) {
	if h.observe != nil && at != beforeAck {
		var ev event
		ev.setPublish(h.extraWants(), cl, pk)
		h.observe(ev)
	}
	a := h.active.Load()
	if a == nil {
		return
	}
	var room [8]hit
	hits := a.rules.match(kindPublish, pk.TopicName, room[:0])
	if len(hits) == 0 && a.rules.conditional[kindPublish] == nil {
		return
	}
	var ev event
	ev.setPublish(a.wants, cl, pk)
	if hits = a.rules.addConditional(&ev, hits); len(hits) > 0 {
		h.publish(a, &ev, hits, !cl.Net.Inline, at)
	}
}

// publish does the rest of emitPublish for a message that somebody wants.
func (h *Hook) publish(a *active, ev *event, hits []hit, wait bool, at publishStage) {
	var space [8]unsynced
	stored := space[:0]
	var room [8]hit
	full := room[:0]
	var own patience
	stamped := false
	for _, hit := range hits {
		e := a.endpoints[hit.endpoint]
		if at != unrecorded && (at == beforeAck) != e.syncs() {
			continue
		}
		if !stamped { // not before: a number that nobody sees is a gap
			own.turn = h.stamp(ev, a)
			stamped = true
			if at == beforeAck {
				own.since = time.Now()
			}
		}
		var p *patience
		if wait && (at == beforeAck || e.config.Queue.Overflow == Block) {
			p = &own
		}
		switch ref, is := e.offer(ev, hit.rule, a, p); {
		case is == hasToWait:
			full = append(full, hit)
		case is == taken && at == beforeAck:
			stored = append(stored, unsynced{e, ref})
		}
	}
	if len(full) > 0 {
		own.begin()
		stored = append(stored, waitForAll(a, ev, full, at, own.since)...)
	}
	own.turn.end()
	for _, s := range stored {
		s.endpoint.awaitSync(s.ref, own.since)
	}
}

// waitForAll offers an event to endpoints that are all full, at the same time: in the
// queue of each it waits behind those that wait there already, and for no other one. Before
// the acknowledgement it returns where the event is on its way to disk.
func waitForAll(a *active, ev *event, hits []hit, at publishStage, since time.Time) []unsynced {
	all := make([]unsynced, len(hits))
	var wg sync.WaitGroup
	for i, hit := range hits {
		e, own := a.endpoints[hit.endpoint], *ev
		wg.Go(func() {
			if ref, is := e.offer(&own, hit.rule, a, &patience{waits: true, since: since}); is == taken && at == beforeAck {
				all[i] = unsynced{e, ref}
			}
		})
	}
	wg.Wait()
	return slices.DeleteFunc(all, func(s unsynced) bool { return s.endpoint == nil })
}

// A publishStage says which endpoints emitPublish is for.
type publishStage uint8

const (
	beforeAck  publishStage = iota // those that sync before it
	afterAck                       // the others
	unrecorded                     // all, as the first stage was left out
)

// An unsynced is where an endpoint has an event that is on its way to disk.
type unsynced struct {
	endpoint *endpoint
	ref      uint64
}

// stamp gives an event its id, its number if one is wanted, and its time if it
// has none. The caller ends the turn that comes with a number.
func (h *Hook) stamp(ev *event, a *active) *turn {
	ev.stamped = h.now.unixNano()
	if ev.time == 0 {
		ev.time = ev.stamped / int64(time.Millisecond)
	}
	ev.id.renew(ev.time)
	if a.wants&wantSeq != 0 {
		return h.seq.number(ev)
	}
	return nil
}

// offer puts an event that a rule has selected into the endpoint's queue, see
// queue.offerWith, without what only other endpoints want of it.
func (e *endpoint) offer(ev *event, rule int32, a *active, p *patience) (ref uint64, is admission) {
	ev.rule = 0
	if e.ruleKeys != nil {
		ev.rule = e.ruleKeys[rule]
	}
	if e.wants != a.wants {
		narrow := ev.only(e.wants)
		ev = &narrow
	}
	if e.stream != nil {
		// By its id a stream knows an event that it has already, which another
		// endpoint may have put there.
		own := *ev
		own.id.renew(ev.time)
		ev = &own
	}
	return e.queue.offerWith(ev, p)
}

// unknownTopic counts a message whose topic could not be resolved, for every
// endpoint that has a rule about such events.
func (h *Hook) unknownTopic(k kind) {
	a := h.active.Load()
	if a == nil {
		return
	}
	for _, e := range a.endpoints {
		if slices.ContainsFunc(e.config.Events, func(r Rule) bool { return kindOf(r.Event) == k }) {
			e.queue.reject(k, dropUnknownTopic)
		}
	}
}
