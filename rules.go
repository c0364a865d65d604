package webhook

import "strings"

// A hit is an endpoint that wants an event, and the first of its rules that
// does, each by its index.
type hit struct {
	endpoint, rule int32
}

// rules are the rules of all endpoints, ready to match. They do not change:
// any number of goroutines may use them, and a reload makes new ones.
type rules struct {
	wanted uint32 // a bit for each kind that has a rule
	kinds  [kindEnd]kindRules

	conditional [kindEnd]*conditionalRules // those with conditions beside their topic; nil for none
	asks        wants                      // what the conditions ask of events
}

// kindRules are the rules of one kind.
type kindRules struct {
	filters filterIndex
	all     uint32 // list of the rules without topic
}

// newRules prepares the rules of checked endpoints. In hits an endpoint is its
// index in endpoints.
func newRules(endpoints []Endpoint) *rules {
	r := new(rules)
	// Backwards, as lists of hits grow at the front.
	for e := len(endpoints) - 1; e >= 0; e-- {
		events := endpoints[e].Events
		for i := len(events) - 1; i >= 0; i-- {
			k := kindOf(events[i].Event)
			r.wanted |= 1 << k
			if len(events[i].Listeners) > 0 {
				r.asks |= wantListener
			}
			if !events[i].conditional() {
				r.kinds[k].add(k, events[i].Topic, hit{int32(e), int32(i)})
			}
		}
	}
	for k := kindConnect; k < kindEnd; k++ {
		r.conditional[k] = newConditionalRules(endpoints, k)
	}
	return r
}

// add adds a rule for events of kind k; see filterIndex.add.
func (of *kindRules) add(k kind, topic string, h hit) {
	if topic == "" || !kinds[k].topic {
		of.filters.push(&of.all, h)
	} else {
		of.filters.add(topic, h)
	}
}

// match appends to hits, which is empty, who wants an event of kind k: each
// endpoint once, in rising order. topic is the event's, for kinds that have
// one. It allocates only when hits has no room, or when filters overlap on the
// topic in more than 16 ways.
//
//	var room [8]hit
//	for _, h := range r.match(kindPublish, topic, room[:0]) {
//
// Rules with conditions are left to addConditional.
func (r *rules) match(k kind, topic string, hits []hit) []hit {
	return r.kinds[k].match(k, topic, hits)
}

func (of *kindRules) match(k kind, topic string, hits []hit) []hit {
	if !kinds[k].topic {
		return of.filters.collect(of.all, hits)
	}
	own := false // a message of the broker's own
	if isSubscription(k) {
		topic = unshared(topic)
	} else {
		own = of.all != 0 && isSYS(topic)
	}
	if of.all != 0 && !own {
		hits = of.filters.collect(of.all, hits)
	}
	return of.filters.match(topic, hits)
}

// isSubscription reports whether the topic of events of kind k is a client's
// filter.
func isSubscription(k kind) bool {
	return k == kindSubscribe || k == kindUnsubscribe || k == kindSubscribed || k == kindUnsubscribed
}

// isSYS reports whether topic is one of the broker's own, whose messages only
// a filter that starts with $SYS selects. Clients' subscriptions to it are
// events like others.
func isSYS(topic string) bool {
	const sys = "$SYS"
	return strings.HasPrefix(topic, sys) && (len(topic) == len(sys) || topic[len(sys)] == '/')
}
