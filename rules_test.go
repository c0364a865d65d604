package webhook

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
)

// naiveRules answers as rules.match does, by trying every rule.
func naiveRules(endpoints []Endpoint, k kind, topic string) []hit {
	var hits []hit
	for e := range endpoints {
		for i, rule := range endpoints[e].Events {
			if kindOf(rule.Event) == k && naiveRule(rule, k, topic) {
				hits = append(hits, hit{int32(e), int32(i)})
				break
			}
		}
	}
	return hits
}

func naiveRule(rule Rule, k kind, topic string) bool {
	if !kinds[k].topic {
		return true
	}
	subscription := strings.Contains(string(kinds[k].name), "subscribe")
	if subscription {
		if bare := sharesOf(topic); bare != nil && !strings.ContainsAny(strings.Split(topic, "/")[1], "+#") {
			topic = bare[0]
		}
	}
	if rule.Topic == "" {
		return subscription || topic != "$SYS" && !strings.HasPrefix(topic, "$SYS/")
	}
	return naiveMatch(rule.Topic, topic)
}

func checkRules(t *testing.T, endpoints []Endpoint, k kind, topics ...string) {
	t.Helper()
	r := newRules(endpoints)
	for _, topic := range topics {
		var room [8]hit
		got, want := r.match(k, topic, room[:0]), naiveRules(endpoints, k, topic)
		if !slices.Equal(got, want) {
			t.Errorf("%s %q with %d endpoints, the first with %+v:\n got %v\nwant %v",
				kinds[k].name, topic, len(endpoints), endpoints[0].Events, got, want)
		}
		if len(want) > 0 && r.wanted>>k&1 == 0 {
			t.Errorf("%s is not wanted, and %q has hits %v", kinds[k].name, topic, want)
		}
	}
}

// on makes an endpoint of rules for one event.
func on(event EventName, filters ...string) Endpoint {
	var ep Endpoint
	for _, f := range filters {
		ep.Events = append(ep.Events, Rule{Event: event, Topic: f})
	}
	return ep
}

func TestRulesMatch(t *testing.T) {
	for _, tt := range []struct {
		name      string
		endpoints []Endpoint
		kind      kind
		topic     string
		want      []hit
	}{
		{"no endpoint", nil, kindPublish, "a", nil},
		{"no rule", []Endpoint{{}}, kindPublish, "a", nil},
		{"another event", []Endpoint{on(OnMessageDelivered, "a")}, kindPublish, "a", nil},
		{"event in capitals", []Endpoint{on("ON_MESSAGE_PUBLISH", "a")}, kindPublish, "a", []hit{{0, 0}}},
		{"one rule", []Endpoint{on(OnMessagePublish, "a")}, kindPublish, "a", []hit{{0, 0}}},
		{"no match", []Endpoint{on(OnMessagePublish, "a")}, kindPublish, "b", nil},
		{"several rules, one hit", []Endpoint{on(OnMessagePublish, "t/#", "t/+", "t/1", "t/1")}, kindPublish, "t/1", []hit{{0, 0}}},
		{"first in the file", []Endpoint{on(OnMessagePublish, "x", "t/1", "t/+", "", "t/#")}, kindPublish, "t/1", []hit{{0, 1}}},
		{"wildcard first", []Endpoint{on(OnMessagePublish, "x", "#", "t/1")}, kindPublish, "t/1", []hit{{0, 1}}},
		{"no topic first", []Endpoint{on(OnMessagePublish, "x", "", "t/1")}, kindPublish, "t/1", []hit{{0, 1}}},
		{"same filter twice", []Endpoint{on(OnMessagePublish, "t", "t"), on(OnMessagePublish, "x", "t", "t")}, kindPublish, "t", []hit{{0, 0}, {1, 1}}},
		{"rules of other events count", []Endpoint{{Events: []Rule{{Event: OnMessageAcked, Topic: "t"}, {Event: OnMessagePublish, Topic: "t"}}}}, kindPublish, "t", []hit{{0, 1}}},
		{"endpoints in order", []Endpoint{on(OnMessagePublish, "t/#"), on(OnMessagePublish, "x"), on(OnMessagePublish, "t/1"), on(OnMessagePublish, "")},
			kindPublish, "t/1", []hit{{0, 0}, {2, 0}, {3, 0}}},

		{"no topic", []Endpoint{on(OnMessagePublish, "")}, kindPublish, "a/b", []hit{{0, 0}}},
		{"no topic, other $ topic", []Endpoint{on(OnMessagePublish, "")}, kindPublish, "$foo/a", []hit{{0, 0}}},
		{"no topic, like $SYS", []Endpoint{on(OnMessagePublish, "")}, kindPublish, "$SYSTEM/a", []hit{{0, 0}}},
		{"no topic, $SYS", []Endpoint{on(OnMessageDelivered, "", "#", "+/x")}, kindDelivered, "$SYS", nil},
		{"no topic, below $SYS", []Endpoint{on(OnMessageDelivered, "", "#", "+/x")}, kindDelivered, "$SYS/x", nil},
		{"$SYS by its filter", []Endpoint{on(OnMessageDelivered, "", "$SYS/#")}, kindDelivered, "$SYS/x", []hit{{0, 1}}},
		{"$SYS by its name", []Endpoint{on(OnMessageDelivered, "", "$SYS")}, kindDelivered, "$SYS", []hit{{0, 1}}},
		{"$ topic by its filter", []Endpoint{on(OnMessagePublish, "#", "$foo/+")}, kindPublish, "$foo/a", []hit{{0, 1}}},

		{"no effect on connack", []Endpoint{on(OnClientConnack, "some/topic")}, kindConnack, "", []hit{{0, 0}}},
		{"no effect on disconnected", []Endpoint{on(OnClientDisconnected, "$SYS/#", "")}, kindDisconnected, "", []hit{{0, 0}}},
		{"no effect on terminated", []Endpoint{on(OnSessionTerminated, "a", "#")}, kindTerminated, "", []hit{{0, 0}}},

		{"subscription", []Endpoint{on(OnClientSubscribe, "a/b")}, kindSubscribe, "a/b", []hit{{0, 0}}},
		{"subscription's + below #", []Endpoint{on(OnSessionSubscribed, "a/#")}, kindSubscribed, "a/+/c", []hit{{0, 0}}},
		{"subscription's # for +", []Endpoint{on(OnSessionUnsubscribed, "a/+")}, kindUnsubscribed, "a/#", []hit{{0, 0}}},
		{"subscription's # is not a", []Endpoint{on(OnClientUnsubscribe, "a/a")}, kindUnsubscribe, "a/#", nil},
		{"shared subscription", []Endpoint{on(OnClientSubscribe, "a/+")}, kindSubscribe, "$share/g/a/b", []hit{{0, 0}}},
		{"shared by #", []Endpoint{on(OnSessionSubscribed, "#")}, kindSubscribed, "$SHARE/g/a", []hit{{0, 0}}},
		{"shared, no topic", []Endpoint{on(OnSessionSubscribed, "")}, kindSubscribed, "$share/g/a", []hit{{0, 0}}},
		{"malformed share by #", []Endpoint{on(OnClientSubscribe, "#")}, kindSubscribe, "$share/g", nil},
		{"malformed share, no topic", []Endpoint{on(OnClientSubscribe, "")}, kindSubscribe, "$share/g", []hit{{0, 0}}},
		{"$SYS subscription, no topic", []Endpoint{on(OnSessionUnsubscribed, "")}, kindUnsubscribed, "$SYS/#", []hit{{0, 0}}},
		{"shared $SYS", []Endpoint{on(OnClientSubscribe, "#", "$SYS/#")}, kindSubscribe, "$share/g/$SYS/#", []hit{{0, 1}}},
		{"a topic is not shared", []Endpoint{on(OnMessagePublish, "a/b")}, kindPublish, "$share/g/a/b", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var room [8]hit
			if got := newRules(tt.endpoints).match(tt.kind, tt.topic, room[:0]); !slices.Equal(got, tt.want) {
				t.Errorf("%s %q: got %v, want %v", kinds[tt.kind].name, tt.topic, got, tt.want)
			}
			if got := naiveRules(tt.endpoints, tt.kind, tt.topic); !slices.Equal(got, tt.want) {
				t.Errorf("%s %q: naiveRules gives %v, want %v", kinds[tt.kind].name, tt.topic, got, tt.want)
			}
		})
	}
}

func TestRulesWants(t *testing.T) {
	for k := kindConnect; k < kindEnd; k++ {
		t.Run(string(kinds[k].name), func(t *testing.T) {
			r := newRules([]Endpoint{{}, on(kinds[k].name, "a")})
			for other := kindConnect; other < kindEnd; other++ {
				if got := r.wanted>>other&1 != 0; got != (other == k) {
					t.Errorf("%s: wanted %t with a rule for %s", kinds[other].name, got, kinds[k].name)
				}
			}
		})
	}
}

// TestRulesMatchForks has rules that overlap in every possible way.
func TestRulesMatchForks(t *testing.T) {
	const depth = 9
	var filters []string
	for bits := range 1 << depth {
		levels := make([]string, depth)
		for i := range levels {
			levels[i] = string("a+"[bits>>i&1])
		}
		filters = append(filters, strings.Join(levels, "/"), strings.Join(levels[:depth-1], "/")+"/#")
	}
	topic := strings.Repeat("a/", depth-1) + "a"
	topics := []string{topic, topic + "/a", topic[2:], topic[2:] + "/b", "b" + topic[1:], "$" + topic[1:], "a", "a/b", "x"}

	t.Run("one endpoint", func(t *testing.T) {
		checkRules(t, []Endpoint{on(OnMessagePublish, filters...)}, kindPublish, topics...)
	})
	t.Run("an endpoint each", func(t *testing.T) {
		var endpoints []Endpoint
		for _, f := range filters {
			endpoints = append(endpoints, on(OnMessagePublish, f))
		}
		checkRules(t, endpoints, kindPublish, topics...)
	})
}

func TestRulesMatchManyEndpoints(t *testing.T) {
	var endpoints []Endpoint
	for i := range 3000 {
		filters := [][]string{{"#"}, {"a/#"}, {"x", "a/+"}, {"a/b", "#"}, {""}, {"+/b", "", "a/b"}}
		endpoints = append(endpoints, on(OnMessagePublish, filters[i*7%len(filters)]...))
	}
	checkRules(t, endpoints, kindPublish, "a", "a/b", "b", "x", "$SYS/x", "$x")
}

func TestRulesMatchConcurrently(t *testing.T) {
	r := newRules([]Endpoint{on(OnMessagePublish, "a/+", "a/#"), on(OnMessagePublish, "a/b", "+/b")})
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			want := []hit{{0, 0}, {1, 0}}
			for range 1000 {
				var room [8]hit
				if got := r.match(kindPublish, "a/b", room[:0]); !slices.Equal(got, want) {
					t.Errorf("a/b: got %v, want %v", got, want)
					return
				}
			}
		})
	}
	group.Wait()
}

// levels is what random filters and topics are made of.
var levels = []string{"a", "b", "", "+", "#", "$", "$SYS", "$share", "1234567", "12345678", "12345679", "123456789abcdefgh"}

func TestRulesMatchRandom(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	text := func(most int) string {
		parts := make([]string, 1+rnd.IntN(most))
		for i := range parts {
			parts[i] = levels[rnd.IntN(len(levels))]
		}
		return strings.Join(parts, "/")
	}
	for range 500 {
		endpoints := make([]Endpoint, 1+rnd.IntN(10))
		k := kindConnect + kind(rnd.IntN(int(kindEnd-kindConnect)))
		for range 1 + rnd.IntN(40) {
			ep := &endpoints[rnd.IntN(len(endpoints))]
			if f := text(5); checkFilter(f) == nil || f == "" {
				ep.Events = append(ep.Events, Rule{Event: kinds[k].name, Topic: f})
			}
		}
		for range 20 {
			checkRules(t, endpoints, k, text(6))
		}
		if t.Failed() {
			return
		}
	}
}

func FuzzMatch(f *testing.F) {
	f.Add("a/#\n+/#\na", "a", byte(kindPublish))
	f.Add("\n$SYS/#\n#", "$SYS/x", byte(kindDelivered))
	f.Add("a/#\na/+\n+/+\na/b/#", "$share/g/a/#", byte(kindSubscribed))
	f.Add("1234567/12345678/+\n1234567/12345678/123456789", "1234567/12345678/123456789", byte(kindAcked))
	f.Add("//\n/\n/+/#\n+//#", "//", byte(kindPublish))
	f.Fuzz(func(t *testing.T, filters, topic string, k byte) {
		if k == 0 || k >= byte(kindEnd) {
			return
		}
		// The lines are the filters of three endpoints in turn.
		endpoints := make([]Endpoint, 3)
		for i, filter := range strings.Split(filters, "\n") {
			if filter == "" || checkFilter(filter) == nil {
				ep := &endpoints[i%len(endpoints)]
				ep.Events = append(ep.Events, Rule{Event: kinds[k].name, Topic: filter})
			}
		}
		checkRules(t, endpoints, kind(k), topic)
	})
}

// device names the i-th of many devices, under two roots.
func device(i int) string {
	return fmt.Sprintf("%s/%d/device/%d", []string{"plant", "depot"}[i%2], i/100, i%100)
}

// plant makes one endpoint with a rule for each of n devices.
func plant(n int) []Endpoint {
	filters := make([]string, n)
	for i := range filters {
		filters[i] = device(i) + "/+"
	}
	return []Endpoint{on(OnMessagePublish, filters...)}
}

func TestRulesMatchAllocates(t *testing.T) {
	few := make([]Endpoint, 8)
	for i := range few {
		few[i] = on(OnMessagePublish, fmt.Sprintf("a/+/%d", i), "a/#", "+/b/c", "a/b/+")
	}
	subscriptions := []Endpoint{on(OnClientSubscribe, "a/#"), on(OnClientSubscribe, "")}
	for _, tt := range []struct {
		name  string
		rules *rules
		kind  kind
		topic string
		hits  int
	}{
		{"nothing wanted", newRules(nil), kindPublish, "plant/0/device/0/temperature", 0},
		{"1 rule, no hit", newRules(plant(1)), kindPublish, "plant/0/device/1/temperature", 0},
		{"1 rule, a hit", newRules(plant(1)), kindPublish, "plant/0/device/0/temperature", 1},
		{"100000 rules, no hit", newRules(plant(100_000)), kindPublish, "plant/999/device/x/temperature", 0},
		{"100000 rules, a hit", newRules(plant(100_000)), kindPublish, "depot/999/device/99/temperature", 1},
		{"8 endpoints, several hits each", newRules(few), kindPublish, "a/b/c", 8},
		{"shared subscription", newRules(subscriptions), kindSubscribe, "$share/group/a/b", 2},
		{"long levels", newRules(plant(1000)), kindPublish, strings.Repeat("plant/a level longer than a word/", 100), 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			hits := 0
			allocs := testing.AllocsPerRun(100, func() {
				var room [8]hit
				hits = len(tt.rules.match(tt.kind, tt.topic, room[:0]))
			})
			if hits != tt.hits || allocs != 0 {
				t.Errorf("%q: %d hits, %v allocations, want %d and 0", tt.topic, hits, allocs, tt.hits)
			}
		})
	}
}

func BenchmarkMatch(b *testing.B) {
	for _, n := range []int{1, 1000, 100_000} {
		r := newRules(plant(n))
		topics := make([]string, 1<<12) // for "spread": all over the rules, not all in the processor's caches
		for i := range topics {
			topics[i] = device(i*7919%n) + "/temperature"
		}
		last := device(n-1) + "/temperature"
		for _, tt := range []struct {
			name   string
			topics []string
			hits   int
		}{
			{"miss", []string{"site/0/device/0/temperature"}, 0},
			{"miss=late", []string{strings.Replace(last, "device/", "device/x", 1)}, 0},
			{"hit", []string{last}, 1},
			{"hit=spread", topics, 1},
		} {
			b.Run(fmt.Sprintf("rules=%d/%s", n, tt.name), func(b *testing.B) {
				b.ReportAllocs()
				mask := len(tt.topics) - 1
				for i := 0; b.Loop(); i++ {
					var room [8]hit
					if hits := r.match(kindPublish, tt.topics[i&mask], room[:0]); len(hits) != tt.hits {
						b.Fatalf("%d hits, want %d", len(hits), tt.hits)
					}
				}
			})
		}
	}
}

func BenchmarkNewRules(b *testing.B) {
	for _, n := range []int{1, 1000, 100_000} {
		b.Run(fmt.Sprintf("rules=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			endpoints := plant(n)
			for b.Loop() {
				newRules(endpoints)
			}
		})
	}
}
