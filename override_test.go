package webhook

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// An arrival is a request that came, as far as rules differ.
type arrival struct{ path, host, a, b, auth, ctype, ids, body string }

// arrivals is a receiver, over connections or as a transport, that keeps what
// comes.
type arrivals struct {
	mu   sync.Mutex
	all  []arrival
	more sync.Cond
	fail int // requests to answer with 500
}

func newArrivals() *arrivals {
	a := new(arrivals)
	a.more.L = &a.mu
	return a
}

func (a *arrivals) take(r *http.Request) (status int) {
	body, _ := io.ReadAll(r.Body)
	value := func(name string) string {
		for n, v := range r.Header {
			if equalFold(n, name) {
				return strings.Join(v, "|")
			}
		}
		return ""
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.fail > 0 {
		a.fail--
		return 500
	}
	a.all = append(a.all, arrival{r.URL.Path, r.Host, value("a"), value("b"), value("authorization"), value("content-type"), value("webhook-id"), string(body)})
	a.more.Broadcast()
	return 200
}

func (a *arrivals) ServeHTTP(w http.ResponseWriter, r *http.Request) { w.WriteHeader(a.take(r)) }

func (a *arrivals) RoundTrip(r *http.Request) (*http.Response, error) { return answer(a.take(r)) }

// wait returns what has come when it is n requests, and forgets it.
func (a *arrivals) wait(t *testing.T, n int) []arrival {
	t.Helper()
	late := time.AfterFunc(rawTimeout, func() {
		buf := make([]byte, 1<<20)
		panic(fmt.Sprintf("waiting for %d requests\n%s", n, buf[:runtime.Stack(buf, true)]))
	})
	defer late.Stop()
	a.mu.Lock()
	defer a.mu.Unlock()
	for len(a.all) < n {
		a.more.Wait()
	}
	got := a.all
	a.all = nil
	if len(got) != n {
		t.Fatalf("%d requests came, want %d: %+v", len(got), n, got)
	}
	return got
}

// messageOn is a message_publish event on a topic.
func messageOn(topic, payload string) *event {
	ev := publishOf("c", payload)
	ev.topic = topic
	return ev
}

// overriding are rules of which the first two have settings of their own.
func overriding() []Rule {
	return []Rule{
		{Event: OnMessagePublish, Topic: "cmd/#", Encoding: Base64,
			Headers: []Header{{"A", "rule"}, {"B", "rule"}, {"Content-Type", "text/rule"}}},
		{Event: OnMessagePublish, Topic: "log/#", Encoding: Base62},
		{Event: OnMessagePublish, Topic: "cmd/x", Headers: []Header{{"A", "second"}}},
		{Event: OnMessagePublish, Topic: "other/#"},
		{Event: OnMessagePublish, Clients: []string{"c"}, Headers: []Header{{"a", "conditional"}, {"authorization", "rule"}}},
	}
}

func overridingConfig(url string, change func(*Endpoint)) *Config {
	return allPublishes(url, func(e *Endpoint) {
		e.Headers = []Header{{"a", "endpoint"}, {"content-type", "text/endpoint"}}
		e.Events, e.PoolSize = overriding(), 1
		if change != nil {
			change(e)
		}
	})
}

// TestOverrides has events of several rules go out over one connection.
func TestOverrides(t *testing.T) {
	for _, test := range []struct{ topic, a, b, auth, ctype, payload string }{
		{"cmd/x", "rule", "rule", "Basic dTpw", "text/rule", base64.StdEncoding.EncodeToString([]byte("messagei+/"))},
		{"log/x", "endpoint", "", "Basic dTpw", "text/endpoint", "2a7oZkl5ty6sG7"},
		{"other/x", "endpoint", "", "Basic dTpw", "text/endpoint", "messagei+/"},
		{"none", "conditional", "", "rule", "text/endpoint", "messagei+/"},
		{"cmd/y", "rule", "rule", "Basic dTpw", "text/rule", base64.StdEncoding.EncodeToString([]byte("messagei+/"))},
	} {
		for _, over := range []string{"connections", "a transport"} {
			t.Run(test.topic+" over "+over, func(t *testing.T) {
				got := newArrivals()
				opts := &Options{Config: overridingConfig("http://u:p@receiver.test/", nil), Transport: got}
				if over == "connections" {
					opts = &Options{Config: overridingConfig(strings.Replace(serve(t, got), "//", "//u:p@", 1), nil)}
				}
				h := runHook(t, opts)
				h.emit(messageOn("other/first", "x")) // whose head the connection has then
				h.emit(messageOn(test.topic, "messagei+/"))
				a := got.wait(t, 2)[1]
				if a.a != test.a || a.b != test.b || a.auth != test.auth || a.ctype != test.ctype || payloadOf([]byte(a.body)) != test.payload {
					t.Errorf("got %+v, want %+v", a, test)
				}
			})
		}
	}
}

// serve starts a server of net/http, and returns its URL.
func serve(t *testing.T, h http.Handler) string {
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.URL
}

// TestOverridesInBatches: a request has one set of headers, whatever the
// encodings, and the order of a client's events stays.
func TestOverridesInBatches(t *testing.T) {
	for _, queue := range []Queue{{}, {Type: DiskQueue, Dir: t.TempDir()}} {
		t.Run(string(queue.Type), func(t *testing.T) {
			got := newArrivals()
			got.fail = 1
			h := runHook(t, &Options{Transport: got, Config: overridingConfig("http://receiver.test/", func(e *Endpoint) {
				e.Queue, e.Batch = queue, Batch{MaxEvents: 6, Linger: time.Minute}
				e.Retry.MinBackoff, e.Retry.MaxBackoff = time.Millisecond, time.Millisecond
				e.Events[1].Headers = []Header{{"A", "rule"}, {"B", "rule"}, {"Content-Type", "text/rule"}} // those of the first one
			})})
			for i, topic := range []string{"cmd/1", "log/1", "other/1", "other/2", "cmd/2", "cmd/3"} {
				h.emit(messageOn(topic, fmt.Sprint(i)))
			}
			var sizes, as []string
			var all []string
			for _, a := range got.wait(t, 3) {
				var items []struct{ Topic, Payload string }
				if err := json.Unmarshal([]byte(a.body), &items); err != nil {
					t.Fatal(err)
				}
				for _, item := range items {
					all = append(all, item.Topic+" "+item.Payload)
				}
				sizes, as = append(sizes, fmt.Sprint(len(items))), append(as, a.a)
			}
			want := []string{"cmd/1 MA==", "log/1 n", "other/1 2", "other/2 3", "cmd/2 NA==", "cmd/3 NQ=="}
			if !slices.Equal(all, want) || !slices.Equal(sizes, []string{"2", "2", "2"}) || !slices.Equal(as, []string{"rule", "endpoint", "rule"}) {
				t.Errorf("got %q in batches of %v with %v, want %q", all, sizes, as, want)
			}
			_ = h.Stop()
			s := statsOf(t, h)
			if s.Attempts.Status2xx != 3 || s.Attempts.Status5xx != 1 {
				t.Errorf("stats %+v", s)
			}
		})
	}
}

// TestOverridesSurviveRestarts has events wait on disk while the rules move,
// change and go.
func TestOverridesSurviveRestarts(t *testing.T) {
	dir := t.TempDir()
	config := func(change func(*Endpoint)) *Config {
		return overridingConfig("http://receiver.test/", func(e *Endpoint) {
			e.Queue = Queue{Type: DiskQueue, Dir: dir}
			if change != nil {
				change(e)
			}
		})
	}
	h := startDisk(t, config(nil), Options{Transport: unreachable, DrainTimeout: -1}, slog.New(slog.DiscardHandler))
	for _, topic := range []string{"cmd/1", "log/1", "none", "other/1"} {
		h.emit(messageOn(topic, "x"))
	}
	_ = h.Stop()
	got := newArrivals()
	h = startDisk(t, config(func(e *Endpoint) {
		e.Events[0].Headers[0].Value = "changed"
		e.Events = slices.Delete(e.Events, 4, 5) // that of "none"
		slices.Reverse(e.Events)
	}), Options{Transport: got}, slog.New(slog.DiscardHandler))
	all := got.wait(t, 4)
	for i, want := range []struct{ a, payload string }{{"changed", "eA=="}, {"endpoint", "1w"}, {"endpoint", "x"}, {"endpoint", "x"}} {
		if all[i].a != want.a || payloadOf([]byte(all[i].body)) != want.payload {
			t.Errorf("request %d: got %+v, want %+v", i, all[i], want)
		}
	}
	if s := statsOf(t, h); s.Recovered != 4 {
		t.Errorf("stats %+v", s)
	}
}

// TestOverridesReload changes the settings of rules whose events wait.
func TestOverridesReload(t *testing.T) {
	got := newArrivals()
	url := serve(t, got)
	config := func(url, header string, encoding Encoding) *Config {
		return overridingConfig(url, func(e *Endpoint) {
			e.Retry = Retry{MinBackoff: time.Hour, MaxBackoff: time.Hour, MaxAge: -1}
			e.Events[0].Headers[0].Value, e.Events[0].Encoding = Secret(header), encoding
		})
	}
	h := runHook(t, &Options{Config: config("http://127.0.0.1:1/", "old", Base64)})
	h.emit(messageOn("cmd/1", "x"))
	for statsOf(t, h).Retried == 0 {
		runtime.Gosched()
	}
	mustReload(t, h, config(url, "new", Plain))
	if a := got.wait(t, 1)[0]; a.a != "new" || payloadOf([]byte(a.body)) != "x" {
		t.Errorf("got %+v", a)
	}
	pool := func() *pool { return h.active.Load().endpoints[0].pool }
	for _, change := range []struct {
		name   string
		cfg    *Config
		ctype  string
		header string
		same   bool
	}{
		{"nothing", config(url, "new", Plain), "text/rule", "new", true},
		{"rules without settings of their own", overridingConfig(url, func(e *Endpoint) {
			*e = config(url, "new", Plain).Endpoints[0]
			e.Events[3].Topic = "another/#"
			e.Events = append(e.Events, Rule{Event: OnMessageAcked})
		}), "text/rule", "new", true},
		{"a header", config(url, "newer", Plain), "text/rule", "newer", false},
		{"an encoding", config(url, "newer", Base64), "text/rule", "newer", false},
		{"the endpoint's header", overridingConfig(url, func(e *Endpoint) {
			*e = config(url, "newer", Base64).Endpoints[0]
			e.Events[0].Headers = e.Events[0].Headers[:2]
			e.Headers[1].Value = "text/other"
		}), "text/other", "newer", false},
	} {
		before := pool()
		mustReload(t, h, change.cfg)
		if (pool() == before) != change.same {
			t.Errorf("%s: the pool is the same: %v, want %v", change.name, pool() == before, change.same)
		}
		h.emit(messageOn("cmd/1", "x"))
		if a := got.wait(t, 1)[0]; a.a != change.header || a.ctype != change.ctype {
			t.Errorf("%s: got %+v, want %+v", change.name, a, change)
		}
	}
}

// TestOverridesRedeliver has events become dead letters, which say what rule
// they are of and not what its headers are, and sends them again.
func TestOverridesRedeliver(t *testing.T) {
	file := filepath.Join(t.TempDir(), "dead.jsonl")
	config := func(url string) *Config {
		return overridingConfig(url, func(e *Endpoint) {
			e.DeadLetter.File = file
			e.Events[0].Headers[1].Value = "hunter2"
		})
	}
	refuse := roundTripFunc(func(*http.Request) (*http.Response, error) { return answer(400) })
	h := runHook(t, &Options{Config: config("http://receiver.test/"), Transport: refuse})
	long := strings.Repeat("x", 200<<10)
	h.emit(messageOn("cmd/1", "x"))
	h.emit(messageOn("log/1", long))
	h.emit(messageOn("other/1", "x"))
	for statsOf(t, h).Dead < 3 {
		runtime.Gosched()
	}
	_ = h.Stop()
	noSecret(t, nil, contentOf(t, file), "hunter2")
	var rules, types []string
	for _, l := range readLetters(t, file) {
		rules, types = append(rules, l.Rule), append(types, l.ContentType)
	}
	of := overriding()
	if want := []string{fmt.Sprintf("%08x", of[0].key()), fmt.Sprintf("%08x", of[1].key()), ""}; !slices.Equal(rules, want) {
		t.Errorf("rules %q, want %q", rules, want)
	}
	if want := []string{"text/rule", "text/endpoint", "text/endpoint"}; !slices.Equal(types, want) {
		t.Errorf("content types %q, want %q", types, want)
	}

	got := newArrivals()
	url := serve(t, got)
	if _, err := Redeliver(t.Context(), config(url), file); err != nil {
		t.Fatal(err)
	}
	all := got.wait(t, 3)
	for i, want := range []struct{ a, b, ctype, payload string }{
		{"rule", "hunter2", "text/rule", "eA=="}, {"endpoint", "", "text/endpoint", string(appendBase62(nil, []byte(long)))}, {"endpoint", "", "text/endpoint", "x"},
	} {
		if a := all[i]; a.a != want.a || a.b != want.b || a.ctype != want.ctype || payloadOf([]byte(a.body)) != want.payload {
			t.Errorf("request %d: got %.200q, want %.200q", i, fmt.Sprint(a), fmt.Sprint(want))
		}
	}
	bad := strings.Replace(letterLine("default", 1, "x"), `"body"`, `"rule":"no number","body"`, 1)
	if _, err := Redeliver(t.Context(), config(url), writeLetterFile(t, bad)); err == nil || !strings.Contains(err.Error(), "line 1: rule") {
		t.Errorf("got %v, want an error for the rule", err)
	}
}

// TestOverridesMaxPayload: base62 has its limit in a rule too.
func TestOverridesMaxPayload(t *testing.T) {
	got := newArrivals()
	h := runHook(t, &Options{Config: overridingConfig("http://receiver.test/", nil), Transport: got})
	h.emit(messageOn("log/1", strings.Repeat("x", longestBase62+1)))
	h.emit(messageOn("other/1", strings.Repeat("x", longestBase62+1)))
	h.emit(messageOn("cmd/1", strings.Repeat("x", longestBase62+1)))
	got.wait(t, 2)
	if s := statsOf(t, h); s.Dropped["too_large"] != 1 {
		t.Errorf("stats %+v", s)
	}
	for _, test := range []struct {
		endpoint, rule Encoding
		max, want      int64
	}{
		{Plain, Base62, 8 << 20, longestBase62}, {Plain, Base62, 1000, 1000}, {Base62, Base62, 1 << 20, 1 << 20},
		{Base62, "", 1 << 20, 1 << 20}, {Base62, Plain, longestBase62, longestBase62}, {Plain, Base64, 8 << 20, 8 << 20},
	} {
		rule := Rule{Encoding: test.rule}
		if got := rule.maxPayload(&Body{Encoding: test.endpoint, MaxPayload: test.max}); got != test.want {
			t.Errorf("%+v: got %d", test, got)
		}
	}
}

// TestRuleKeys holds the keys still: they are in records on disk.
func TestRuleKeys(t *testing.T) {
	rule := Rule{
		Event: OnMessagePublish, Topic: "a/#", Except: []string{"a/b"}, Clients: []string{"c"}, Users: []string{"u"}, Listeners: []string{"l"},
		WithoutInline: true, Encoding: Base64,
	}
	const want uint32 = 0xcd661509
	if got := rule.key(); got != want {
		t.Errorf("key %#x, want %#x", got, want)
	}
	same := rule
	same.Headers, same.Encoding = []Header{{"a", "b"}}, Base62
	if got := same.key(); got != want {
		t.Errorf("with other settings: key %#x, want %#x", got, want)
	}
	plain := rule
	if plain.Encoding = ""; plain.key() != 0 {
		t.Errorf("without settings: key %#x, want 0", plain.key())
	}
	keys := map[uint32]bool{want: true}
	for _, change := range []func(*Rule){
		func(r *Rule) { r.Event = OnMessageAcked }, func(r *Rule) { r.Topic = "" }, func(r *Rule) { r.Except = nil },
		func(r *Rule) { r.Clients, r.Users = r.Users, r.Clients }, func(r *Rule) { r.Clients = []string{"c", "u"}; r.Users = nil },
		func(r *Rule) { r.Listeners = []string{"l", ""} }, func(r *Rule) { r.WithoutInline = false },
	} {
		other := rule
		change(&other)
		if keys[other.key()] {
			t.Errorf("%+v has the key of another rule", other)
		}
		keys[other.key()] = true
	}
	if got := (&Endpoint{Events: []Rule{{Event: OnMessagePublish}, rule}}).ruleKeys(); !slices.Equal(got, []uint32{0, want}) {
		t.Errorf("keys %#x", got)
	}
	if got := (&Endpoint{Events: []Rule{{Event: OnMessagePublish}}}).ruleKeys(); got != nil {
		t.Errorf("keys %#x, want none", got)
	}
}

// TestVariants: the same headers are one head, and of two rules that select the
// same the first decides.
func TestVariants(t *testing.T) {
	h := func(value string) []Header { return []Header{{"a", Secret(value)}} }
	e := &Endpoint{Headers: h("e"), Events: []Rule{
		{Event: OnMessagePublish, Topic: "1", Headers: h("x")},
		{Event: OnMessagePublish, Topic: "2", Headers: h("x"), Encoding: Base64},
		{Event: OnMessagePublish, Topic: "3", Headers: h("e")},
		{Event: OnMessagePublish, Topic: "1", Headers: h("y")},
		{Event: OnMessagePublish, Topic: "4"},
	}}
	key := func(i int) uint32 { return e.Events[i].key() }
	want := map[uint32]variant{
		0: {h("e"), 0, ""}, key(0): {h("x"), key(0), ""}, key(1): {h("x"), key(0), Base64}, key(2): {h("e"), 0, ""},
	}
	if got := e.variants(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestMergeHeaders(t *testing.T) {
	got := mergeHeaders([]Header{{"A", "1"}, {"b", "2"}, {"c", "3"}}, []Header{{"B", "4"}, {"d", "5"}})
	if want := []Header{{"A", "1"}, {"B", "4"}, {"c", "3"}, {"d", "5"}}; !slices.Equal(got, want) {
		t.Errorf("got %+q, want %+q", got, want)
	}
}

// TestOverridesUnderCloudEvents: the trace context and the type of payloads
// follow a rule's headers.
func TestOverridesUnderCloudEvents(t *testing.T) {
	got := newArrivals()
	h := runHook(t, &Options{Transport: got, Config: overridingConfig("http://receiver.test/", func(e *Endpoint) {
		e.Body.Format = FormatCloudEventsBinary
		e.Events[0].Encoding, e.Events[1].Encoding = "", ""
	})})
	for _, topic := range []string{"cmd/1", "other/1"} {
		h.emit(messageOn(topic, "x"))
	}
	all := got.wait(t, 2)
	if all[0].ctype != "text/rule" || all[1].ctype != "text/endpoint" || !bytes.Equal([]byte(all[0].body), []byte("x")) {
		t.Errorf("got %+v", all)
	}
}
