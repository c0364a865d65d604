package webhook

import (
	"slices"
	"unicode/utf8"

	mqtt "github.com/mochi-mqtt/server/v2"
)

// conditionalRules are the rules of one kind that have conditions beside their
// topic. Each stands in the index as an endpoint of its own, by its place in
// rules, so that none hides a later one.
type conditionalRules struct {
	kindRules
	rules []conditionalRule // in file order
}

// A conditionalRule is a rule that a matching topic is not enough for.
type conditionalRule struct {
	hit
	except                    filterIndex
	clients, users, listeners []string
	withoutInline             bool
}

// conditional reports whether the rule has conditions.
func (r *Rule) conditional() bool {
	k := kindOf(r.Event)
	return len(r.Except) > 0 && kinds[k].topic || len(r.Clients)+len(r.Users)+len(r.Listeners) > 0 ||
		r.WithoutInline && k.isMessage()
}

// newConditionalRules prepares the conditional rules of a kind, nil for none.
func newConditionalRules(endpoints []Endpoint, k kind) *conditionalRules {
	c := new(conditionalRules)
	var topics []string
	for e := range endpoints {
		for i := range endpoints[e].Events {
			r := &endpoints[e].Events[i]
			if kindOf(r.Event) != k || !r.conditional() {
				continue
			}
			rule := conditionalRule{
				hit:     hit{int32(e), int32(i)},
				clients: r.Clients, users: r.Users, listeners: r.Listeners, withoutInline: r.WithoutInline,
			}
			if kinds[k].topic {
				for _, filter := range r.Except {
					rule.except.add(filter, hit{})
				}
			}
			c.rules = append(c.rules, rule)
			topics = append(topics, r.Topic)
		}
	}
	if len(c.rules) == 0 {
		return nil
	}
	for i, topic := range slices.Backward(topics) {
		c.add(k, topic, hit{endpoint: int32(i)})
	}
	return c
}

// addConditional adds to hits, which match has made, those of rules with
// conditions that ev meets.
func (r *rules) addConditional(ev *event, hits []hit) []hit {
	c := r.conditional[ev.kind]
	if c == nil {
		return hits
	}
	var room [16]hit
	for _, at := range c.match(ev.kind, ev.topic, room[:0]) {
		if rule := &c.rules[at.endpoint]; rule.admits(ev) {
			hits = addHit(hits, rule.hit)
		}
	}
	return hits
}

// admits reports whether an event meets the rule's conditions.
func (r *conditionalRule) admits(ev *event) bool {
	if r.withoutInline && ev.isInline() {
		return false
	}
	user, listener := ev.username, ""
	if ev.kind == kindPublish {
		user = ev.fromUser
	}
	if ev.extra != nil {
		listener = ev.extra.listener
	}
	if !anyGlob(r.clients, ev.actor()) || !anyGlob(r.users, user) || !anyGlob(r.listeners, listener) {
		return false
	}
	topic := ev.topic
	if isSubscription(ev.kind) {
		topic = unshared(topic)
	}
	var room [1]hit
	return len(r.except.match(topic, room[:0])) == 0
}

// isInline reports whether an event is about a message that the program itself
// has published. Of one on its way to a client, mochi knows who that was by the
// client id alone.
func (ev *event) isInline() bool {
	if ev.kind == kindPublish {
		return ev.lane == laneTopic
	}
	return ev.kind.isMessage() && ev.from == mqtt.InlineClientId
}

// anyGlob reports whether one of the patterns matches s, or there is none.
func anyGlob(patterns []string, s string) bool {
	return len(patterns) == 0 || slices.ContainsFunc(patterns, func(p string) bool { return matchGlob(p, s) })
}

// matchGlob reports whether s matches a pattern in which * stands for any text
// and ? for one character. Its time is at most the product of their lengths.
func matchGlob(pattern, s string) bool {
	p, at := 0, 0
	star, from := -1, 0 // the last *, and where the text behind what it stands for begins
	for at < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, from = p, at
			p++
			continue
		case p < len(pattern) && pattern[p] == '?':
			_, n := utf8.DecodeRuneInString(s[at:])
			p, at = p+1, at+n
			continue
		case p < len(pattern) && pattern[p] == s[at]:
			p, at = p+1, at+1
			continue
		case star < 0:
			return false
		}
		_, n := utf8.DecodeRuneInString(s[from:]) // ? is a whole character wherever it begins
		from += n
		p, at = star+1, from
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}
