package webhook

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"
)

// allKinds is every kind of event, for tracker.watch.
const allKinds = 1<<kindEnd - 1<<kindConnect

func kindsOf(ks ...kind) (set uint32) {
	for _, k := range ks {
		set |= 1 << k
	}
	return set
}

var lifecycle = kindsOf(kindConnect, kindConnack, kindConnected, kindDisconnected, kindTerminated)

// A recorder keeps the events that a hook emits and lets a test wait for them.
type recorder struct {
	mu      sync.Mutex
	events  []event
	changed chan struct{}
}

func (r *recorder) record(ev event) {
	ev.payload = slices.Clone(ev.payload)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, ev)
	if r.changed != nil {
		close(r.changed)
		r.changed = nil
	}
}

// wait returns the events as soon as done says so.
func (r *recorder) wait(t testing.TB, done func([]event) bool) []event {
	t.Helper()
	timeout := time.After(rawTimeout)
	for {
		r.mu.Lock()
		events := slices.Clone(r.events)
		if r.changed == nil {
			r.changed = make(chan struct{})
		}
		changed := r.changed
		r.mu.Unlock()
		if done(events) {
			return events
		}
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("waited in vain; events so far:\n%s", strings.Join(lines(events), "\n"))
		}
	}
}

// waitFor waits until each of the lines has come as often as it is given.
func (r *recorder) waitFor(t testing.TB, want ...string) []event {
	t.Helper()
	return r.wait(t, func(events []event) bool {
		got := lines(events)
		for _, w := range want {
			i := slices.Index(got, w)
			if i < 0 {
				return false
			}
			got = slices.Delete(got, i, i+1)
		}
		return true
	})
}

// all returns the events so far.
func (r *recorder) all() []event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}

func (r *recorder) lines() []string { return lines(r.all()) }

func lines(events []event) []string {
	out := make([]string, len(events))
	for i := range events {
		out[i] = eventLine(&events[i])
	}
	return out
}

// line is an event in short.
func eventLine(ev *event) string {
	name := strings.TrimPrefix(kinds[ev.kind].action, "client_")
	who := func(id, user string) string {
		if user != "" {
			return id + "/" + user
		}
		return id
	}
	me := who(ev.client, ev.username)
	switch ev.kind {
	case kindConnect, kindConnected:
		return fmt.Sprintf("%s %s", name, me)
	case kindConnack:
		if !ev.accepted {
			return fmt.Sprintf("%s %s fail", name, me)
		}
		return fmt.Sprintf("%s %s", name, me)
	case kindDisconnected, kindTerminated:
		return fmt.Sprintf("%s %s %s", name, me, ev.reason)
	case kindSubscribe, kindSubscribed:
		return fmt.Sprintf("%s %s %s qos%d", name, me, ev.topic, ev.qos)
	case kindUnsubscribe, kindUnsubscribed:
		return fmt.Sprintf("%s %s %s", name, me, ev.topic)
	}
	retain := ""
	if ev.retain {
		retain = " retain"
	}
	from := who(ev.from, ev.fromUser)
	if ev.kind == kindPublish {
		return fmt.Sprintf("%s %s %s qos%d%s %q", name, from, ev.topic, ev.qos, retain, ev.payload)
	}
	return fmt.Sprintf("%s %s %s->%s qos%d%s %q", name, ev.topic, from, me, ev.qos, retain, ev.payload)
}

// wantLines fails unless the events are these, in this order.
func wantLines(t testing.TB, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("got:\n\t%s\nwant:\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// ofClient are the lines about one client, in which it is the actor.
func ofClient(events []event, id string) []string {
	return lines(slices.DeleteFunc(slices.Clone(events), func(ev event) bool {
		return ev.client != id && (ev.kind != kindPublish || ev.from != id)
	}))
}

// A testBroker is a real broker with a hook whose events are recorded.
type testBroker struct {
	*recorder
	hook   *Hook
	server *mqtt.Server
	gate   *gateHook
	addr   string
	open   countingListener
	stop   func() // once, also called at the end of the test
}

type brokerOption func(*testBroker)

func withCapabilities(change func(*mqtt.Capabilities)) brokerOption {
	return func(b *testBroker) { change(b.server.Options.Capabilities) }
}

func withHook(h mqtt.Hook) brokerOption {
	return func(b *testBroker) { _ = b.server.AddHook(h, nil) }
}

// addLater leaves it to the test to add the hook.
func addLater(b *testBroker) { b.hook = nil }

// startBroker starts a broker whose hook wants the given kinds.
func startBroker(t testing.TB, kinds uint32, options ...brokerOption) *testBroker {
	t.Helper()
	b := newBroker(t, kinds, options...)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b.open.Listener = l
	tcp := listeners.NewNet("tcp", &b.open)
	if err := b.server.AddListener(tcp); err != nil {
		t.Fatal(err)
	}
	b.serve(t)
	b.addr = tcp.Address()
	return b
}

// newBroker makes a broker that does not listen yet.
func newBroker(t testing.TB, kinds uint32, options ...brokerOption) *testBroker {
	t.Helper()
	b := &testBroker{recorder: &recorder{}, gate: &gateHook{}}
	b.server = mqtt.New(&mqtt.Options{
		InlineClient: true,
		Logger:       discardLogger(),
		Capabilities: mqtt.NewDefaultServerCapabilities(),

		SysTopicResendInterval: 3600, // seconds: no $SYS messages between those of a test
	})
	hook := newTestHook(b.recorder, kinds)
	b.hook = hook
	if err := b.server.AddHook(b.gate, nil); err != nil {
		t.Fatal(err)
	}
	for _, o := range options {
		o(b)
	}
	if b.hook != nil {
		b.addHook(t, hook)
	}
	b.hook = hook
	return b
}

// serve starts the broker.
func (b *testBroker) serve(t testing.TB) {
	t.Helper()
	if err := b.server.Serve(); err != nil {
		t.Fatal(err)
	}
	b.stop = sync.OnceFunc(func() { closeServer(t, b.server) })
	t.Cleanup(func() {
		b.awaitGone(t)
		b.stop()
	})
}

func discardLogger() *slog.Logger { return slog.New(slog.DiscardHandler) }

func newTestHook(r *recorder, kinds uint32) *Hook {
	h := &Hook{observe: r.record}
	h.watch(kinds)
	return h
}

func (b *testBroker) addHook(t testing.TB, h *Hook) {
	t.Helper()
	if err := b.server.AddHook(observedHook{h}, nil); err != nil {
		t.Fatal(err)
	}
}

// An observedHook has no endpoints, only its observer.
type observedHook struct{ *Hook }

func (observedHook) Init(any) error { return nil }

// A countingListener counts the connections that the broker has accepted and
// not closed.
type countingListener struct {
	net.Listener
	open atomic.Int64
}

func (l *countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.open.Add(1)
	return &countedConn{Conn: c, closed: sync.OnceFunc(func() { l.open.Add(-1) })}, nil
}

type countedConn struct {
	net.Conn
	closed func()
}

func (c *countedConn) Close() error {
	defer c.closed()
	return c.Conn.Close()
}

// awaitGone waits until the broker has noticed that its clients have gone, and
// the connections that never became one: closing it earlier can hang, and it
// would wait for goroutines that are yet to be counted.
func (b *testBroker) awaitGone(t testing.TB) {
	t.Helper()
	b.awaitClients(t, 0)
	// Not for ever: random packets make mochi forget a connection now and then,
	// which closing the broker does not wait for either.
	for deadline := time.Now().Add(time.Second); b.open.open.Load() > 0 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond) // nothing tells
	}
	b.awaitClients(t, 0) // one that became a client meanwhile is closed before it is gone
}

// awaitClients waits until so many clients are connected.
func (b *testBroker) awaitClients(t testing.TB, want int64) {
	t.Helper()
	deadline := time.Now().Add(rawTimeout)
	for atomic.LoadInt64(&b.server.Info.ClientsConnected) != want {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d clients connected, want %d\n%s", atomic.LoadInt64(&b.server.Info.ClientsConnected), want,
				stacks[:runtime.Stack(stacks, true)])
		}
		time.Sleep(time.Millisecond) // nothing tells
	}
}

func closeServer(t testing.TB, s *mqtt.Server) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Close()
	}()
	select {
	case <-done:
	case <-time.After(rawTimeout):
		t.Error("the broker does not stop")
	}
}

// sessionCount is the number of sessions that the hook remembers, once those
// that are being worked on are done.
func (h *Hook) sessionCount() (n int) {
	for i := range h.sessions {
		p := &h.sessions[i]
		p.mu.RLock()
		sessions := slices.Collect(maps.Values(p.sessions))
		p.mu.RUnlock()
		for _, s := range sessions {
			s.mu.Lock()
			if s.cl.Load() != nil {
				n++
			}
			s.mu.Unlock()
		}
	}
	return n
}

// gateHook lets everybody in whose password is not "wrong", and everything be
// done except on topics that start with "denied".
type gateHook struct {
	mqtt.HookBase
	onConnect   func(*mqtt.Client) error
	onEstablish func(*mqtt.Client)
}

func (g *gateHook) ID() string { return "gate" }

func (g *gateHook) Provides(b byte) bool {
	return bytes.Contains([]byte{mqtt.OnConnect, mqtt.OnConnectAuthenticate, mqtt.OnACLCheck, mqtt.OnSessionEstablish, mqtt.OnPublish}, []byte{b})
}

func (g *gateHook) OnConnect(cl *mqtt.Client, _ packets.Packet) error {
	if g.onConnect != nil {
		return g.onConnect(cl)
	}
	return nil
}

func (g *gateHook) OnConnectAuthenticate(_ *mqtt.Client, pk packets.Packet) bool {
	return string(pk.Connect.Password) != "wrong"
}

func (g *gateHook) OnSessionEstablish(cl *mqtt.Client, _ packets.Packet) {
	if g.onEstablish != nil {
		g.onEstablish(cl)
	}
}

func (g *gateHook) OnACLCheck(_ *mqtt.Client, topic string, _ bool) bool {
	return !strings.HasPrefix(topic, "denied")
}

func (g *gateHook) OnPublish(_ *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	switch pk.TopicName {
	case "ignored":
		return pk, packets.CodeSuccessIgnore
	case "rejected":
		return pk, packets.ErrRejectPacket
	case "failing":
		return pk, errors.New("no")
	}
	return pk, nil
}
