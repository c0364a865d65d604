package webhook

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"
	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/hooks/storage"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/mochi-mqtt/server/v2/system"
)

// Every way a connection can end, with a session that ends with it and with
// one that does not.
func TestReasons(t *testing.T) {
	disconnect := func(code byte) func(*testing.T, *testBroker, *rawClient) {
		return func(_ *testing.T, _ *testBroker, c *rawClient) { c.disconnect(code) }
	}
	send := func(bytes string) func(*testing.T, *testBroker, *rawClient) {
		return func(_ *testing.T, _ *testBroker, c *rawClient) { c.write([]byte(bytes)); c.awaitClose() }
	}
	kick := func(code packets.Code) func(*testing.T, *testBroker, *rawClient) {
		return func(_ *testing.T, b *testBroker, c *rawClient) {
			cl, _ := b.server.Clients.Get("c")
			_ = b.server.DisconnectClient(cl, code)
			c.awaitClose()
		}
	}
	tests := []struct {
		name     string
		versions []byte
		connect  rawConnect
		end      func(*testing.T, *testBroker, *rawClient)
		want     string
	}{
		{"DISCONNECT", nil, rawConnect{}, disconnect(0), "normal"},
		{"DISCONNECT unspecified", []byte{5}, rawConnect{}, disconnect(0x80), "unspecified_error"},
		{"DISCONNECT quota", []byte{5}, rawConnect{}, disconnect(0x97), "quota_exceeded"},
		{"DISCONNECT administrative", []byte{5}, rawConnect{}, disconnect(0x98), "administrative_action"},
		{"DISCONNECT with will", []byte{5}, rawConnect{}, disconnect(0x04), "disconnect_with_will"},
		{"FIN", nil, rawConnect{}, func(_ *testing.T, _ *testBroker, c *rawClient) { c.fin() }, "tcp_closed"},
		{"RST", nil, rawConnect{}, func(_ *testing.T, _ *testBroker, c *rawClient) { c.rst() }, "tcp_closed"},
		{"FIN within a packet", nil, rawConnect{}, func(_ *testing.T, _ *testBroker, c *rawClient) { c.write([]byte("\x30\x10\x00")); c.fin() }, "tcp_closed"},
		{"keepalive", nil, rawConnect{Keepalive: 1}, func(_ *testing.T, _ *testBroker, c *rawClient) { c.awaitClose() }, "keepalive_timeout"},
		{"DisconnectClient administrative", nil, rawConnect{}, kick(packets.ErrAdministrativeAction), "kicked"},
		{"DisconnectClient not authorized", nil, rawConnect{}, kick(packets.ErrNotAuthorized), "not_authorized"},
		{"DisconnectClient 0x00", nil, rawConnect{}, kick(packets.CodeDisconnect), "kicked"},
		{"Stop", nil, rawConnect{}, func(_ *testing.T, b *testBroker, c *rawClient) {
			cl, _ := b.server.Clients.Get("c")
			cl.Stop(errors.New("enough"))
			c.awaitClose()
		}, "kicked"},
		{"server stop", nil, rawConnect{}, func(_ *testing.T, b *testBroker, c *rawClient) { b.stop(); c.awaitClose() }, "server_shutdown"},
		{"second CONNECT", nil, rawConnect{}, func(_ *testing.T, _ *testBroker, c *rawClient) {
			c.send(rawConnect{Version: c.version, ID: "other"}.packet())
			c.awaitClose()
		}, "protocol_error"},
		{"packet type 0", nil, rawConnect{}, send("\x00\x00"), "protocol_error"},
		{"CONNACK from a client", []byte{3, 4}, rawConnect{}, send("\x20\x02\x00\x00"), "protocol_error"},
		{"malformed length", nil, rawConnect{}, send("\x30\xff\xff\xff\xff\x01"), "malformed_packet"},
		{"malformed topic", nil, rawConnect{}, send("\x30\x03\x00\x09a"), "malformed_packet"},
		{"wildcard in a topic", []byte{3, 4}, rawConnect{}, send("\x30\x03\x00\x01#"), "protocol_error"},
	}
	for _, test := range tests {
		if test.versions == nil {
			test.versions = []byte{3, 4, 5}
		}
		for _, v := range test.versions {
			for _, persistent := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/v%d/persistent=%v", test.name, v, persistent), func(t *testing.T) {
					t.Parallel()
					b := startBroker(t, lifecycle)
					connect := test.connect
					connect.Version, connect.ID, connect.Clean = v, "c", !persistent
					want := []string{"connect c", "connack c", "connected c", "disconnected c " + test.want}
					if persistent {
						connect.Expiry = 1000
					} else {
						want = append(want, "session_terminated c "+test.want)
					}
					c := mustConnect(t, b.addr, connect)
					b.waitFor(t, "connected c")
					test.end(t, b, c)
					b.awaitGone(t)
					wantLines(t, b.lines(), want...)
					if n := b.hook.sessionCount(); n != len("x")*btoi(persistent) {
						t.Errorf("%d sessions remembered", n)
					}
				})
			}
		}
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func TestSessionExpiryChangedByDisconnect(t *testing.T) {
	t.Parallel()
	expiry := func(seconds uint32) packets.Properties {
		return packets.Properties{SessionExpiryInterval: seconds, SessionExpiryIntervalFlag: true}
	}
	t.Run("to zero", func(t *testing.T) {
		b := startBroker(t, lifecycle)
		mustConnect(t, b.addr, rawConnect{Version: 5, ID: "c", Expiry: 100}).disconnectWith(0, expiry(0))
		b.waitFor(t, "disconnected c normal", "session_terminated c normal")
		b.awaitGone(t)
		if n := b.hook.sessionCount(); n != 0 {
			t.Errorf("%d sessions remembered", n)
		}
	})
	t.Run("to one second", func(t *testing.T) {
		b := startBroker(t, lifecycle)
		mustConnect(t, b.addr, rawConnect{Version: 5, ID: "c", Expiry: 100}).disconnectWith(0, expiry(1))
		wantLines(t, lines(b.waitFor(t, "session_terminated c expired"))[3:],
			"disconnected c normal", "session_terminated c expired")
		if n := b.hook.sessionCount(); n != 0 {
			t.Errorf("%d sessions remembered", n)
		}
	})
	t.Run("from zero", func(t *testing.T) {
		b := startBroker(t, lifecycle)
		mustConnect(t, b.addr, rawConnect{Version: 5, ID: "c"}).disconnectWith(0, expiry(1))
		b.waitFor(t, "disconnected c protocol_error", "session_terminated c protocol_error")
	})
}

func TestSessionExpires(t *testing.T) {
	t.Parallel()
	for _, v := range []byte{4, 5} {
		t.Run(fmt.Sprintf("v%d", v), func(t *testing.T) {
			b := startBroker(t, lifecycle, withCapabilities(func(c *mqtt.Capabilities) { c.MaximumSessionExpiryInterval = 1 }))
			mustConnect(t, b.addr, rawConnect{Version: v, ID: "c", Expiry: 100}).fin()
			b.waitFor(t, "session_terminated c expired")
			mustConnect(t, b.addr, rawConnect{Version: v, ID: "c", Clean: true}).disconnect(0)
			wantLines(t, lines(b.waitFor(t, "session_terminated c normal")),
				"connect c", "connack c", "connected c", "disconnected c tcp_closed", "session_terminated c expired",
				"connect c", "connack c", "connected c", "disconnected c normal", "session_terminated c normal")
		})
	}
}

func TestOfflineSession(t *testing.T) {
	eachVersion(t, func(t *testing.T, v byte) {
		t.Run("resumed", func(t *testing.T) {
			b := startBroker(t, lifecycle)
			connect := rawConnect{Version: v, ID: "c", Expiry: 100}
			mustConnect(t, b.addr, connect).fin()
			b.awaitGone(t)
			mustConnect(t, b.addr, connect).disconnect(0)
			b.awaitGone(t)
			wantLines(t, b.lines(), "connect c", "connack c", "connected c", "disconnected c tcp_closed",
				"connect c", "connack c", "connected c", "disconnected c normal")
		})
		t.Run("discarded", func(t *testing.T) {
			b := startBroker(t, lifecycle)
			mustConnect(t, b.addr, rawConnect{Version: v, ID: "c", User: "old", Expiry: 100}).fin()
			b.awaitGone(t)
			mustConnect(t, b.addr, rawConnect{Version: v, ID: "c", User: "new", Clean: true}).disconnect(0)
			b.awaitGone(t)
			wantLines(t, b.lines(), "connect c/old", "connack c/old", "connected c/old", "disconnected c/old tcp_closed",
				"connect c/new", "session_terminated c/old discarded", "connack c/new", "connected c/new",
				"disconnected c/new normal", "session_terminated c/new normal")
			if n := b.hook.sessionCount(); n != 0 {
				t.Errorf("%d sessions remembered", n)
			}
		})
	})
}

// A session that is taken over, 1000 times of either kind.
func TestTakeover(t *testing.T) {
	rounds := 100 // of each of ten rows
	if testing.Short() {
		rounds = 20
	}
	tests := []struct {
		name           string
		old, new       rawConnect
		reason         string
		sessionGoesOff bool
	}{
		{"v3 resumed", rawConnect{Version: 3}, rawConnect{Version: 3}, "takeovered", false},
		{"v4 resumed", rawConnect{}, rawConnect{}, "takeovered", false},
		{"v5 resumed", rawConnect{Version: 5, Expiry: 100}, rawConnect{Version: 5, Expiry: 100}, "takeovered", false},
		{"v5 without expiry resumed", rawConnect{Version: 5}, rawConnect{Version: 5}, "takeovered", false},
		{"v3 discarded", rawConnect{Version: 3, Clean: true}, rawConnect{Version: 3, Clean: true}, "discarded", true},
		{"v4 discarded", rawConnect{}, rawConnect{Clean: true}, "discarded", true},
		{"v4 clean discarded", rawConnect{Clean: true}, rawConnect{}, "discarded", true},
		{"v5 discarded", rawConnect{Version: 5, Expiry: 100}, rawConnect{Version: 5, Clean: true}, "discarded", true},
		{"v4 by v5 resumed", rawConnect{}, rawConnect{Version: 5, Expiry: 100}, "takeovered", false},
		{"v5 by v4 discarded", rawConnect{Version: 5}, rawConnect{Clean: true}, "discarded", true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			b := startBroker(t, lifecycle)
			var wg sync.WaitGroup
			ids := make(chan string)
			for range 4 {
				wg.Go(func() {
					for id := range ids {
						before, after := test.old, test.new
						before.ID, before.User, after.ID, after.User = id, "old", id, "new"
						o := mustConnect(t, b.addr, before)
						o.subscribe(1, "a/b")
						n := mustConnect(t, b.addr, after)
						o.awaitClose()
						n.subscribe(1, "a/b")
						n.fin()
					}
				})
			}
			for i := range rounds {
				ids <- fmt.Sprintf("c%d", i)
			}
			close(ids)
			wg.Wait()
			b.awaitGone(t)
			for i := range rounds {
				id := fmt.Sprintf("c%d", i)
				want := []string{"connect o", "connack o", "connected o", "connect n", "disconnected o " + test.reason}
				if test.sessionGoesOff {
					want = append(want, "session_terminated o discarded")
				}
				want = append(want, "connack n", "connected n", "disconnected n tcp_closed")
				if after := test.new; after.Clean || after.Version == 5 && after.Expiry == 0 {
					want = append(want, "session_terminated n tcp_closed")
				}
				for i := range want {
					want[i] = strings.NewReplacer(" o", " "+id+"/old", " n", " "+id+"/new").Replace(want[i])
				}
				wantLines(t, ofClient(b.all(), id), want...)
			}
		})
	}
}

// checkBalance requires that connected and disconnected alternate for a client
// id, that each session ends once, and only after it began.
func checkBalance(t *testing.T, id string, events []event) {
	t.Helper()
	connects, acks, connected, session := 0, 0, false, false
	events = slices.DeleteFunc(slices.Clone(events), func(ev event) bool { return ev.client != id || lifecycle&(1<<ev.kind) == 0 })
	i := 0
	fail := func(why string) {
		t.Helper()
		t.Fatalf("%s at the end of:\n\t%s", why, strings.Join(lines(events[max(0, i-20):min(i+1, len(events))]), "\n\t"))
	}
	var ev event
	for i, ev = range events {
		switch ev.kind {
		case kindConnect:
			connects++
		case kindConnack:
			if acks++; acks > connects {
				fail("connack without connect")
			}
		case kindConnected:
			if connected {
				fail("connected twice")
			}
			connected, session = true, true
		case kindDisconnected:
			if !connected {
				fail("disconnected without connected")
			}
			connected = false
		case kindTerminated:
			if connected || !session {
				fail("session_terminated out of place")
			}
			session = false
		}
	}
	if connected {
		fail("still connected")
	}
	if connects != acks {
		fail("connect without connack")
	}
}

// Connections of one client id that race with each other, some of which also
// leave by themselves.
func TestTakeoverRaces(t *testing.T) {
	rounds := 300
	if testing.Short() {
		rounds = 50
	}
	b := startBroker(t, lifecycle)
	var ids []string
	for i := range rounds {
		id := fmt.Sprintf("c%d", i)
		ids = append(ids, id)
		version, clean := byte(3+rand.IntN(3)), rand.IntN(2) == 0
		first := mustConnect(t, b.addr, rawConnect{Version: version, ID: id, Clean: clean, Expiry: uint32(rand.IntN(2)) * 100})
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				c := rawDial(t, b.addr)
				pk := rawConnect{Version: byte(3 + rand.IntN(3)), ID: id, Clean: rand.IntN(2) == 0, Expiry: uint32(rand.IntN(2)) * 100}.packet()
				c.version = pk.ProtocolVersion
				c.send(pk)
				_, _ = c.read() // CONNACK, or the next has taken over already
				c.fin()
			})
		}
		switch rand.IntN(3) {
		case 0:
			first.fin()
		case 1:
			_, _ = first.conn.Write([]byte("\xe0\x00"))
		}
		wg.Wait()
		first.fin()
	}
	b.awaitGone(t)
	events := b.all()
	for _, id := range ids {
		checkBalance(t, id, events)
	}
}

func TestRefusedConnectionTakesNothingOver(t *testing.T) {
	b := startBroker(t, lifecycle)
	c := mustConnect(t, b.addr, rawConnect{ID: "c", User: "u", Clean: true})
	c.ping() // answered after client_connected
	bad, _ := dialConnect(t, b.addr, rawConnect{ID: "c", User: "u", Password: "wrong", Clean: true})
	bad.awaitClose()
	c.ping()
	c.disconnect(0)
	events := b.waitFor(t, "session_terminated c/u normal")
	wantLines(t, lines(events), "connect c/u", "connack c/u", "connected c/u", "connect c/u", "connack c/u fail",
		"disconnected c/u normal", "session_terminated c/u normal")
	if events[3].lane != laneConn || events[5].lane != laneClient {
		t.Error("the refused connection is not in a lane of its own")
	}
}

// A CONNACK that is larger than the client allows is not written: the broker
// drops the connection without telling hooks.
func TestConnackNotWritten(t *testing.T) {
	dropped := rawConnect{Version: 5, ID: "c", MaxPacket: 3, Clean: true}
	fail := func(t *testing.T, b *testBroker, connect rawConnect) {
		t.Helper()
		c := rawDial(t, b.addr)
		c.version = 5
		c.send(connect.packet())
		c.awaitClose()
	}
	t.Run("new session", func(t *testing.T) {
		b := startBroker(t, lifecycle)
		fail(t, b, dropped)
		fail(t, b, dropped)
		b.awaitGone(t)
		if n := b.hook.sessionCount(); n != 0 {
			t.Errorf("%d sessions remembered", n)
		}
		mustConnect(t, b.addr, rawConnect{Version: 5, ID: "c"}).disconnect(0)
		wantLines(t, lines(b.waitFor(t, "session_terminated c normal")), "connect c", "connack c", "connected c",
			"disconnected c normal", "session_terminated c normal")
	})
	t.Run("takeover", func(t *testing.T) {
		t.Parallel()
		b := startBroker(t, lifecycle)
		mustConnect(t, b.addr, rawConnect{Version: 5, ID: "c", Expiry: 100}).ping()
		fail(t, b, dropped)
		wantLines(t, lines(b.waitFor(t, "session_terminated c discarded")), "connect c", "connack c", "connected c",
			"disconnected c discarded", "session_terminated c discarded")
		if n := b.hook.sessionCount(); n != 0 {
			t.Errorf("%d sessions remembered", n)
		}
	})
	t.Run("takeover with resume", func(t *testing.T) {
		t.Parallel()
		b := startBroker(t, lifecycle)
		connect := rawConnect{Version: 5, ID: "c", Expiry: 100}
		mustConnect(t, b.addr, connect).ping()
		broken := connect
		broken.MaxPacket = 3
		fail(t, b, broken)
		b.waitFor(t, "disconnected c takeovered")
		mustConnect(t, b.addr, connect).fin()
		wantLines(t, lines(b.waitFor(t, "disconnected c tcp_closed")), "connect c", "connack c", "connected c",
			"disconnected c takeovered", "connect c", "connack c", "connected c", "disconnected c tcp_closed")
	})
	t.Run("takeover, then another one at once", func(t *testing.T) {
		b := startBroker(t, lifecycle)
		mustConnect(t, b.addr, rawConnect{Version: 5, ID: "c", User: "u", Expiry: 100}).ping()
		fail(t, b, dropped)
		mustConnect(t, b.addr, rawConnect{Version: 5, ID: "c"}).disconnect(0)
		wantLines(t, lines(b.waitFor(t, "session_terminated c normal")), "connect c/u", "connack c/u", "connected c/u",
			"connect c", "disconnected c/u discarded", "session_terminated c/u discarded", "connack c", "connected c",
			"disconnected c normal", "session_terminated c normal")
	})
}

func TestPersistentSessionOutlivesServer(t *testing.T) {
	b := startBroker(t, lifecycle)
	mustConnect(t, b.addr, rawConnect{ID: "offline"}).fin()
	b.awaitGone(t)
	online := mustConnect(t, b.addr, rawConnect{ID: "online"})
	b.waitFor(t, "connected online")
	b.stop()
	online.awaitClose()
	wantLines(t, b.lines(), "connect offline", "connack offline", "connected offline", "disconnected offline tcp_closed",
		"connect online", "connack online", "connected online", "disconnected online server_shutdown")
}

// The program closes connections with the code of a takeover.
func TestTakeoverCodeByProgram(t *testing.T) {
	t.Parallel()
	b := startBroker(t, lifecycle)
	for _, clean := range []bool{true, false} {
		id := fmt.Sprintf("clean=%v", clean)
		mustConnect(t, b.addr, rawConnect{ID: id, Clean: clean}).ping()
		cl, _ := b.server.Clients.Get(id)
		_ = b.server.DisconnectClient(cl, packets.ErrSessionTakenOver)
	}
	b.waitFor(t, "disconnected clean=true takeovered", "session_terminated clean=true takeovered", "disconnected clean=false takeovered")
	if n := b.hook.sessionCount(); n != 1 {
		t.Errorf("%d sessions remembered, want one", n)
	}
}

// The broker is asked to forget subscriptions by the program; the sessions live.
func TestUnsubscribeClientByProgram(t *testing.T) {
	b := startBroker(t, lifecycle)
	c := mustConnect(t, b.addr, rawConnect{ID: "c", Clean: true})
	c.subscribe(0, "a")
	cl, _ := b.server.Clients.Get("c")
	b.server.UnsubscribeClient(cl)
	c.disconnect(0)
	wantLines(t, lines(b.waitFor(t, "session_terminated c normal")), "connect c", "connack c", "connected c",
		"disconnected c normal", "session_terminated c normal")
}

// The program ends the subscriptions of clients that are not connected, or not any more,
// and come back at once: their sessions live on.
func TestUnsubscribeClientOfflineByProgram(t *testing.T) {
	t.Parallel()
	b := startBroker(t, lifecycle)
	for id, leave := range map[string]func(*rawClient, *mqtt.Client){
		"offline": func(c *rawClient, _ *mqtt.Client) { c.disconnect(0) },
		"kicked": func(_ *rawClient, cl *mqtt.Client) {
			_ = b.server.DisconnectClient(cl, packets.ErrAdministrativeAction)
		},
	} {
		c := mustConnect(t, b.addr, rawConnect{ID: id})
		c.subscribe(0, "a")
		cl, _ := b.server.Clients.Get(id)
		leave(c, cl)
		b.server.UnsubscribeClient(cl)
		b.awaitGone(t)
		c, ack := dialConnect(t, b.addr, rawConnect{ID: id})
		if !ack.SessionPresent {
			t.Fatalf("%s: the broker has ended the session", id)
		}
		c.disconnect(0)
		b.awaitGone(t)
		mustConnect(t, b.addr, rawConnect{ID: id, Clean: true}).disconnect(0)
		b.waitFor(t, "session_terminated "+id+" normal")
		reason := map[string]string{"offline": "normal", "kicked": "kicked"}[id]
		wantLines(t, ofClient(b.all(), id), "connect "+id, "connack "+id, "connected "+id, "disconnected "+id+" "+reason,
			"connect "+id, "connack "+id, "connected "+id, "disconnected "+id+" normal",
			"connect "+id, "session_terminated "+id+" discarded", "connack "+id, "connected "+id, "disconnected "+id+" normal", "session_terminated "+id+" normal")
	}
}

// TestProgramUnsubscribes has the program end subscriptions of a client whose session
// goes on, by a packet without an id and all at once.
func TestProgramUnsubscribes(t *testing.T) {
	b := startBroker(t, kindsOf(kindUnsubscribed))
	c := mustConnect(t, b.addr, rawConnect{ID: "c", Clean: true})
	c.subscribe(0, "a")
	c.subscribe(0, "b")
	cl, _ := b.server.Clients.Get("c")
	unsubscribe := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Unsubscribe}, Filters: packets.Subscriptions{{Filter: "a"}}}
	if err := b.server.InjectPacket(cl, unsubscribe); err != nil {
		t.Fatal(err)
	}
	b.server.UnsubscribeClient(cl)
	got := lines(b.waitFor(t, "session_unsubscribed c b"))
	wantLines(t, got, "session_unsubscribed c a", "session_unsubscribed c b")
	c.disconnect(0)
}

// storeHook restores sessions.
type storeHook struct {
	mqtt.HookBase
	clients []storage.Client
	msgs    []storage.Message
}

func (s *storeHook) ID() string { return "store" }

func (s *storeHook) Provides(b byte) bool { return b >= mqtt.StoredClients && b <= mqtt.StoredSysInfo }

func (s *storeHook) StoredClients() ([]storage.Client, error)             { return s.clients, nil }
func (s *storeHook) StoredInflightMessages() ([]storage.Message, error)   { return s.msgs, nil }
func (s *storeHook) StoredSubscriptions() ([]storage.Subscription, error) { return nil, nil }
func (s *storeHook) StoredRetainedMessages() ([]storage.Message, error)   { return nil, nil }
func (s *storeHook) StoredSysInfo() (info storage.SystemInfo, err error)  { return info, nil }
func (s *storeHook) OnSysInfoTick(*system.Info)                           {}

func TestRestoredSessions(t *testing.T) {
	t.Parallel()
	client := func(id string, expiry uint32) storage.Client {
		return storage.Client{ID: id, Username: []byte("u"), ProtocolVersion: 5, Listener: "tcp",
			Properties: storage.ClientProperties{SessionExpiryInterval: expiry, SessionExpiryIntervalFlag: true}}
	}
	store := &storeHook{clients: []storage.Client{
		client("over", 0), client("expires", 3), client("resumes", 100), client("discards", 100), client("stays", 100),
		{ID: "over4", ProtocolVersion: 4, Clean: true},
	}}
	for _, late := range []bool{false, true} {
		t.Run(fmt.Sprintf("late=%v", late), func(t *testing.T) {
			options := []brokerOption{withHook(store)}
			if late {
				options = append(options, addLater)
			}
			b := startBroker(t, lifecycle, options...)
			if late {
				b.addHook(t, b.hook)
			}
			wantLines(t, b.lines())
			mustConnect(t, b.addr, rawConnect{Version: 5, ID: "resumes", Expiry: 100}).fin()
			mustConnect(t, b.addr, rawConnect{Version: 5, ID: "discards", Clean: true}).fin()
			b.waitFor(t, "session_terminated expires/u expired", "disconnected resumes tcp_closed", "session_terminated discards tcp_closed")
			b.awaitGone(t)
			wantLines(t, ofClient(b.all(), "resumes"), "connect resumes", "connack resumes", "connected resumes", "disconnected resumes tcp_closed")
			wantLines(t, ofClient(b.all(), "discards"), "connect discards", "session_terminated discards/u discarded",
				"connack discards", "connected discards", "disconnected discards tcp_closed", "session_terminated discards tcp_closed")
			for _, id := range []string{"over", "over4", "stays"} {
				wantLines(t, ofClient(b.all(), id))
			}
			want := 2 // resumes, stays
			if late {
				want = 1
			}
			if n := b.hook.sessionCount(); n != want {
				t.Errorf("%d sessions remembered, want %d", n, want)
			}
		})
	}
}

// Connections and sessions that are older than the hook.
func TestHookAddedLater(t *testing.T) {
	b := startBroker(t, lifecycle, addLater)
	connect := func(id string) *rawClient {
		c := mustConnect(t, b.addr, rawConnect{Version: 5, ID: id, User: "u", Expiry: 100})
		c.ping()
		return c
	}
	leaves, resumed, discarded := connect("leaves"), connect("resumed"), connect("discarded")
	connect("offline").disconnect(0)
	quits := mustConnect(t, b.addr, rawConnect{ID: "quits", Clean: true})
	quits.ping()
	b.awaitClients(t, 4)
	b.addHook(t, b.hook)
	leaves.disconnect(0x80)
	quits.fin()
	connect("resumed").fin()
	mustConnect(t, b.addr, rawConnect{Version: 5, ID: "discarded", Clean: true}).fin()
	mustConnect(t, b.addr, rawConnect{Version: 5, ID: "offline", Clean: true}).fin()
	resumed.awaitClose()
	discarded.awaitClose()
	b.awaitGone(t)
	for id, want := range map[string][]string{
		"leaves": {"disconnected leaves/u unspecified_error"},
		"quits":  {"disconnected quits tcp_closed", "session_terminated quits tcp_closed"},
		"resumed": {"connect resumed/u", "disconnected resumed/u takeovered", "connack resumed/u", "connected resumed/u",
			"disconnected resumed/u tcp_closed"},
		"discarded": {"connect discarded", "disconnected discarded/u discarded", "session_terminated discarded/u discarded",
			"connack discarded", "connected discarded", "disconnected discarded tcp_closed", "session_terminated discarded tcp_closed"},
		"offline": {"connect offline", "session_terminated offline/u discarded", "connack offline", "connected offline",
			"disconnected offline tcp_closed", "session_terminated offline tcp_closed"},
	} {
		wantLines(t, ofClient(b.all(), id), want...)
	}
}

// Rules that come with a reload while clients are connected.
func TestRulesAddedLater(t *testing.T) {
	b := startBroker(t, 0)
	c := mustConnect(t, b.addr, rawConnect{ID: "c", User: "u", Clean: true})
	c.ping()
	b.hook.watch(allKinds)
	c.subscribe(1, "a")
	c.publish("x", "y", 1, false)
	c.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: 1}, PacketID: 99, TopicName: "a"})
	for range 2 {
		if pk, _ := c.read(); pk.FixedHeader.Type == packets.Publish {
			c.ack(packets.Puback, pk.PacketID)
		}
	}
	c.disconnect(0)
	b.awaitGone(t)
	b.waitFor(t, `message_publish c/u x qos1 "y"`, `message_publish c/u a qos1 ""`, `message_delivered a c/u->c/u qos1 ""`, `message_acked a c/u->c/u qos1 ""`,
		"disconnected c/u normal", "session_terminated c/u normal")
	if n := b.hook.sessionCount(); n != 0 {
		t.Errorf("%d sessions remembered", n)
	}
}

// TestTerminatedOnce has rules that came by a reload. A client without a session
// goes; before the broker forgets it, a new connection finds it, and the broker
// unsubscribes it once more.
func TestTerminatedOnce(t *testing.T) {
	var got []event
	h := Hook{observe: func(ev event) { got = append(got, ev) }}
	h.watch(kindsOf(kindConnected, kindDisconnected, kindTerminated))
	old := callClient(t, &h, "x")
	callEnd(&h, old, true)
	h.OnUnsubscribed(old, packets.Packet{}) // in R of the new one
	callClient(t, &h, "x")
	wantLines(t, lines(got), "connected x", "disconnected x tcp_closed", "session_terminated x tcp_closed", "connected x")
}

// callClient makes the callbacks of a connection without a broker.
func callClient(t *testing.T, h *Hook, id string, change ...func(*mqtt.Client)) *mqtt.Client {
	ours, theirs := net.Pipe()
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	cl := mqtt.New(&mqtt.Options{Logger: discardLogger()}).NewClient(ours, "tcp", id, false)
	cl.Properties.Clean = true
	for _, f := range change {
		f(cl)
	}
	h.OnPacketSent(cl, packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Connack}}, nil)
	h.OnSessionEstablished(cl, packets.Packet{})
	return cl
}

// callEnd makes those of its end, which the session has survived or not.
func callEnd(h *Hook, cl *mqtt.Client, expire bool) {
	cl.Stop(io.EOF)
	h.OnDisconnect(cl, io.EOF, expire)
	if expire {
		h.OnUnsubscribed(cl, packets.Packet{})
	}
}

// TestForgottenByTheBroker has rules that came by a reload, and a connection that the
// broker forgets, as it does when its client id is free a moment too late: another one
// comes and goes in its place.
func TestForgottenByTheBroker(t *testing.T) {
	var got []event
	h := Hook{observe: func(ev event) { got = append(got, ev) }}
	h.watch(kindsOf(kindConnected, kindDisconnected, kindTerminated))
	forgotten := callClient(t, &h, "x")
	callEnd(&h, callClient(t, &h, "x"), true)
	before := len(got)
	_, _ = h.OnPacketRead(forgotten, packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish}})
	_, _ = h.OnPacketRead(forgotten, packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Disconnect}})
	callEnd(&h, forgotten, true)
	wantLines(t, lines(got[before:]))
	runtime.KeepAlive(forgotten)
	awaitTrue(t, "connections that are gone are forgotten", func() bool {
		runtime.GC()
		n := 0
		h.seen.Range(func(any, any) bool { n++; return true })
		return n == 0
	})
}

// TestExpiresBeforeOnDisconnect has a session that ends while its connection's reader
// is busy with a packet.
func TestExpiresBeforeOnDisconnect(t *testing.T) {
	var got []event
	h := Hook{observe: func(ev event) { got = append(got, ev) }}
	h.watch(kindsOf(kindConnected, kindDisconnected, kindTerminated))
	h.OnStarted()
	for _, tt := range []struct {
		name string
		end  func(*mqtt.Client)
		want []string
	}{
		{"its connection ends", func(cl *mqtt.Client) { h.OnDisconnect(cl, io.EOF, false) },
			[]string{"disconnected x tcp_closed", "session_terminated x expired"}},
		{"it ends with its connection", func(cl *mqtt.Client) { h.OnDisconnect(cl, io.EOF, true); h.OnUnsubscribed(cl, packets.Packet{}) },
			[]string{"disconnected x tcp_closed", "session_terminated x tcp_closed"}},
		{"it comes back before that", func(*mqtt.Client) { callEnd(&h, callClient(t, &h, "x"), true) },
			[]string{"disconnected x tcp_closed", "session_terminated x expired", "connected x", "disconnected x tcp_closed", "session_terminated x tcp_closed"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got = nil
			cl := callClient(t, &h, "x", func(cl *mqtt.Client) { cl.Properties.Clean = false })
			cl.Stop(io.EOF)
			h.OnClientExpired(cl)
			tt.end(cl)
			wantLines(t, lines(got), append([]string{"connected x"}, tt.want...)...)
			if n := h.sessionCount(); n != 0 {
				t.Errorf("%d sessions remembered", n)
			}
		})
	}
}

// TestHandOver has a connection take the place of another one of which the broker has
// not told everything yet.
func TestHandOver(t *testing.T) {
	persistent := func(cl *mqtt.Client) { cl.Properties.Clean = false }
	for _, tt := range []struct {
		name string
		run  func(t *testing.T, h *Hook)
		want []string
	}{
		{"ends by itself at the same moment", func(t *testing.T, h *Hook) {
			callClient(t, h, "s").Stop(io.EOF)
			callClient(t, h, "s")
		}, []string{"connected s", "disconnected s tcp_closed", "session_terminated s tcp_closed", "connected s"}},
		{"session over its time", func(t *testing.T, h *Hook) {
			callEnd(h, callClient(t, h, "s", persistent), false)
			callClient(t, h, "s", persistent)
		}, []string{"connected s", "disconnected s tcp_closed", "session_terminated s expired", "connected s"}},
		{"clean start", func(t *testing.T, h *Hook) {
			callEnd(h, callClient(t, h, "s", persistent), false)
			callClient(t, h, "s")
		}, []string{"connected s", "disconnected s tcp_closed", "session_terminated s discarded", "connected s"}},
		{"never reported", func(t *testing.T, h *Hook) {
			callConnack(t, h, "", false)
			callClient(t, h, "s")
		}, []string{"connected s"}},
		{"resumed before it is reported", func(t *testing.T, h *Hook) {
			old := callConnack(t, h, "", false)
			old.Stop(packets.ErrSessionTakenOver)
			next := callConnack(t, h, "", true)
			h.OnSessionEstablished(old, packets.Packet{})
			h.OnDisconnect(old, packets.ErrSessionTakenOver, false)
			h.OnSessionEstablished(next, packets.Packet{})
		}, []string{"connected s", "disconnected s takeovered", "connected s"}},
		{"discarded before it is reported", func(t *testing.T, h *Hook) {
			old := callConnack(t, h, "", false)
			old.Stop(packets.ErrSessionTakenOver)
			callClient(t, h, "s")
			h.OnSessionEstablished(old, packets.Packet{})
			h.OnDisconnect(old, packets.ErrSessionTakenOver, false)
		}, []string{"connected s", "disconnected s discarded", "session_terminated s discarded", "connected s"}},
		{"expires when it is resumed", func(t *testing.T, h *Hook) {
			old := callClient(t, h, "s", persistent)
			callEnd(h, old, false)
			h.OnSessionEstablished(callConnack(t, h, "", true), packets.Packet{})
			h.OnClientExpired(old)
		}, []string{"connected s", "disconnected s tcp_closed", "connected s"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []event
			h := Hook{observe: func(ev event) { got = append(got, ev) }}
			h.watch(kindsOf(kindConnected, kindDisconnected, kindTerminated))
			h.OnStarted()
			tt.run(t, &h)
			wantLines(t, lines(got), tt.want...)
		})
	}
}

// TestTakenOverWhen has a connection taken over by one that does not get its CONNACK:
// the end is reported late, and has the time when it was.
func TestTakenOverWhen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []event
		h := Hook{observe: func(ev event) { got = append(got, ev) }}
		h.watch(kindsOf(kindDisconnected))
		h.OnStarted()
		cl := callClient(t, &h, "s", func(cl *mqtt.Client) { cl.Properties.Clean = false })
		ended := time.Now().UnixMilli()
		cl.Stop(packets.ErrSessionTakenOver)
		h.OnDisconnect(cl, packets.ErrSessionTakenOver, false)
		time.Sleep(takeoverWait)
		synctest.Wait()
		wantLines(t, lines(got), "disconnected s takeovered")
		if len(got) == 1 && got[0].time != ended {
			t.Errorf("time %d, want %d", got[0].time, ended)
		}
	})
}

// TestWebsocketCloses ends connections as browsers do.
func TestWebsocketCloses(t *testing.T) {
	b := startBroker(t, lifecycle)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	ws := listeners.NewWebsocket(listeners.Config{ID: "ws", Address: address})
	if err := b.server.AddListener(ws); err != nil {
		t.Fatal(err)
	}
	go ws.Serve(b.server.EstablishConnection)
	var c *websocket.Conn
	awaitTrue(t, "the listener serves", func() bool {
		dialer := websocket.Dialer{Subprotocols: []string{"mqtt"}}
		c, _, err = dialer.Dial("ws://"+address, nil)
		return err == nil
	})
	defer c.Close()
	var connect bytes.Buffer
	pk := rawConnect{ID: "c", Clean: true}.packet()
	if err := pk.ConnectEncode(&connect); err != nil {
		t.Fatal(err)
	}
	if err := c.WriteMessage(websocket.BinaryMessage, connect.Bytes()); err != nil {
		t.Fatal(err)
	}
	b.waitFor(t, "connected c")
	goodbye := websocket.FormatCloseMessage(websocket.CloseGoingAway, "")
	if err := c.WriteControl(websocket.CloseMessage, goodbye, time.Now().Add(rawTimeout)); err != nil {
		t.Fatal(err)
	}
	b.waitFor(t, "disconnected c tcp_closed", "session_terminated c tcp_closed")
}
