package webhook

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

func eachVersion(t *testing.T, f func(t *testing.T, version byte)) {
	for _, v := range []byte{3, 4, 5} {
		t.Run(fmt.Sprintf("v%d", v), func(t *testing.T) { f(t, v) })
	}
}

func TestClientLife(t *testing.T) {
	eachVersion(t, func(t *testing.T, v byte) {
		b := startBroker(t, allKinds)
		c := mustConnect(t, b.addr, rawConnect{Version: v, ID: "c", User: "u", Clean: true, Keepalive: 77})
		c.subscribe(1, "a/b")
		c.publish("x", "hi", 1, false)
		c.unsubscribe("a/b")
		c.disconnect(0)
		events := b.waitFor(t, "session_terminated c/u normal")
		wantLines(t, lines(events),
			"connect c/u",
			"connack c/u",
			"connected c/u",
			"subscribe c/u a/b qos1",
			"session_subscribed c/u a/b qos1",
			`message_publish c/u x qos1 "hi"`,
			"unsubscribe c/u a/b",
			"session_unsubscribed c/u a/b",
			"disconnected c/u normal",
			"session_terminated c/u normal",
		)
		for _, ev := range events[:3] {
			if ev.protoVer != v || ev.keepalive != 77 {
				t.Errorf("%s: proto_ver %d, keepalive %d, want %d, 77", eventLine(&ev), ev.protoVer, ev.keepalive, v)
			}
			if ev.kind != kindConnack && ev.ip != "127.0.0.1" {
				t.Errorf("%s: ip %q, want 127.0.0.1", eventLine(&ev), ev.ip)
			}
			if ev.lane != laneClient {
				t.Errorf("%s: lane %d, want the client's", eventLine(&ev), ev.lane)
			}
		}
	})
}

func TestRefusals(t *testing.T) {
	tests := []struct {
		name    string
		options []brokerOption
		connect rawConnect
		user    string
	}{
		{"password", nil, rawConnect{ID: "c", User: "u", Password: "wrong"}, "/u"},
		{"password v3", nil, rawConnect{Version: 3, ID: "c", User: "u", Password: "wrong"}, "/u"},
		{"password v5", nil, rawConnect{Version: 5, ID: "c", User: "u", Password: "wrong"}, "/u"},
		{"server full", []brokerOption{withCapabilities(func(c *mqtt.Capabilities) { c.MaximumClients = 0 })}, rawConnect{ID: "c"}, ""},
		{"server full v5", []brokerOption{withCapabilities(func(c *mqtt.Capabilities) { c.MaximumClients = 0 })}, rawConnect{Version: 5, ID: "c"}, ""},
		{"level 6", nil, rawConnect{Version: 6, ID: "c"}, ""},
		{"old version", []brokerOption{withCapabilities(func(c *mqtt.Capabilities) { c.MinimumProtocolVersion = 5 })}, rawConnect{ID: "c"}, ""},
		{"will qos", []brokerOption{withCapabilities(func(c *mqtt.Capabilities) { c.MaximumQos = 0 })},
			rawConnect{Version: 5, ID: "c", Will: &rawWill{Topic: "w", Payload: "p", QoS: 1}}, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			b := startBroker(t, allKinds, test.options...)
			for range 2 {
				c, ack := dialConnect(t, b.addr, test.connect)
				if ack.ReasonCode == 0 {
					t.Fatal("accepted")
				}
				c.awaitClose()
			}
			connect, connack := "connect c"+test.user, "connack c"+test.user+" fail"
			events := b.waitFor(t, connect, connack, connect, connack)
			if len(events) != 4 {
				t.Fatalf("got %q", lines(events))
			}
			conns := map[uint64]int{}
			for _, ev := range events {
				if ev.lane != laneConn || ev.conn == 0 {
					t.Errorf("%s: lane %d conn %d, want one of its own", eventLine(&ev), ev.lane, ev.conn)
				}
				conns[ev.conn]++
			}
			if len(conns) != 2 {
				t.Errorf("lanes %v, want two", conns)
			}
			if n := b.hook.sessionCount(); n != 0 {
				t.Errorf("%d sessions remembered", n)
			}
		})
	}
	t.Run("no client id", func(t *testing.T) {
		b := startBroker(t, allKinds)
		c, _ := dialConnect(t, b.addr, rawConnect{})
		c.awaitClose()
		events := b.wait(t, func(evs []event) bool { return len(evs) == 2 })
		if events[0].client == "" || events[0].client != events[1].client || events[1].accepted {
			t.Errorf("got %q", lines(events))
		}
	})
	t.Run("by another hook with a CONNACK", func(t *testing.T) {
		b := startBroker(t, allKinds)
		b.gate.onConnect = func(cl *mqtt.Client) error {
			_ = b.server.SendConnack(cl, packets.ErrBanned, false, nil)
			return packets.ErrBanned
		}
		c, _ := dialConnect(t, b.addr, rawConnect{ID: "c"})
		c.awaitClose()
		wantLines(t, lines(b.waitFor(t, "connack c fail")), "connect c", "connack c fail")
	})
}

func TestNoConnackNoEvents(t *testing.T) {
	b := startBroker(t, allKinds)
	b.gate.onConnect = func(cl *mqtt.Client) error {
		if cl.ID == "refused" {
			return errors.New("no")
		}
		return nil
	}
	for name, bytes := range map[string]string{
		"garbage":       "\xff\xff\xff\xff",
		"not connect":   "\xc0\x00",
		"malformed":     "\x10\x04\x00\x09MQ",
		"bad utf-8 id":  "\x10\x0e\x00\x04MQTT\x04\x02\x00\x0a\x00\x02\xff\xfe",
		"half a packet": "\x10\x0e\x00\x04MQ",
		"nothing":       "",
	} {
		t.Run(name, func(t *testing.T) {
			c := rawDial(t, b.addr)
			c.write([]byte(bytes))
			c.fin()
		})
	}
	t.Run("another hook's error", func(t *testing.T) {
		c := rawDial(t, b.addr)
		c.send(rawConnect{ID: "refused"}.packet())
		c.awaitClose()
	})
	mustConnect(t, b.addr, rawConnect{ID: "last", Clean: true}).disconnect(0)
	wantLines(t, lines(b.waitFor(t, "session_terminated last normal")),
		"connect last", "connack last", "connected last", "disconnected last normal", "session_terminated last normal")
}

func TestSubscriptionEvents(t *testing.T) {
	b := startBroker(t, kindsOf(kindSubscribe, kindSubscribed, kindUnsubscribe, kindUnsubscribed),
		withCapabilities(func(c *mqtt.Capabilities) { c.MaximumQos = 1 }))
	c := mustConnect(t, b.addr, rawConnect{ID: "c", Clean: true})
	c.subscribe(2, "a/+", "denied/x", "$share/g/b/#", "a/#/b")
	c.subscribe(0, "a/+")
	c.unsubscribe("a/+", "never", "a/+", "$share/g/b/#")
	c.subscribe(0, "left")
	_ = b.server.Subscribe("inline/#", 1, func(*mqtt.Client, packets.Subscription, packets.Packet) {})
	_ = b.server.Unsubscribe("inline/#", 1)
	c.disconnect(0)
	b.awaitGone(t)
	wantLines(t, b.lines(),
		"subscribe c a/+ qos2",
		"subscribe c denied/x qos2",
		"subscribe c $share/g/b/# qos2",
		"subscribe c a/#/b qos2",
		"session_subscribed c a/+ qos1",
		"session_subscribed c $share/g/b/# qos1",
		"subscribe c a/+ qos0",
		"session_subscribed c a/+ qos0",
		"unsubscribe c a/+",
		"unsubscribe c never",
		"unsubscribe c a/+",
		"unsubscribe c $share/g/b/#",
		"session_unsubscribed c a/+",
		"session_unsubscribed c $share/g/b/#",
		"subscribe c left qos0",
		"session_subscribed c left qos0",
	)
	n := 0
	b.hook.leaving.Range(func(any, any) bool { n++; return true })
	if n != 0 {
		t.Errorf("%d UNSUBSCRIBEs remembered", n)
	}
}

// A SUBSCRIBE or UNSUBSCRIBE whose packet id is in use is refused by the broker.
func TestSubscriptionPacketIDInUse(t *testing.T) {
	b := startBroker(t, kindsOf(kindSubscribed, kindUnsubscribed))
	c := mustConnect(t, b.addr, rawConnect{Version: 5, ID: "c", Clean: true})
	c.subscribe(1, "a")
	mustConnect(t, b.addr, rawConnect{ID: "p", Clean: true}).publish("a", "1", 1, false)
	id := c.expect(packets.Publish).PacketID
	for _, typ := range []byte{packets.Subscribe, packets.Unsubscribe} {
		c.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: typ, Qos: 1}, PacketID: id,
			Filters: packets.Subscriptions{{Filter: "a"}}})
		c.expect(typ + 1)
	}
	wantLines(t, b.lines(), "session_subscribed c a qos1")
}

func TestPublishEvents(t *testing.T) {
	eachVersion(t, func(t *testing.T, v byte) {
		b := startBroker(t, kindsOf(kindPublish))
		c := mustConnect(t, b.addr, rawConnect{Version: v, ID: "c", User: "u", Clean: true})
		c.publish("a", "0", 0, false)
		c.publish("a", "1", 1, true)
		c.publish("a", "2", 2, false)
		c.publish("a", "", 1, true)
		c.publish("ignored", "x", 0, false)
		c.publish("denied", "x", 0, false)
		c.publish("rejected", "x", 0, false)
		c.publish("$SYS/x", "x", 0, false)
		c.publish("failing", "published all the same", 0, false)
		twice := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: 2},
			PacketID: 7, TopicName: "twice", Payload: []byte("x")}
		c.send(twice)
		c.expect(packets.Pubrec)
		twice.FixedHeader.Dup = true
		c.send(twice)
		c.expect(packets.Pubrec)
		c.ack(packets.Pubrel, 7)
		c.expect(packets.Pubcomp)
		if err := b.server.Publish("inline", []byte("x"), true, 1); err != nil {
			t.Fatal(err)
		}
		cl, _ := b.server.Clients.Get("c")
		inject := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish}, TopicName: "injected", Payload: []byte("x")}
		if err := b.server.InjectPacket(cl, inject); err != nil {
			t.Fatal(err)
		}
		wantLines(t, b.lines(),
			`message_publish c/u a qos0 "0"`,
			`message_publish c/u a qos1 retain "1"`,
			`message_publish c/u a qos2 "2"`,
			`message_publish c/u a qos1 retain ""`,
			`message_publish c/u failing qos0 "published all the same"`,
			`message_publish c/u twice qos2 "x"`,
			`message_publish inline inline qos1 retain "x"`,
			`message_publish c/u injected qos0 "x"`,
		)
		for _, ev := range b.all() {
			want := laneClient
			if ev.from == "inline" {
				want = laneTopic
			}
			if ev.lane != want {
				t.Errorf("%s: lane %d, want %d", eventLine(&ev), ev.lane, want)
			}
		}
	})
}

func TestPublishTopicAlias(t *testing.T) {
	b := startBroker(t, kindsOf(kindPublish))
	c := mustConnect(t, b.addr, rawConnect{Version: 5, ID: "c", Clean: true})
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish}, TopicName: "long/topic",
		Properties: packets.Properties{TopicAlias: 3, TopicAliasFlag: true}}
	c.send(pk)
	pk.TopicName = ""
	c.send(pk)
	pk.Properties.TopicAlias = 4 // unknown
	c.send(pk)
	c.ping()
	wantLines(t, b.lines(), `message_publish c long/topic qos0 ""`, `message_publish c long/topic qos0 ""`)
}

func TestWills(t *testing.T) {
	kinds := lifecycle | kindsOf(kindPublish)
	will := &rawWill{Topic: "w", Payload: "gone", QoS: 1, Retain: true}
	const published = `message_publish c/u w qos1 retain "gone"`
	eachVersion(t, func(t *testing.T, v byte) {
		t.Run("connection lost", func(t *testing.T) {
			b := startBroker(t, kinds)
			mustConnect(t, b.addr, rawConnect{Version: v, ID: "c", User: "u", Clean: true, Will: will}).fin()
			wantLines(t, lines(b.waitFor(t, "session_terminated c/u tcp_closed"))[3:],
				published, "disconnected c/u tcp_closed", "session_terminated c/u tcp_closed")
		})
		t.Run("DISCONNECT", func(t *testing.T) {
			b := startBroker(t, kinds)
			mustConnect(t, b.addr, rawConnect{Version: v, ID: "c", User: "u", Clean: true, Will: will}).disconnect(0)
			wantLines(t, lines(b.waitFor(t, "session_terminated c/u normal"))[3:],
				"disconnected c/u normal", "session_terminated c/u normal")
		})
		t.Run("takeover", func(t *testing.T) {
			b := startBroker(t, kinds)
			for i := range 5 { // now and then the broker loses a will
				connect := rawConnect{Version: v, ID: fmt.Sprint("c", i), User: "u", Clean: true, Will: will}
				mustConnect(t, b.addr, connect).ping()
				mustConnect(t, b.addr, connect).disconnect(0)
			}
			b.wait(t, func(events []event) bool {
				return slices.ContainsFunc(events, func(ev event) bool {
					return ev.kind == kindPublish && strings.HasPrefix(ev.from, "c") && ev.fromUser == "u" && ev.topic == "w"
				})
			})
		})
		t.Run("server stop", func(t *testing.T) {
			b := startBroker(t, kinds)
			c := mustConnect(t, b.addr, rawConnect{Version: v, ID: "c", User: "u", Clean: true, Will: will})
			b.waitFor(t, "connected c/u")
			b.stop()
			c.awaitClose()
			got := b.lines()[3:]
			if got[0] == published { // now and then the broker loses it
				got = got[1:]
			}
			wantLines(t, got, "disconnected c/u server_shutdown", "session_terminated c/u server_shutdown")
		})
	})
	t.Run("DISCONNECT with will", func(t *testing.T) {
		b := startBroker(t, kinds)
		mustConnect(t, b.addr, rawConnect{Version: 5, ID: "c", User: "u", Clean: true, Will: will}).disconnect(4)
		wantLines(t, lines(b.waitFor(t, "session_terminated c/u disconnect_with_will"))[3:],
			published, "disconnected c/u disconnect_with_will", "session_terminated c/u disconnect_with_will")
	})
	t.Run("delayed", func(t *testing.T) {
		b := startBroker(t, kinds)
		delayed := *will
		delayed.Delay = 1
		mustConnect(t, b.addr, rawConnect{Version: 5, ID: "c", User: "u", Clean: true, Expiry: 60, Will: &delayed}).fin()
		wantLines(t, lines(b.waitFor(t, published))[3:], "disconnected c/u tcp_closed", published)
	})
}

func TestProvides(t *testing.T) {
	var h Hook
	for b := range byte(255) {
		if h.Provides(b) {
			t.Errorf("Provides(%d) without a rule", b)
		}
	}
	h.watch(kindsOf(kindPublish))
	for b := range byte(255) {
		if got, want := h.Provides(b), b == mqtt.OnPublished || b == mqtt.OnWillSent; got != want {
			t.Errorf("message_publish: Provides(%d) = %v, want %v", b, got, want)
		}
	}
	h.watch(kindsOf(kindConnack))
	for b := range byte(255) {
		if got, want := h.Provides(b), b == mqtt.OnPacketSent; got != want {
			t.Errorf("client_connack: Provides(%d) = %v, want %v", b, got, want)
		}
	}
	h.watch(allKinds)
	h.watch(0)
	if !h.Provides(mqtt.OnDisconnect) || h.Provides(mqtt.OnPublished) {
		t.Error("what is tracked must go on when the rules change")
	}
}

// The hook's methods may be called with clients that are not in any broker.
func TestCallbacksWithBareClients(t *testing.T) {
	for _, kinds := range []uint32{0, allKinds} {
		var h Hook
		if kinds != 0 {
			h = Hook{observe: func(event) {}}
		}
		h.watch(kinds)
		for _, cl := range []*mqtt.Client{{}, {ID: "c"}, {ID: "inline", Net: mqtt.ClientConnection{Inline: true}}} {
			h.OnStarted()
			for typ := range byte(16) {
				pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: typ, Qos: typ % 3}, PacketID: uint16(typ % 2),
					Filters: packets.Subscriptions{{Filter: "a"}}, TopicName: "a"}
				h.OnPacketSent(cl, pk, nil)
				_, _ = h.OnPacketRead(cl, pk)
				h.OnSubscribe(cl, pk)
				h.OnSubscribed(cl, pk, nil)
				h.OnUnsubscribe(cl, pk)
				h.OnUnsubscribed(cl, pk)
				h.OnPublished(cl, pk)
				h.OnWillSent(cl, pk)
				h.OnQosPublish(cl, pk, 0, 0)
				h.OnQosDropped(cl, pk)
				h.OnSessionEstablished(cl, pk)
				h.OnDisconnect(cl, nil, typ%2 == 0)
				h.OnClientExpired(cl)
			}
		}
	}
}

func TestPublishPathDoesNotAllocate(t *testing.T) {
	n := 0
	h := Hook{observe: func(event) { n++ }}
	h.watch(kindsOf(kindPublish))
	cl, pk := publishArguments()
	if got := testing.AllocsPerRun(100, func() { h.OnPublished(cl, pk) }); got != 0 {
		t.Errorf("%v allocations per message", got)
	}
	if n == 0 {
		t.Error("no event")
	}
}

func publishArguments() (*mqtt.Client, packets.Packet) {
	cl := mqtt.New(&mqtt.Options{Logger: discardLogger()}).NewClient(nil, "tcp", "client-1", false)
	cl.Properties.Username = []byte("user")
	return cl, packets.Packet{TopicName: "site/1/dev/2/temp", Payload: []byte("21.5")}
}

func BenchmarkOnPublished(b *testing.B) {
	cl, pk := publishArguments()
	for _, kinds := range []uint32{0, kindsOf(kindPublish)} {
		b.Run(fmt.Sprintf("wanted=%v", kinds != 0), func(b *testing.B) {
			h := new(Hook)
			h.watch(kinds)
			var hook mqtt.Hook = h
			b.ReportAllocs()
			for b.Loop() {
				hook.OnPublished(cl, pk)
			}
		})
	}
}
