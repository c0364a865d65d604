package webhook

import (
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/hooks/storage"
	"github.com/mochi-mqtt/server/v2/packets"
)

var messageKinds = kindsOf(kindDelivered, kindAcked)

// take reads a message and acknowledges it.
func (c *rawClient) take() packets.Packet {
	c.t.Helper()
	pk := c.expect(packets.Publish)
	c.acknowledge(pk)
	return pk
}

func (c *rawClient) acknowledge(pk packets.Packet) {
	c.t.Helper()
	switch pk.FixedHeader.Qos {
	case 1:
		c.ack(packets.Puback, pk.PacketID)
	case 2:
		c.ack(packets.Pubrec, pk.PacketID)
		c.expect(packets.Pubrel)
		c.ack(packets.Pubcomp, pk.PacketID)
	}
}

// messageCount is the number of messages remembered for a client id.
func (h *Hook) messageCount(id string) int {
	s := h.sessions.lock(id)
	defer h.sessions.unlock(s)
	return len(s.messages) + len(s.early)
}

// awaitNoMessages waits until no message is remembered for a client id: the
// goroutine that wrote the last one may be late.
func (b *testBroker) awaitNoMessages(t *testing.T, id string) {
	t.Helper()
	awaitTrue(t, "no message is remembered", func() bool { return b.hook.messageCount(id) == 0 })
}

func TestDeliveredAndAcked(t *testing.T) {
	eachVersion(t, func(t *testing.T, v byte) {
		b := startBroker(t, messageKinds)
		s := mustConnect(t, b.addr, rawConnect{Version: v, ID: "s", User: "su", Clean: true})
		s.subscribe(2, "a/#")
		p := mustConnect(t, b.addr, rawConnect{Version: v, ID: "p", User: "pu", Clean: true})
		for qos := range byte(3) {
			p.publish(fmt.Sprintf("a/%d", qos), "hi", qos, false)
			s.take()
			s.ping()
		}
		events := b.waitFor(t, `message_acked a/2 p/pu->s/su qos2 "hi"`)
		wantLines(t, lines(events),
			`message_delivered a/0 p/pu->s/su qos0 "hi"`,
			`message_delivered a/1 p/pu->s/su qos1 "hi"`,
			`message_acked a/1 p/pu->s/su qos1 "hi"`,
			`message_delivered a/2 p/pu->s/su qos2 "hi"`,
			`message_acked a/2 p/pu->s/su qos2 "hi"`,
		)
		for _, ev := range events {
			if ev.published == 0 || ev.published%1000 != 0 || ev.lane != laneClient {
				t.Errorf("%s: published %d, lane %d", eventLine(&ev), ev.published, ev.lane)
			}
		}
		b.awaitNoMessages(t, "s")
		s.disconnect(0)
		p.disconnect(0)
		b.awaitGone(t)
		if n := b.hook.sessionCount(); n != 0 {
			t.Errorf("%d sessions remembered", n)
		}
	})
}

func TestDeliveredKinds(t *testing.T) {
	b := startBroker(t, messageKinds)
	p := mustConnect(t, b.addr, rawConnect{ID: "p", User: "pu", Clean: true, Will: &rawWill{Topic: "will", Payload: "w"}})
	p.publish("retained", "r", 1, true)
	p.ping() // the broker answers before it looks for subscribers
	s := mustConnect(t, b.addr, rawConnect{ID: "s", Clean: true})
	s.subscribe(1, "retained")
	s.take()
	s.subscribe(0, "will", "inline", "$SYS/broker/version")
	p.fin()
	if err := b.server.Publish("inline", []byte("i"), false, 0); err != nil {
		t.Fatal(err)
	}
	// The broker sends retained messages after the SUBACK, side by side with
	// what others publish meanwhile.
	b.waitFor(t,
		`message_delivered retained p/pu->s qos1 retain "r"`,
		`message_acked retained p/pu->s qos1 retain "r"`,
		`message_delivered $SYS/broker/version ->s qos0 retain "`+mqtt.Version+`"`,
		`message_delivered will p/pu->s qos0 "w"`,
		`message_delivered inline inline->s qos0 "i"`,
	)
}

// What is refused, or answered with the wrong packet, is not acknowledged.
func TestNotAcked(t *testing.T) {
	b := startBroker(t, messageKinds)
	s := mustConnect(t, b.addr, rawConnect{Version: 5, ID: "s", Clean: true})
	s.subscribe(2, "a")
	p := mustConnect(t, b.addr, rawConnect{ID: "p", Clean: true})
	p.publish("a", "refused", 2, false)
	pk := s.expect(packets.Publish)
	s.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pubrec}, PacketID: pk.PacketID, ReasonCode: 0x80})
	p.publish("a", "wrong", 2, false)
	s.ack(packets.Puback, s.expect(packets.Publish).PacketID)
	s.ack(packets.Puback, 999)
	s.ack(packets.Pubcomp, 998)
	s.ping()
	wantLines(t, b.lines(), `message_delivered a p->s qos2 "refused"`, `message_delivered a p->s qos2 "wrong"`)
	b.awaitNoMessages(t, "s")
}

// A message that is sent again is delivered once; one that waited for its
// client is delivered when it comes, after it is connected.
func TestResumedSession(t *testing.T) {
	eachVersion(t, func(t *testing.T, v byte) {
		b := startBroker(t, messageKinds|lifecycle)
		connect := rawConnect{Version: v, ID: "s", Expiry: 100}
		s := mustConnect(t, b.addr, connect)
		s.subscribe(2, "a")
		p := mustConnect(t, b.addr, rawConnect{ID: "p", User: "pu", Clean: true})
		p.publish("a", "online 1", 1, false)
		p.publish("a", "online 2", 2, false)
		s.expect(packets.Publish)
		s.expect(packets.Publish)
		b.waitFor(t, `message_delivered a p/pu->s qos2 "online 2"`)
		s.fin()
		b.waitFor(t, "disconnected s tcp_closed")
		p.publish("a", "offline", 1, false)
		p.ping() // the broker answers before it looks for subscribers
		s = mustConnect(t, b.addr, connect)
		var again []packets.Packet
		for range 3 {
			again = append(again, s.expect(packets.Publish))
		}
		for _, pk := range again {
			if !pk.FixedHeader.Dup {
				t.Errorf("%q is not sent again", pk.Payload)
			}
			s.acknowledge(pk)
		}
		s.ping()
		p.disconnect(0)
		s = mustConnect(t, b.addr, connect) // takes over, nothing to send
		s.disconnect(0)
		b.awaitGone(t)
		got := ofClient(b.all(), "s")
		acks := got[9 : len(got)-5]
		slices.Sort(acks) // in the order in which the broker sent again, which is random within a second
		wantLines(t, got,
			"connect s", "connack s", "connected s",
			`message_delivered a p/pu->s qos1 "online 1"`,
			`message_delivered a p/pu->s qos2 "online 2"`,
			"disconnected s tcp_closed",
			"connect s", "connack s", "connected s",
			`message_acked a p/pu->s qos1 "offline"`,
			`message_acked a p/pu->s qos1 "online 1"`,
			`message_acked a p/pu->s qos2 "online 2"`,
			`message_delivered a p/pu->s qos1 "offline"`,
			"connect s", "disconnected s takeovered", "connack s", "connected s", "disconnected s normal",
		)
		b.awaitNoMessages(t, "s")
	})
}

// The messages of a session that is discarded are forgotten.
func TestDiscardedMessages(t *testing.T) {
	b := startBroker(t, messageKinds)
	s := mustConnect(t, b.addr, rawConnect{ID: "s"})
	s.subscribe(1, "a")
	mustConnect(t, b.addr, rawConnect{ID: "p", Clean: true}).publish("a", "x", 1, false)
	s.expect(packets.Publish)
	b.waitFor(t, `message_delivered a p->s qos1 "x"`)
	s = mustConnect(t, b.addr, rawConnect{ID: "s", Clean: true})
	s.ack(packets.Puback, 1)
	s.ping()
	b.awaitNoMessages(t, "s")
	wantLines(t, b.lines(), `message_delivered a p->s qos1 "x"`)
}

// With a Receive Maximum the broker holds messages back, and forgets them when
// it sends them. (It does not get past the second one.)
func TestReceiveMaximum(t *testing.T) {
	b := startBroker(t, messageKinds)
	s := mustConnect(t, b.addr, rawConnect{Version: 5, ID: "s", Clean: true, ReceiveMax: 1})
	s.subscribe(1, "a")
	p := mustConnect(t, b.addr, rawConnect{ID: "p", Clean: true})
	var want []string
	for i := range 2 {
		p.publish("a", fmt.Sprint(i), 1, false)
		want = append(want, fmt.Sprintf(`message_delivered a p->s qos1 "%d"`, i), fmt.Sprintf(`message_acked a p->s qos1 "%d"`, i))
	}
	p.ping() // the broker answers before it looks for subscribers, and loses what is acknowledged meanwhile
	for range 2 {
		s.take()
	}
	s.ping()
	b.waitFor(t, want...)
	if got := b.lines(); len(got) != len(want) {
		t.Errorf("got:\n\t%s", strings.Join(got, "\n\t"))
	}
}

// A tenantHook, added last, publishes each message under another topic.
type tenantHook struct{ mqtt.HookBase }

func (*tenantHook) ID() string           { return "tenant" }
func (*tenantHook) Provides(b byte) bool { return b == mqtt.OnPublish }

func (*tenantHook) OnPublish(_ *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	pk.TopicName = "tenant/" + pk.TopicName
	return pk, nil
}

func TestDeliveredTopicAlias(t *testing.T) {
	t.Run("one connection", func(t *testing.T) {
		b := startBroker(t, messageKinds)
		s := mustConnect(t, b.addr, rawConnect{Version: 5, ID: "s", Clean: true, AliasMax: 2})
		s.subscribe(1, "#")
		p := mustConnect(t, b.addr, rawConnect{ID: "p", Clean: true})
		var want []string
		aliased := 0
		for i := range 3 {
			for _, topic := range []string{"a", "b", "c"} {
				qos := byte(i % 2)
				p.publish(topic, "x", qos, false)
				if s.take().TopicName == "" {
					aliased++
				}
				want = append(want, fmt.Sprintf(`message_delivered %s p->s qos%d "x"`, topic, qos))
				if qos == 1 {
					s.ping()
					want = append(want, fmt.Sprintf(`message_acked %s p->s qos%d "x"`, topic, qos))
				}
			}
		}
		if aliased != 4 {
			t.Errorf("%d messages with an alias only, want 4", aliased)
		}
		b.waitFor(t, want...)
		wantLines(t, b.lines(), want...)
	})
	t.Run("told by a message that does not go out", func(t *testing.T) {
		b := startBroker(t, messageKinds)
		connect := rawConnect{Version: 5, ID: "s", Expiry: 100, AliasMax: 1, MaxPacket: 100}
		s := mustConnect(t, b.addr, connect)
		s.subscribe(1, "#")
		p := mustConnect(t, b.addr, rawConnect{ID: "p", Clean: true})
		p.publish("x", "1", 0, false)
		s.expect(packets.Publish)
		s.fin()
		b.awaitClients(t, 1)
		s = mustConnect(t, b.addr, connect)
		s.ping()
		p.publish("y", strings.Repeat("z", 200), 0, false) // too large
		p.publish("y", "2", 0, false)
		if pk := s.expect(packets.Publish); pk.TopicName != "" {
			t.Errorf("topic %q, want an alias only", pk.TopicName)
		}
		b.waitFor(t, `message_delivered x p->s qos0 "1"`, `message_delivered y p->s qos0 "2"`)
	})
	t.Run("another hook changes topics", func(t *testing.T) {
		b := startBroker(t, messageKinds)
		if err := b.server.AddHook(new(tenantHook), nil); err != nil {
			t.Fatal(err)
		}
		s := mustConnect(t, b.addr, rawConnect{Version: 5, ID: "s", Clean: true, AliasMax: 2})
		s.subscribe(1, "#")
		p := mustConnect(t, b.addr, rawConnect{ID: "p", Clean: true})
		var want []string
		for i := range 3 {
			p.publish("a", fmt.Sprint(i), 1, false)
			s.take()
			s.ping()
			want = append(want, fmt.Sprintf(`message_delivered tenant/a p->s qos1 "%d"`, i), fmt.Sprintf(`message_acked tenant/a p->s qos1 "%d"`, i))
		}
		b.waitFor(t, want...)
		wantLines(t, b.lines(), want...)
	})
	t.Run("of two connections ago", func(t *testing.T) {
		b := startBroker(t, messageKinds)
		connect := rawConnect{Version: 5, ID: "s", Expiry: 100, AliasMax: 1}
		s := mustConnect(t, b.addr, connect)
		s.subscribe(1, "#")
		p := mustConnect(t, b.addr, rawConnect{ID: "p", Clean: true})
		long := strings.Repeat("z", 200)
		p.publish("old", "1"+long, 1, false)
		s.take()
		s.ping()
		s.fin()
		b.awaitClients(t, 1)
		p.publish("old", "2"+long, 1, false)
		p.ping()
		broken := connect
		broken.MaxPacket = 100 // breaks while the broker sends what waits
		mustConnect(t, b.addr, broken).awaitClose()
		b.awaitClients(t, 1)
		p.publish("new", "3", 1, false)
		p.ping()
		s = mustConnect(t, b.addr, connect)
		for range 2 {
			s.take()
		}
		s.ping()
		b.waitFor(t, `message_acked old p->s qos1 "2`+long+`"`, `message_acked new p->s qos1 "3"`)
	})
	t.Run("resumed session", func(t *testing.T) {
		b := startBroker(t, messageKinds)
		connect := rawConnect{Version: 5, ID: "s", Expiry: 100, AliasMax: 10}
		s := mustConnect(t, b.addr, connect)
		s.subscribe(1, "#")
		p := mustConnect(t, b.addr, rawConnect{ID: "p", Clean: true})
		p.publish("old/1", "online", 1, false)
		s.take()
		s.ping()
		s.fin()
		for {
			if cl, _ := b.server.Clients.Get("s"); cl.Closed() {
				break
			}
			p.ping()
		}
		for i := range 2 {
			p.publish("old/1", fmt.Sprintf("offline %d", i), 1, false)
			p.publish("old/2", fmt.Sprintf("offline %d", i), 1, false)
		}
		p.ping()
		s = mustConnect(t, b.addr, connect)
		for range 4 {
			s.take()
		}
		s.ping()
		p.publish("new/1", "back", 1, false) // alias 1 of the new connection
		s.take()
		p.publish("new/1", "again", 1, false)
		if pk := s.take(); pk.TopicName != "" {
			t.Errorf("topic %q, want an alias only", pk.TopicName)
		}
		s.ping()
		var want []string
		for _, m := range []string{`old/1 p->s qos1 "online"`, `old/1 p->s qos1 "offline 0"`, `old/1 p->s qos1 "offline 1"`,
			`old/2 p->s qos1 "offline 0"`, `old/2 p->s qos1 "offline 1"`, `new/1 p->s qos1 "back"`, `new/1 p->s qos1 "again"`} {
			want = append(want, "message_delivered "+m, "message_acked "+m)
		}
		b.waitFor(t, want...)
		if got := b.lines(); len(got) != len(want) {
			t.Errorf("got:\n\t%s", strings.Join(got, "\n\t"))
		}
	})
}

// observing is a hook that tracks messages, as if the broker had started, and keeps
// what it makes of them.
func observing(got *[]event) *Hook {
	h := &Hook{observe: func(ev event) { *got = append(*got, ev) }}
	h.watch(messageKinds)
	h.OnStarted()
	return h
}

// An alias nobody has heard of: there are no events, and every endpoint with a rule
// about them counts that.
func TestUnknownTopicAlias(t *testing.T) {
	about := func(name string, events ...EventName) Endpoint {
		return Endpoint{Name: name, URL: "http://127.0.0.1:1/", Events: rulesFor(events...)}
	}
	h := runHook(t, &Options{DrainTimeout: -1, Config: &Config{Endpoints: []Endpoint{
		about("both", OnMessageDelivered, OnMessageAcked), about("one", OnMessageAcked), about("none", OnMessagePublish),
	}}})
	h.OnStarted()
	cl := callConnack(t, h, "", false)
	h.OnSessionEstablished(cl, packets.Packet{})
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: 1}, PacketID: 1,
		Properties: packets.Properties{TopicAlias: 9, TopicAliasFlag: true}}
	h.OnPacketSent(cl, pk, nil)
	_, _ = h.OnPacketRead(cl, packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Puback}, PacketID: 1})
	for name, want := range map[string]uint64{"both": 2, "one": 1, "none": 0} {
		if s := h.Stats().Endpoints[name]; s.Offered != want || s.Dropped["unknown_topic"] != want {
			t.Errorf("endpoint %s: %d offered, dropped %v, want %d of unknown_topic", name, s.Offered, s.Dropped, want)
		}
	}
	if n := h.messageCount("s"); n != 0 {
		t.Errorf("%d messages remembered", n)
	}
}

// The client may answer before the goroutine that wrote the message gets to
// call OnPacketSent.
func TestAckOvertakesOnPacketSent(t *testing.T) {
	for qos := byte(1); qos <= 2; qos++ {
		t.Run(fmt.Sprintf("qos%d", qos), func(t *testing.T) {
			var got []event
			h := observing(&got)
			ours, theirs := net.Pipe()
			defer ours.Close()
			defer theirs.Close()
			cl := mqtt.New(&mqtt.Options{Logger: discardLogger()}).NewClient(ours, "tcp", "s", false)
			h.OnPacketSent(cl, packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Connack}}, nil)
			h.OnSessionEstablished(cl, packets.Packet{})
			pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: qos}, PacketID: 1, TopicName: "a",
				Origin: "p", Payload: []byte("x"), Created: 5}
			cl.State.Inflight.Set(pk)
			if qos == 1 {
				callAck(h, cl, packets.Puback, 1)
			} else {
				callAck(h, cl, packets.Pubrec, 1)
				callAck(h, cl, packets.Pubcomp, 1)
			}
			h.OnPacketSent(cl, pk, nil)
			wantLines(t, lines(got), fmt.Sprintf(`message_delivered a p->s qos%d "x"`, qos), fmt.Sprintf(`message_acked a p->s qos%d "x"`, qos))
			if n := h.messageCount("s"); n != 0 {
				t.Errorf("%d messages remembered", n)
			}
		})
	}
}

// The broker gives up a connection without a word if it cannot send again what
// waits for it.
func TestResendFails(t *testing.T) {
	var got []event
	h := Hook{observe: func(ev event) { got = append(got, ev) }}
	h.watch(messageKinds | kindsOf(kindConnected))
	h.OnStarted()
	connack := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Connack}, SessionPresent: true}
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: 1, Dup: true}, PacketID: 1, TopicName: "a",
		Origin: "p", Payload: []byte("x"), Created: 5}
	server := mqtt.New(&mqtt.Options{Logger: discardLogger()})
	for range 2 {
		ours, theirs := net.Pipe()
		defer theirs.Close()
		cl := server.NewClient(ours, "tcp", "s", false)
		cl.State.Inflight.Set(pk)
		h.OnPacketSent(cl, connack, nil)
		h.OnPacketSent(cl, pk, nil)
		cl.Stop(nil)
	}
	wantLines(t, lines(got))
	ours, theirs := net.Pipe()
	defer ours.Close()
	defer theirs.Close()
	cl := server.NewClient(ours, "tcp", "s", false)
	cl.State.Inflight.Set(pk)
	h.OnPacketSent(cl, connack, nil)
	h.OnPacketSent(cl, pk, nil)
	h.OnSessionEstablished(cl, packets.Packet{})
	h.OnPacketSent(cl, pk, nil)
	wantLines(t, lines(got), "connected s", `message_delivered a p->s qos1 "x"`)
}

func TestMessageExpires(t *testing.T) {
	t.Parallel()
	b := startBroker(t, messageKinds, withCapabilities(func(c *mqtt.Capabilities) { c.MaximumMessageExpiryInterval = 1 }))
	s := mustConnect(t, b.addr, rawConnect{ID: "s"})
	s.subscribe(1, "a")
	mustConnect(t, b.addr, rawConnect{ID: "p", Clean: true}).publish("a", "x", 1, false)
	s.expect(packets.Publish)
	s.fin()
	b.waitFor(t, `message_delivered a p->s qos1 "x"`)
	b.awaitNoMessages(t, "s") // the broker looks every second
}

func TestRestoredMessages(t *testing.T) {
	store := &storeHook{
		clients: []storage.Client{
			{ID: "s", ProtocolVersion: 4, Listener: "tcp"},
			{ID: "p", ProtocolVersion: 4, Listener: "tcp", Username: []byte("pu")},
		},
		msgs: []storage.Message{{Client: "s", Origin: "p", PacketID: 5, TopicName: "a", Payload: []byte("x"),
			Created: time.Now().Unix(), FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: 1}}},
	}
	b := startBroker(t, messageKinds, withHook(store))
	s := mustConnect(t, b.addr, rawConnect{ID: "s"})
	s.take()
	s.ping()
	wantLines(t, lines(b.waitFor(t, `message_acked a p/pu->s qos1 "x"`)), `message_delivered a p/pu->s qos1 "x"`, `message_acked a p/pu->s qos1 "x"`)
}

// A publisher that has gone is still named by what it published last.
func TestPublisherGone(t *testing.T) {
	b := startBroker(t, messageKinds)
	s := mustConnect(t, b.addr, rawConnect{ID: "s", Clean: true})
	s.subscribe(1, "a")
	s.ping() // the broker answers before it looks for retained messages
	p := mustConnect(t, b.addr, rawConnect{ID: "p", User: "pu", Clean: true})
	p.publish("a", "x", 1, true)
	p.disconnect(0)
	b.awaitClients(t, 1)
	s.take()
	s.ping()
	late := mustConnect(t, b.addr, rawConnect{ID: "late", Clean: true})
	late.subscribe(0, "a")
	late.expect(packets.Publish)
	b.waitFor(t, `message_acked a p/pu->s qos1 "x"`, `message_delivered a p/pu->late qos0 retain "x"`)
}

// TestNamedWhileLeaving asks for the user name of a client whose session ends:
// there is no moment without an answer.
func TestNamedWhileLeaving(t *testing.T) {
	h := new(Hook)
	h.watch(messageKinds)
	server := mqtt.New(&mqtt.Options{Logger: discardLogger()})
	for i := range 1000 {
		cl := server.NewClient(nil, "tcp", fmt.Sprint(i), false)
		cl.Properties.Username = []byte("u")
		s := h.sessions.lock(cl.ID)
		s.cl.Store(cl)
		h.sessions.unlock(s)
		asked := make(chan struct{})
		var ended atomic.Bool
		var asking sync.WaitGroup
		asking.Go(func() {
			close(asked)
			for more := true; more; {
				more = !ended.Load()
				if got := h.userOf(cl.ID); got != "u" {
					t.Errorf("got %q", got)
				}
			}
		})
		<-asked
		s = h.sessions.lock(cl.ID)
		h.forget(s)
		h.sessions.unlock(s)
		ended.Store(true)
		asking.Wait()
	}
}

func TestRecentNames(t *testing.T) {
	var n recentNames
	n.add("nobody", "")
	n.add("a", "1")
	n.add("a", "2")
	if got := n.find("a"); got != "2" {
		t.Errorf("got %q, want the latest", got)
	}
	for i := range 3 * recentNamesMax {
		n.add(fmt.Sprint(i), "u")
	}
	if got := len(n.recent) + len(n.older); got > 2*recentNamesMax {
		t.Errorf("%d names, want at most %d", got, 2*recentNamesMax)
	}
	if got := n.find("a"); got != "" {
		t.Errorf("got %q, want nothing", got)
	}
}

func BenchmarkDelivered(b *testing.B) {
	h := new(Hook)
	h.watch(messageKinds)
	h.OnStarted()
	ours, theirs := net.Pipe()
	defer ours.Close()
	defer theirs.Close()
	cl := mqtt.New(&mqtt.Options{Logger: discardLogger()}).NewClient(ours, "tcp", "s", false)
	h.OnPacketSent(cl, packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Connack}}, nil)
	h.OnSessionEstablished(cl, packets.Packet{})
	for qos := range byte(2) {
		b.Run(fmt.Sprintf("qos%d", qos), func(b *testing.B) {
			pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: qos}, PacketID: 1, TopicName: "a", Origin: "s"}
			ack := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Puback}, PacketID: 1}
			b.ReportAllocs()
			for b.Loop() {
				h.OnPacketSent(cl, pk, nil)
				if qos > 0 {
					_, _ = h.OnPacketRead(cl, ack)
				}
			}
		})
	}
}

// TestPacketIDReused has a broker that forgot a message, as it does with a receive
// maximum, and gave its id to another one, which was queued while the client was
// away, and so has DUP.
func TestPacketIDReused(t *testing.T) {
	var got []event
	h := observing(&got)
	server := mqtt.New(&mqtt.Options{Logger: discardLogger()})
	ours, theirs := net.Pipe()
	defer ours.Close()
	defer theirs.Close()
	cl := server.NewClient(ours, "tcp", "s", false)
	h.OnPacketSent(cl, packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Connack}, SessionPresent: true}, nil)
	h.OnSessionEstablished(cl, packets.Packet{})
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: 1}, PacketID: 1, TopicName: "a", Origin: "p", Payload: []byte("x"), Created: 5}
	h.OnPacketSent(cl, pk, nil)
	pk.TopicName, pk.Payload, pk.FixedHeader.Dup = "b", []byte("y"), true
	h.OnPacketSent(cl, pk, nil)
	h.OnPacketRead(cl, packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Puback}, PacketID: 1})
	wantLines(t, lines(got), `message_delivered a p->s qos1 "x"`, `message_delivered b p->s qos1 "y"`, `message_acked b p->s qos1 "y"`)
}

// TestEarlyMessagesOfABrokenConnection breaks a connection while the broker sends
// what waited for it, of which mochi tells no more: what was sent is reported
// before the session ends.
func TestEarlyMessagesOfABrokenConnection(t *testing.T) {
	for name, end := range map[string]func(h *Hook, old, next *mqtt.Client){
		"discarded": func(h *Hook, _, next *mqtt.Client) {
			h.OnPacketSent(next, packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Connack}}, nil)
		},
		"expired": func(h *Hook, old, _ *mqtt.Client) { h.OnClientExpired(old) },
	} {
		t.Run(name, func(t *testing.T) {
			var got []event
			h := Hook{observe: func(ev event) { got = append(got, ev) }}
			h.watch(messageKinds | kindsOf(kindConnected, kindTerminated))
			h.OnStarted()
			server := mqtt.New(&mqtt.Options{Logger: discardLogger()})
			client := func() *mqtt.Client {
				ours, theirs := net.Pipe()
				t.Cleanup(func() { ours.Close(); theirs.Close() })
				return server.NewClient(ours, "tcp", "s", false)
			}
			resumed := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Connack}, SessionPresent: true}
			first := client()
			h.OnPacketSent(first, packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Connack}}, nil)
			h.OnSessionEstablished(first, packets.Packet{})
			first.Stop(io.EOF)
			h.OnDisconnect(first, io.EOF, false)
			second := client()
			h.OnPacketSent(second, resumed, nil)
			h.OnPacketSent(second, packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: 1, Dup: true}, PacketID: 1, TopicName: "a", Origin: "p", Payload: []byte("x")}, nil)
			second.Stop(io.EOF)
			end(&h, second, client())
			if len(got) < 3 {
				t.Fatalf("%d events", len(got))
			}
			all := lines(got)
			if len(all) != 3 || all[1] != `message_delivered a p->s qos1 "x"` || !strings.HasPrefix(all[2], "session_terminated s") {
				t.Errorf("%q", all)
			}
		})
	}
}

// TestDelayedWillPublished: the time of a delayed will is the end of its delay.
func TestDelayedWillPublished(t *testing.T) {
	pk := packets.Packet{Created: 100}
	pk.Connect.WillProperties.WillDelayInterval = 7
	m := new(Hook).newMessage(new(session), nil, &pk)
	if m.published != 107 || !m.is(&pk) {
		t.Errorf("published at %d, the same message: %t", m.published, m.is(&pk))
	}
}

// TestLateSent has the client acknowledge a message, and its session end, before W
// gets to tell that it has written it: that is no other message.
func TestLateSent(t *testing.T) {
	var got []event
	h := Hook{observe: func(ev event) { got = append(got, ev) }}
	h.watch(messageKinds | kindsOf(kindTerminated))
	h.OnStarted()
	server := mqtt.New(&mqtt.Options{Logger: discardLogger()})
	ours, theirs := net.Pipe()
	defer ours.Close()
	defer theirs.Close()
	cl := server.NewClient(ours, "tcp", "s", false)
	cl.Properties.Clean = true
	h.OnPacketSent(cl, packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Connack}}, nil)
	h.OnSessionEstablished(cl, packets.Packet{})
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: 1}, PacketID: 1, TopicName: "a", Origin: "p", Payload: []byte("x")}
	cl.State.Inflight.Set(pk)
	h.OnPacketRead(cl, packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Puback}, PacketID: 1})
	cl.Stop(io.EOF)
	h.OnDisconnect(cl, io.EOF, true)
	h.OnUnsubscribed(cl, packets.Packet{})
	h.OnPacketSent(cl, pk, nil)
	wantLines(t, lines(got), `message_delivered a p->s qos1 "x"`, `message_acked a p->s qos1 "x"`, "session_terminated s tcp_closed")
}

// callConnack makes the callbacks of a connection, which has a session's messages in
// flight if it resumes it, until the broker sends those.
func callConnack(t *testing.T, h *Hook, user string, resumed bool, inFlight ...packets.Packet) *mqtt.Client {
	ours, theirs := net.Pipe()
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	cl := mqtt.New(&mqtt.Options{Logger: discardLogger()}).NewClient(ours, "tcp", "s", false)
	cl.Properties.Username = []byte(user)
	for _, pk := range inFlight {
		cl.State.Inflight.Set(pk)
	}
	h.OnPacketSent(cl, packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Connack}, SessionPresent: resumed}, nil)
	return cl
}

// callAck makes those of an acknowledgement, which takes the message out of flight.
func callAck(h *Hook, cl *mqtt.Client, typ byte, id uint16) {
	ack := packets.Packet{FixedHeader: packets.FixedHeader{Type: typ}, PacketID: id}
	_, _ = h.OnPacketRead(cl, ack)
	if cl.State.Inflight.Delete(id) && typ != packets.Pubrec {
		h.OnQosComplete(cl, ack)
	}
}

// callResend makes those of a connection that is sent a message again, and is then
// established.
func callResend(h *Hook, cl *mqtt.Client, pk packets.Packet) {
	pk.FixedHeader.Dup = true
	h.OnPacketSent(cl, pk, nil)
	h.OnSessionEstablished(cl, packets.Packet{})
}

// messageTo is a message with packet id 1.
func messageTo(topic string) packets.Packet {
	return packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: 1}, PacketID: 1, TopicName: topic, Origin: "p", Payload: []byte("x"), Created: 5}
}

// TestLateSentOfTheSessionBefore has W tell late what it has written to a client whose
// session has ended: that is not the message of the next session, perhaps another
// user's, that has the same packet id.
func TestLateSentOfTheSessionBefore(t *testing.T) {
	for name, late := range map[string]func(sentOld, sentNew, acked func()){
		"after the other message": func(sentOld, sentNew, acked func()) { sentNew(); sentOld(); acked() },
		"before it":               func(sentOld, sentNew, acked func()) { sentOld(); sentNew(); acked() },
		"before both are late":    func(sentOld, sentNew, acked func()) { sentOld(); acked(); sentNew() },
	} {
		t.Run(name, func(t *testing.T) {
			var got []event
			h := observing(&got)
			old := callConnack(t, h, "old", false)
			h.OnSessionEstablished(old, packets.Packet{})
			callEnd(h, old, true)
			pk := messageTo("new")
			next := callConnack(t, h, "new", false, pk)
			h.OnSessionEstablished(next, packets.Packet{})
			late(
				func() { h.OnPacketSent(old, messageTo("old"), nil) },
				func() { h.OnPacketSent(next, pk, nil) },
				func() { callAck(h, next, packets.Puback, 1) })
			all := lines(got)
			slices.Sort(all)
			wantLines(t, all, `message_acked new p->s/new qos1 "x"`, `message_delivered new p->s/new qos1 "x"`, `message_delivered old p->s/old qos1 "x"`)
		})
	}
}

// TestLateSentOfResumedSession has a message acknowledged, and its packet id given to
// another one by the next connection, before W tells that it has written it.
func TestLateSentOfResumedSession(t *testing.T) {
	for qos := byte(1); qos <= 2; qos++ {
		t.Run(fmt.Sprintf("qos%d", qos), func(t *testing.T) {
			var got []event
			h := observing(&got)
			first, second := messageTo("first"), messageTo("second")
			first.FixedHeader.Qos = qos
			old := callConnack(t, h, "", false, first)
			h.OnSessionEstablished(old, packets.Packet{})
			if qos == 1 {
				callAck(h, old, packets.Puback, 1)
			} else {
				callAck(h, old, packets.Pubrec, 1)
			}
			callEnd(h, old, false)
			next := callConnack(t, h, "", true, packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pubrel}, PacketID: 1})
			h.OnSessionEstablished(next, packets.Packet{})
			if qos == 2 {
				callAck(h, next, packets.Pubcomp, 1)
			}
			h.OnPacketSent(next, second, nil)
			h.OnPacketSent(old, first, nil)
			callAck(h, next, packets.Puback, 1)
			wantLines(t, lines(got),
				fmt.Sprintf(`message_delivered first p->s qos%d "x"`, qos), fmt.Sprintf(`message_acked first p->s qos%d "x"`, qos),
				`message_delivered second p->s qos1 "x"`, `message_acked second p->s qos1 "x"`)
			if n := h.messageCount("s"); n != 0 {
				t.Errorf("%d messages remembered", n)
			}
		})
	}
}

// TestLateSentWhileResuming has W of the connection before tell what it has written
// before R of the next one sends it again.
func TestLateSentWhileResuming(t *testing.T) {
	var got []event
	h := observing(&got)
	old := callConnack(t, h, "", false, messageTo("a"))
	h.OnSessionEstablished(old, packets.Packet{})
	pk, _ := old.State.Inflight.Get(1)
	old.Stop(packets.ErrSessionTakenOver)
	next := callConnack(t, h, "", true, pk)
	h.OnPacketSent(old, pk, nil)
	callResend(h, next, pk)
	callAck(h, next, packets.Puback, 1)
	wantLines(t, lines(got), `message_delivered a p->s qos1 "x"`, `message_acked a p->s qos1 "x"`)
}

// TestForgottenMessage has a broker that forgot a message, as it does with a receive
// maximum, and gave its id to one of the next connection, whose acknowledgement comes
// before its OnPacketSent.
func TestForgottenMessage(t *testing.T) {
	var got []event
	h := observing(&got)
	first := callConnack(t, h, "", false)
	h.OnSessionEstablished(first, packets.Packet{})
	h.OnPacketSent(first, messageTo("forgotten"), nil)
	callEnd(h, first, false)
	next := callConnack(t, h, "", true)
	h.OnSessionEstablished(next, packets.Packet{})
	if n := h.messageCount("s"); n != 0 {
		t.Errorf("%d messages remembered", n)
	}
	pk := messageTo("a")
	next.State.Inflight.Set(pk)
	callAck(h, next, packets.Puback, 1)
	h.OnPacketSent(next, pk, nil)
	wantLines(t, lines(got), `message_delivered forgotten p->s qos1 "x"`, `message_delivered a p->s qos1 "x"`, `message_acked a p->s qos1 "x"`)
}

// TestPublishedWhileResuming has R send a message again that W has in its queue, too,
// as it does with what is published while a session resumes: it is one message.
func TestPublishedWhileResuming(t *testing.T) {
	const delivered, acked = `message_delivered a p->s qos1 "x"`, `message_acked a p->s qos1 "x"`
	for name, c := range map[string]struct {
		do   func(t *testing.T, h *Hook, cl *mqtt.Client, queued packets.Packet)
		want []string
	}{
		"sent after the acknowledgement": {func(_ *testing.T, h *Hook, cl *mqtt.Client, queued packets.Packet) {
			h.OnPacketSent(cl, queued, nil)
			callAck(h, cl, packets.Puback, 1)
		}, nil},
		"sent after the end of the session": {func(_ *testing.T, h *Hook, cl *mqtt.Client, queued packets.Packet) {
			callEnd(h, cl, true)
			h.OnPacketSent(cl, queued, nil)
		}, nil},
		"sent after the next connection": {func(t *testing.T, h *Hook, cl *mqtt.Client, queued packets.Packet) {
			callEnd(h, cl, false)
			callConnack(t, h, "", true)
			h.OnPacketSent(cl, queued, nil)
		}, nil},
		"not sent": {func(_ *testing.T, h *Hook, _ *mqtt.Client, _ packets.Packet) {
			if n := h.messageCount("s"); n != 1 {
				t.Errorf("%d messages remembered", n)
			}
			time.Sleep(lateWait)
			synctest.Wait()
		}, nil},
		"not sent, and its packet id is another message's": {func(_ *testing.T, h *Hook, cl *mqtt.Client, _ packets.Packet) {
			other := messageTo("b")
			cl.State.Inflight.Set(other)
			callAck(h, cl, packets.Puback, 1)
			h.OnPacketSent(cl, other, nil)
		}, []string{`message_delivered b p->s qos1 "x"`, `message_acked b p->s qos1 "x"`}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var got []event
				h := observing(&got)
				queued := messageTo("a")
				cl := callConnack(t, h, "", true, queued)
				callResend(h, cl, queued)
				callAck(h, cl, packets.Puback, 1)
				c.do(t, h, cl, queued)
				wantLines(t, lines(got), append([]string{delivered, acked}, c.want...)...)
				if n := h.messageCount("s"); n != 0 {
					t.Errorf("%d messages remembered", n)
				}
			})
		})
	}
}

// TestAckMeetsTakeover has a connection taken over between the hook's sight of an
// acknowledgement and the broker's, which may send the message again then.
func TestAckMeetsTakeover(t *testing.T) {
	puback := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Puback}, PacketID: 1}
	refusal := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pubrec}, PacketID: 1, ReasonCode: 0x80}
	for name, c := range map[string]struct {
		qos   byte
		ack   packets.Packet
		along bool // with the message in flight
		want  []string
	}{
		"PUBACK":                  {1, puback, true, []string{`message_delivered a p->s qos1 "x"`, `message_acked a p->s qos1 "x"`}},
		"PUBACK, not sent again":  {1, puback, false, []string{`message_delivered a p->s qos1 "x"`, `message_acked a p->s qos1 "x"`}},
		"PUBREC that refuses":     {2, refusal, true, []string{`message_delivered a p->s qos2 "x"`}},
		"refusal, not sent again": {2, refusal, false, []string{`message_delivered a p->s qos2 "x"`}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []event
			h := observing(&got)
			pk := messageTo("a")
			pk.FixedHeader.Qos = c.qos
			old := callConnack(t, h, "", false, pk)
			h.OnSessionEstablished(old, packets.Packet{})
			h.OnPacketSent(old, pk, nil)
			_, _ = h.OnPacketRead(old, c.ack)
			old.Stop(packets.ErrSessionTakenOver)
			if c.qos == 1 { // OnQosDropped does nothing then
				h.OnQosComplete(old, c.ack)
			}
			if c.along {
				next := callConnack(t, h, "", true, pk)
				callResend(h, next, pk)
				_, _ = h.OnPacketRead(next, c.ack)
				if c.qos == 1 {
					h.OnQosComplete(next, c.ack)
				} else {
					h.OnQosDropped(next, c.ack)
				}
			} else {
				callConnack(t, h, "", true)
			}
			wantLines(t, lines(got), c.want...)
			if n := h.messageCount("s"); n != 0 {
				t.Errorf("%d messages remembered", n)
			}
		})
	}
}

// TestAckComesAfterTakeover has a connection read an acknowledgement when another one
// has taken along what it had in flight, and is about to send that again.
func TestAckComesAfterTakeover(t *testing.T) {
	var got []event
	h := observing(&got)
	pk := messageTo("a")
	old := callConnack(t, h, "", false, pk)
	h.OnSessionEstablished(old, packets.Packet{})
	h.OnPacketSent(old, pk, nil)
	old.Stop(packets.ErrSessionTakenOver)
	old.State.Inflight.Delete(1)
	callAck(h, old, packets.Puback, 1)
	next := callConnack(t, h, "", true, pk)
	callResend(h, next, pk)
	callAck(h, next, packets.Puback, 1)
	wantLines(t, lines(got), `message_delivered a p->s qos1 "x"`, `message_acked a p->s qos1 "x"`)
	if n := h.messageCount("s"); n != 0 {
		t.Errorf("%d messages remembered", n)
	}
}

// TestLateSentOfWhatWasSentAgain has W tell what it has written when the next connection
// has sent it again and its client has acknowledged it.
func TestLateSentOfWhatWasSentAgain(t *testing.T) {
	var got []event
	h := observing(&got)
	pk := messageTo("a")
	old := callConnack(t, h, "", false, pk)
	h.OnSessionEstablished(old, packets.Packet{})
	callEnd(h, old, false)
	next := callConnack(t, h, "", true, pk)
	callResend(h, next, pk)
	callAck(h, next, packets.Puback, 1)
	h.OnPacketSent(next, pk, nil) // it was in W's queue, too
	h.OnPacketSent(old, pk, nil)
	wantLines(t, lines(got), `message_delivered a p->s qos1 "x"`, `message_acked a p->s qos1 "x"`)
}

// A saltHook makes the payload anew for each client and each time, as one that
// encrypts does.
type saltHook struct {
	mqtt.HookBase
	sent atomic.Int64
}

func (*saltHook) ID() string           { return "salt" }
func (*saltHook) Provides(b byte) bool { return b == mqtt.OnPacketEncode }

func (s *saltHook) OnPacketEncode(_ *mqtt.Client, pk packets.Packet) packets.Packet {
	if pk.FixedHeader.Type == packets.Publish {
		pk.Payload = fmt.Appendf(nil, "%s%d", pk.Payload, s.sent.Add(1))
	}
	return pk
}

// TestPayloadMadeAnew has another hook make another payload of a message each time that
// it is sent.
func TestPayloadMadeAnew(t *testing.T) {
	b := startBroker(t, messageKinds, withHook(new(saltHook)))
	sub := mustConnect(t, b.addr, rawConnect{ID: "s"})
	sub.subscribe(1, "a")
	p := mustConnect(t, b.addr, rawConnect{ID: "p", Clean: true})
	p.publish("a", "x", 1, false)
	sub.expect(packets.Publish)
	b.waitFor(t, `message_delivered a p->s qos1 "x1"`)
	sub.disconnect(0)
	sub = mustConnect(t, b.addr, rawConnect{ID: "s"})
	sub.take()
	sub.ping()
	sub.disconnect(0)
	p.disconnect(0)
	b.awaitNoMessages(t, "s")
	wantLines(t, lines(b.all()), `message_delivered a p->s qos1 "x1"`, `message_acked a p->s qos1 "x1"`)
}

// TestRetainedAgain has a client subscribe once more when it has acknowledged a retained
// message that the connection before did not get to send: that has the same packet id.
func TestRetainedAgain(t *testing.T) {
	var got []event
	h := observing(&got)
	pk := messageTo("a")
	pk.FixedHeader.Retain = true
	pk, _ = h.OnPublish(&mqtt.Client{ID: "p"}, pk)
	first, second := pk.Copy(true), pk.Copy(true)
	cl := callConnack(t, h, "", true, first)
	callResend(h, cl, first)
	callAck(h, cl, packets.Puback, 1)
	cl.State.Inflight.Set(second)
	h.OnPacketSent(cl, second, nil)
	const delivered, acked = `message_delivered a p->s qos1 retain "x"`, `message_acked a p->s qos1 retain "x"`
	wantLines(t, lines(got), delivered, acked, delivered)
}
