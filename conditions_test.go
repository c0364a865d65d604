package webhook

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"

	mqtt "github.com/mochi-mqtt/server/v2"
)

// matches returns all hits of an event.
func matches(r *rules, ev *event) []hit {
	var room [8]hit
	return r.addConditional(ev, r.match(ev.kind, ev.topic, room[:0]))
}

func TestConditions(t *testing.T) {
	publish := func(change func(*event)) event {
		ev := event{kind: kindPublish, from: "sensor-1", fromUser: "alice", topic: "clients/a/state", extra: &extra{listener: "tcp1"}}
		if change != nil {
			change(&ev)
		}
		return ev
	}
	for _, test := range []struct {
		name  string
		rules []Rule
		event event
		want  int // the first rule that matches, -1 for none
	}{
		{"no condition", []Rule{{Event: OnMessagePublish}}, publish(nil), 0},
		{"except another topic", []Rule{{Event: OnMessagePublish, Except: []string{"clients/+/debug"}}}, publish(nil), 0},
		{"except the topic", []Rule{{Event: OnMessagePublish, Topic: "clients/#", Except: []string{"x", "clients/+/state"}}}, publish(nil), -1},
		{"except without effect", []Rule{{Event: OnClientConnected, Except: []string{"clients/#"}}}, event{kind: kindConnected, client: "c"}, 0},
		{"except of a shared subscription", []Rule{{Event: OnClientSubscribe, Except: []string{"a/#"}}}, event{kind: kindSubscribe, client: "c", topic: "$share/g/a/b"}, -1},
		{"without topic, the broker's own", []Rule{{Event: OnMessagePublish, Except: []string{"x"}}}, publish(func(ev *event) { ev.topic = "$SYS/x" }), -1},
		{"client", []Rule{{Event: OnMessagePublish, Clients: []string{"x", "sensor-*"}}}, publish(nil), 0},
		{"another client", []Rule{{Event: OnMessagePublish, Clients: []string{"sensor-"}}}, publish(nil), -1},
		{"client of a connection", []Rule{{Event: OnClientConnected, Clients: []string{"s?"}}}, event{kind: kindConnected, client: "s1"}, 0},
		{"user", []Rule{{Event: OnMessagePublish, Users: []string{"al*"}}}, publish(nil), 0},
		{"another user", []Rule{{Event: OnMessagePublish, Users: []string{"bob"}}}, publish(nil), -1},
		{"no user", []Rule{{Event: OnMessagePublish, Users: []string{""}}}, publish(func(ev *event) { ev.fromUser = "" }), 0},
		{"the receiver of a delivery", []Rule{{Event: OnMessageDelivered, Clients: []string{"r"}, Users: []string{"u"}}},
			event{kind: kindDelivered, client: "r", username: "u", from: "p", fromUser: "v", topic: "t"}, 0},
		{"the publisher of a delivery", []Rule{{Event: OnMessageDelivered, Clients: []string{"p"}}},
			event{kind: kindDelivered, client: "r", username: "u", from: "p", fromUser: "v", topic: "t"}, -1},
		{"listener", []Rule{{Event: OnMessagePublish, Listeners: []string{"tcp?"}}}, publish(nil), 0},
		{"another listener", []Rule{{Event: OnMessagePublish, Listeners: []string{"ws*"}}}, publish(nil), -1},
		{"inline", []Rule{{Event: OnMessagePublish, WithoutInline: true}}, publish(func(ev *event) { ev.lane = laneTopic }), -1},
		{"delivery of an inline message", []Rule{{Event: OnMessageDelivered, WithoutInline: true}}, event{kind: kindDelivered, client: "r", from: mqtt.InlineClientId, topic: "t"}, -1},
		{"delivery of another message", []Rule{{Event: OnMessageDelivered, WithoutInline: true}}, event{kind: kindDelivered, client: "r", from: "p", topic: "t"}, 0},
		{"not inline", []Rule{{Event: OnMessagePublish, WithoutInline: true}}, publish(nil), 0},
		{"all conditions have to hold", []Rule{{Event: OnMessagePublish, Clients: []string{"sensor-1"}, Users: []string{"bob"}}}, publish(nil), -1},
		{"a rule whose conditions fail hides none", []Rule{
			{Event: OnMessagePublish, Topic: "clients/#", Users: []string{"bob"}}, {Event: OnMessagePublish, Topic: "clients/#", Users: []string{"alice"}},
			{Event: OnMessagePublish, Topic: "clients/#"}}, publish(nil), 1},
		{"an earlier rule without conditions comes first", []Rule{
			{Event: OnMessagePublish, Topic: "clients/#"}, {Event: OnMessagePublish, Users: []string{"alice"}}}, publish(nil), 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRules([]Endpoint{{}, {Events: test.rules}})
			var want []hit
			if test.want >= 0 {
				want = []hit{{1, int32(test.want)}}
			}
			if got := matches(r, &test.event); !slices.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
			if r.wanted>>test.event.kind&1 == 0 {
				t.Error("events of the kind are not wanted")
			}
		})
	}
}

// TestConditionsRandom compares with a loop over all rules.
func TestConditionsRandom(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	pick := func(of ...string) []string {
		if rnd.IntN(2) == 0 {
			return nil
		}
		return []string{of[rnd.IntN(len(of))]}
	}
	for range 2000 {
		endpoints := make([]Endpoint, 1+rnd.IntN(4))
		for e := range endpoints {
			for range rnd.IntN(5) {
				rule := Rule{Event: OnMessagePublish, Clients: pick("a", "b*"), Users: pick("u"), Except: pick("t/+", "t/1", "#")}
				if rnd.IntN(2) == 0 {
					rule.Topic = []string{"t/#", "+/1", "t/1"}[rnd.IntN(3)]
				}
				endpoints[e].Events = append(endpoints[e].Events, rule)
			}
		}
		r := newRules(endpoints)
		for range 5 {
			ev := event{kind: kindPublish, topic: []string{"t", "t/1", "t/2", "x/1"}[rnd.IntN(4)],
				from: []string{"a", "b1", "c"}[rnd.IntN(3)], fromUser: []string{"", "u"}[rnd.IntN(2)]}
			var want []hit
			for e := range endpoints {
				for i, rule := range endpoints[e].Events {
					user := rule.Users == nil || ev.fromUser == "u"
					client := rule.Clients == nil || rule.Clients[0] == "a" && ev.from == "a" || rule.Clients[0] == "b*" && ev.from == "b1"
					if naiveRule(rule, kindPublish, ev.topic) && user && client && (rule.Except == nil || !naiveMatch(rule.Except[0], ev.topic)) {
						want = append(want, hit{int32(e), int32(i)})
						break
					}
				}
			}
			if got := matches(r, &ev); !slices.Equal(got, want) {
				t.Fatalf("%+v\nof %+v:\n got %v\nwant %v", endpoints, ev, got, want)
			}
		}
	}
}

func TestMatchGlob(t *testing.T) {
	for _, test := range []struct {
		pattern, text string
		want          bool
	}{
		{"", "", true}, {"", "a", false}, {"*", "", true}, {"*", "a/b", true}, {"?", "", false}, {"?", "é", true}, {"??", "é", false},
		{"[a]", "a", false}, {"[a]", "[a]", true}, {`\*`, `\x`, true}, {"a*b*c", "a1b2b3c", true}, {"a*b*c", "a1b2b3", false},
	} {
		if got := matchGlob(test.pattern, test.text); got != test.want {
			t.Errorf("matchGlob(%q, %q) = %t", test.pattern, test.text, got)
		}
	}
	rnd := rand.New(rand.NewPCG(5, 6))
	random := func(letters ...rune) string {
		var b strings.Builder
		for range rnd.IntN(8) {
			b.WriteRune(letters[rnd.IntN(len(letters))])
		}
		return b.String()
	}
	for range 20000 {
		pattern, text := random('a', '€', '*', '?'), random('a', '€')
		oracle := regexp.MustCompile(`(?s)^` + strings.NewReplacer(`\*`, `.*`, `\?`, `.`).Replace(regexp.QuoteMeta(pattern)) + `$`)
		if got, want := matchGlob(pattern, text), oracle.MatchString(text); got != want {
			t.Fatalf("matchGlob(%q, %q) = %t", pattern, text, got)
		}
	}
}

// TestConditionsOfABroker sends through a broker, where listener and user are.
func TestConditionsOfABroker(t *testing.T) {
	got := newInbox()
	url := got.serve(t, ok)
	b := startBroker(t, 0)
	h := new(Hook)
	if err := b.server.AddHook(h, &Options{Config: allPublishes(url, func(e *Endpoint) {
		e.Events = []Rule{
			{Event: OnMessagePublish, Clients: []string{"sensor-*"}, Users: []string{"u"}, Listeners: []string{"t*"}, Except: []string{"debug/#"}, WithoutInline: true},
		}
	})}); err != nil {
		t.Fatal(err)
	}
	other := mustConnect(t, b.addr, rawConnect{ID: "other", User: "u", Clean: true})
	other.publish("t", "wrong client", 1, false)
	sensor := mustConnect(t, b.addr, rawConnect{ID: "sensor-1", User: "u", Clean: true})
	sensor.publish("debug/x", "wrong topic", 1, false)
	sensor.publish("t", "right", 1, false)
	got.await(t, "the message", func() bool { return len(got.payloads) > 0 })
	if s := fmt.Sprint(got.payloads, h.Stats().Endpoints["default"].Offered); s != "[right] 1" {
		t.Errorf("got %s", s)
	}
}
