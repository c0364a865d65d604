package webhook

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// startHooked starts a broker with a hook that is initialised with opts.
func startHooked(t *testing.T, opts *Options) (*testBroker, *Hook) {
	t.Helper()
	hook := new(Hook)
	b := startBroker(t, 0, addLater, func(b *testBroker) {
		if err := b.server.AddHook(hook, opts); err != nil {
			t.Fatal(err)
		}
	})
	return b, hook
}

// withEndpoint is the options for one endpoint, stopped without draining.
func withEndpoint(e Endpoint) *Options {
	return &Options{Config: &Config{Endpoints: []Endpoint{e}}, DrainTimeout: -1}
}

// everything are rules for all events.
func everything() (rules []Rule) {
	for _, name := range eventNames {
		rules = append(rules, Rule{Event: name})
	}
	return rules
}

// A requestLog is a receiver that keeps what it gets.
type requestLog struct {
	*rawServer
	mu       sync.Mutex
	requests []*rawRequest
}

func newRequestLog(t *testing.T) *requestLog {
	l := new(requestLog)
	l.rawServer = newRawServer(t, func(c *rawConn, _ int) {
		for {
			req, err := c.read()
			if err != nil {
				return
			}
			l.mu.Lock()
			l.requests = append(l.requests, req)
			l.mu.Unlock()
			if c.say(replyOK) != nil {
				return
			}
		}
	})
	return l
}

func (l *requestLog) all() []*rawRequest {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.requests)
}

// TestGrammarEvents starts a broker with each configuration that NanoMQ was
// probed with and that is accepted here, and compares the requests for a client
// that connects, publishes a/b/c and t/x, and disconnects.
func TestGrammarEvents(t *testing.T) {
	text, err := os.ReadFile("testdata/config/grammar.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	host := regexp.MustCompile(`(127\.0\.0\.1|localhost):\d+`)
	ran := 0
	for line := range bytes.Lines(text) {
		var probe struct {
			Case, Text, State string
			Events            map[string]any
			Hello             string   `json:"payload_hello"`
			Lines             []string `json:"request_lines"`
		}
		if err := json.Unmarshal(line, &probe); err != nil {
			t.Fatal(err)
		}
		if _, err := Parse([]byte(probe.Text), ""); err != nil || !host.MatchString(probe.Text) || strings.Contains(probe.Text, "https:") {
			continue // refused (TestParseGrammar), or not an address of the test
		}
		ran++
		t.Run(probe.Case, func(t *testing.T) {
			l := newRequestLog(t)
			file := filepath.Join(t.TempDir(), "nanomq.conf")
			write(t, file, host.ReplaceAllString(probe.Text, l.addr))
			b, hook := startHooked(t, &Options{File: file, DrainTimeout: 15 * time.Second})
			c := mustConnect(t, b.addr, rawConnect{ID: "c", Clean: true})
			c.publish("a/b/c", "hello", 1, false)
			c.publish("t/x", "hello", 1, false)
			c.disconnect(0)
			b.awaitGone(t)
			b.stop() // delivers

			want := map[string]any{"connack": 1, "pub a/b/c": 1} // where NanoMQ exits
			path, hello := "/hook", "hello"
			if probe.State == "running" {
				want = probe.Events
				delete(want, "other") // $SYS messages
				hello = probe.Hello
				if len(probe.Lines) > 0 {
					path = strings.TrimSuffix(strings.TrimPrefix(probe.Lines[0], "POST "), " HTTP/1.1")
				}
				if path == "" {
					path = "/" // an empty target is refused by servers
				}
			}
			got := make(map[string]int)
			came := make(map[string]bool)
			again := uint64(0)
			for _, req := range l.all() {
				id := req.value("webhook-id")
				if came[id] {
					again++ // after a timeout
					continue
				}
				came[id] = true
				if line := "POST " + path + " HTTP/1.1"; req.line != line {
					t.Errorf("got %q, want %q", req.line, line)
				}
				var body struct{ Action, Topic, Payload string }
				if err := json.Unmarshal([]byte(req.body), &body); err != nil {
					t.Errorf("%s: %v", req.body, err)
				}
				switch body.Action {
				case "client_connack":
					got["connack"]++
				case "message_publish":
					got["pub "+body.Topic]++
					if body.Payload != hello {
						t.Errorf("payload %q, want %q", body.Payload, hello)
					}
				default:
					t.Errorf("got %s", req.body)
				}
			}
			retried := uint64(0)
			for _, s := range hook.Stats().Endpoints {
				retried += s.Retried
			}
			if fmt.Sprint(got) != fmt.Sprint(want) || again > retried {
				t.Errorf("got %v and %d again, want %v; stats %+v", got, again, want, hook.Stats())
			}
		})
	}
	if ran < 30 {
		t.Errorf("%d probes were run", ran)
	}
}

// Whatever an endpoint does, publishes are acknowledged and clients connect: if
// one of them waited for it, the clients of this test would run into their own
// timeout.
func TestEndpointDelaysNobody(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	hanging := newRawServer(t, func(c *rawConn, _ int) { c.wait() })
	half := newRawServer(t, func(c *rawConn, _ int) {
		_, _ = c.read()
		_ = c.say("HTTP/1.1 200 O")
		c.wait()
	})
	full := Queue{Capacity: 10}
	for name, e := range map[string]Endpoint{
		"refuses":             {URL: "http://" + closed.Addr().String()},
		"hangs":               {URL: hanging.url()},
		"half a reply":        {URL: half.url()},
		"full, drops oldest":  {URL: hanging.url(), Queue: full},
		"full, drops newest":  {URL: half.url(), Queue: Queue{Capacity: 10, Overflow: DropNewest}},
		"one connection":      {URL: hanging.url(), PoolSize: 1, Queue: full},
		"without order":       {URL: hanging.url(), Ordering: OrderNone, Queue: full},
		"full, in few bytes":  {URL: hanging.url(), Queue: Queue{MaxBytes: 4 << 10}},
		"an event is too big": {URL: hanging.url(), Body: Body{MaxPayload: 3}},
	} {
		t.Run(name, func(t *testing.T) {
			e.Events = everything()
			b, hook := startHooked(t, withEndpoint(e))
			s := mustConnect(t, b.addr, rawConnect{ID: "s", Clean: true})
			s.subscribe(0, "a")
			p := mustConnect(t, b.addr, rawConnect{ID: "p", Clean: true})
			for range 1000 {
				p.publish("a", "hello", 1, false)
			}
			for range 1000 {
				s.expect(packets.Publish)
			}
			for i := range 20 {
				mustConnect(t, b.addr, rawConnect{ID: fmt.Sprint(i), Clean: true}).disconnect(0)
			}
			checkSum(t, hook.Stats().Endpoints["default"])
			s.disconnect(0)
			p.disconnect(0)
			b.awaitGone(t)
			b.stop()
			awaitEnd(t, hook)
			stats := hook.Stats().Endpoints["default"]
			if checkSum(t, stats); stats.Delivered > 0 || stats.Waiting+stats.InFlight > 0 || stats.Offered < 2000 {
				t.Errorf("after Stop: %+v", stats)
			}
		})
	}
}

// Under "block" only publishes of network clients wait.
func TestBlockHoldsUpPublishesOnly(t *testing.T) {
	hanging := newRawServer(t, func(c *rawConn, _ int) { c.wait() })
	b, hook := startHooked(t, withEndpoint(Endpoint{
		URL: hanging.url(), PoolSize: 1, Timeout: 1 << 40, Events: everything(),
		Queue: Queue{Capacity: 1, Overflow: Block, BlockTimeout: 1 << 40},
	}))
	for i := range 20 {
		c := mustConnect(t, b.addr, rawConnect{ID: fmt.Sprint(i), Clean: true, Will: &rawWill{Topic: "w", Payload: "p", QoS: 1}})
		c.subscribe(1, "a")
		c.unsubscribe("a")
		if err := b.server.Publish("a", []byte("x"), false, 1); err != nil {
			t.Fatal(err)
		}
		c.ping()
		c.rst() // the will
		b.awaitGone(t)
	}
	if s := hook.Stats().Endpoints["default"]; s.Dropped["queue_full"] == 0 {
		t.Errorf("nothing was dropped: %+v", s)
	}
	// What a publish waits for ends with Stop at the latest.
	p := mustConnect(t, b.addr, rawConnect{ID: "p", Clean: true})
	p.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: 1}, TopicName: "a", PacketID: 1})
	p.fin()
	if err := hook.Stop(); err != nil {
		t.Error(err)
	}
	b.awaitGone(t)
}

// TestRandomPacketsDelivered: from random packets to a receiver nothing panics,
// each body is JSON, and the counters add up.
func TestRandomPacketsDelivered(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	l := newRequestLog(t)
	opts := &Options{Config: new(Config), DrainTimeout: 15 * time.Second} // the broker's close may take 20
	for _, enc := range encodings {
		opts.Config.Endpoints = append(opts.Config.Endpoints, Endpoint{
			Name: string(enc), URL: l.url(), Timeout: time.Minute, Body: Body{Encoding: enc}, Events: everything(),
		})
	}
	b, hook := startHooked(t, opts)
	var wg sync.WaitGroup
	for worker := range 4 {
		rnd := rand.New(rand.NewPCG(seed, uint64(worker)))
		wg.Go(func() {
			for range 15 {
				randomConnection(t, b, rnd)
			}
		})
	}
	wg.Wait()
	mustConnect(t, b.addr, rawConnect{ID: "after", Clean: true}).disconnect(0) // those before it are accepted
	b.awaitGone(t)
	b.stop()
	var delivered uint64
	for name, s := range hook.Stats().Endpoints {
		checkSum(t, s)
		// A message that was published under an alias without a topic has none.
		if delivered += s.Delivered; s.Delivered+s.Dropped["unknown_topic"] != s.Offered {
			t.Errorf("%s: %+v, want all delivered", name, s)
		}
	}
	requests := l.all()
	if uint64(len(requests)) != delivered || delivered == 0 {
		t.Errorf("%d requests came, %d were delivered", len(requests), delivered)
	}
	for _, req := range requests {
		if !json.Valid([]byte(req.body)) {
			t.Errorf("got %q", req.body)
		}
	}
}

func TestInitRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "webhook.hcl")
	write(t, file, `webhook { url = "http://127.0.0.1:1/" }`)
	good := Endpoint{URL: "http://127.0.0.1:1/", Events: everything()}
	dir, letters := t.TempDir(), filepath.Join(t.TempDir(), "dead.jsonl")
	durable := good
	durable.Queue, durable.DeadLetter = Queue{Type: DiskQueue, Dir: dir}, DeadLetter{File: letters}
	bad := durable // its folder is locked by the one before
	bad.Name = "DEFAULT"
	proxied := Endpoint{Name: "tls", URL: "https://127.0.0.1:1/", TLS: TLS{ServerName: "x"}}
	both := Config{Endpoints: []Endpoint{durable, proxied}}
	for _, test := range []struct {
		name   string
		config any
		want   string
	}{
		{"nil", nil, mqtt.ErrInvalidConfigType.Error()},
		{"nil options", (*Options)(nil), mqtt.ErrInvalidConfigType.Error()},
		{"options by value", Options{File: file}, mqtt.ErrInvalidConfigType.Error()},
		{"config", &both, mqtt.ErrInvalidConfigType.Error()},
		{"neither", &Options{}, "webhook: Options has neither File nor Config"},
		{"both", &Options{File: file, Config: &both}, "webhook: Options has both File and Config"},
		{"no endpoints", &Options{Config: &Config{}}, "webhook: the configuration has no endpoints"},
		{"duplicate name", &Options{Config: &Config{Endpoints: []Endpoint{durable, bad}}}, `webhook: endpoint "DEFAULT": Name is used twice`},
		{"no such file", &Options{File: file + "x"}, "Unreadable file"},
		{"tls beside a transport", &Options{Config: &both, Transport: http.DefaultTransport}, `webhook: endpoint "tls": tls has no effect with Options.Transport`},
	} {
		t.Run(test.name, func(t *testing.T) {
			checkLeaks(t)
			h := new(Hook)
			err := h.Init(test.config)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("got %v, want %s", err, test.want)
			}
			if strings.HasPrefix(test.want, "webhook:") && !strings.HasPrefix(err.Error(), test.want) {
				t.Errorf("got %q, want %q at its beginning", err, test.want)
			}
			if test.want == mqtt.ErrInvalidConfigType.Error() && !errors.Is(err, mqtt.ErrInvalidConfigType) {
				t.Errorf("got %v, want mqtt.ErrInvalidConfigType", err)
			}
			if s := h.Stats(); len(s.Endpoints) > 0 {
				t.Errorf("after an error: %+v", s)
			}
			if err := h.Stop(); err != nil {
				t.Errorf("Stop after an error: %v", err)
			}
			// Nothing is locked, and the hook can be tried again.
			if err := h.Init(withEndpoint(durable)); err != nil {
				t.Fatalf("afterwards: %v", err)
			}
			if err := h.Stop(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestHookLife(t *testing.T) {
	checkLeaks(t)
	l := newRequestLog(t)
	e := Endpoint{URL: l.url(), Events: everything()}
	h := new(Hook)
	if err := h.Stop(); err != nil {
		t.Errorf("Stop before Init: %v", err)
	}
	cl, pk := publishArguments()
	h.OnPublished(cl, pk)
	if err := h.Init(&Options{Config: &Config{Endpoints: []Endpoint{e, {Name: "off", URL: l.url(), Disabled: true, Events: everything()}}}}); err != nil {
		t.Fatal(err)
	}
	if err := h.Init(withEndpoint(e)); err == nil {
		t.Error("a second Init succeeds")
	}
	h.OnPublished(cl, pk)
	for range 2 {
		if err := h.Stop(); err != nil {
			t.Error(err)
		}
	}
	h.OnPublished(cl, pk)
	_, _ = h.OnPublish(cl, pk)
	h.OnWillSent(cl, pk)
	s := h.Stats()
	if got := s.Endpoints["default"]; len(s.Endpoints) != 1 || got.Offered != 3 || got.Delivered != 1 || got.Dropped["stopped"] != 2 {
		t.Errorf("got %+v, want of 3 events 1 delivered, 2 dropped after Stop, and no endpoint that is off", s)
	}
	if n := len(l.all()); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
}

// A collector of metrics may ask for the counters, and the program may stop,
// while a hook is being initialised.
func TestInitMeanwhile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "webhook.hcl")
	write(t, file, `webhook { url = "http://127.0.0.1:1/" }`)
	for range 10 {
		h := new(Hook)
		var meanwhile sync.WaitGroup
		meanwhile.Go(func() {
			for len(h.Stats().Endpoints) == 0 {
			}
			_ = h.Stop()
		})
		if err := h.Init(&Options{File: file, Watch: true}); err != nil {
			t.Fatal(err)
		}
		meanwhile.Wait()
	}
}

// Two hooks of one broker have nothing in common, nor do two endpoints of one
// hook: one that hangs holds up no other.
func TestSeveralHooksAndEndpoints(t *testing.T) {
	l := newRequestLog(t)
	hanging := newRawServer(t, func(c *rawConn, _ int) { c.wait() })
	rules := []Rule{{Event: OnMessagePublish}}
	b, first := startHooked(t, &Options{DrainTimeout: -1, Config: &Config{Endpoints: []Endpoint{
		{Name: "hangs", URL: hanging.url(), Events: rules},
		{Name: "good", URL: l.url() + "/good", Events: rules},
	}}})
	second := new(Hook)
	if err := b.server.AddHook(second, withEndpoint(Endpoint{URL: l.url() + "/second", Events: rules})); err != nil {
		t.Fatal(err)
	}
	if err := b.server.AddHook(first, withEndpoint(Endpoint{URL: l.url()})); err == nil {
		t.Error("a hook is added twice")
	}
	c := mustConnect(t, b.addr, rawConnect{ID: "c", Clean: true})
	for range 100 {
		c.publish("a", "hello", 1, false)
	}
	c.disconnect(0)
	awaitStats := func(h *Hook, name string) {
		t.Helper()
		awaitTrue(t, name+" has delivered", func() bool { return h.Stats().Endpoints[name].Delivered == 100 })
	}
	awaitStats(first, "good")
	awaitStats(second, "default")
	if s := first.Stats().Endpoints["hangs"]; s.Delivered != 0 || s.Waiting+s.InFlight != 100 {
		t.Errorf("got %+v, want 100 that wait", s)
	}
}

// awaitTrue waits for what nothing announces.
func awaitTrue(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(rawTimeout); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it is not so that " + what)
		}
	}
}

// awaitEnd waits until all events that an endpoint was offered have ended: who
// stops one does not wait for a worker that gets no time.
func awaitEnd(t *testing.T, h *Hook) {
	t.Helper()
	awaitTrue(t, "nothing is left", func() bool {
		for _, s := range h.Stats().Endpoints {
			if s.Waiting+s.InFlight > 0 {
				return false
			}
		}
		return true
	})
}

// TestSecondServer gives an initialised hook to another server: it stays the first
// one's, and logs to it.
func TestSecondServer(t *testing.T) {
	var first, second logLines
	h := runHook(t, &Options{Config: allPublishes("http://127.0.0.1:1/", nil), DrainTimeout: -1})
	h.Log = first.logger()
	other := mqtt.New(&mqtt.Options{Logger: second.logger()})
	if err := other.AddHook(h, &Options{Config: allPublishes("http://127.0.0.1:1/", nil)}); err == nil {
		t.Error("it was initialised twice")
	}
	mustReload(t, h, allPublishes("http://127.0.0.1:1/", nil))
	if !strings.Contains(first.String(), "configuration reloaded") || strings.Contains(second.String(), "configuration reloaded") {
		t.Errorf("first log:\n%s\nsecond log:\n%s", first.String(), second.String())
	}
}
