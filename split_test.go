package webhook

import (
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// rich is an endpoint with credentials of every sort.
func rich(url, rule string, own ...Header) Endpoint {
	return Endpoint{
		Name: "rich", URL: url,
		Headers: []Header{
			{"X-Site", "north"}, {"Cookie", "c"}, {"Host", "h"}, {"X-Api-Key", "k"}, {"x-access-TOKEN", "t"}, {"X-Passwordless", "p"}, {"Author", "a"},
		},
		Signing: Signing{Secret: "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"},
		TLS:     TLS{ServerName: "s", InsecureSkipVerify: true},
		Events: []Rule{
			{Event: OnMessagePublish, Topic: "here/#"},
			{Event: OnMessagePublish, Topic: "there/#", URL: rule, Headers: own},
		},
	}
}

// TestSplitOrigins: credentials stay with the origin that they are for.
func TestSplitOrigins(t *testing.T) {
	const basic, given = "Basic dTpw", "Bearer rule"
	for _, test := range []struct {
		endpoint, rule string
		own            []Header
		same           bool
		auth           string // Authorization among the headers
	}{
		{"https://u:p@a.test/x", "https://a.test/y", nil, true, basic},
		{"https://u:p@a.test/x", "HTTPS://A.Test:443/y", nil, true, basic},
		{"http://u:p@a.test:80", "http://a.test", nil, true, basic},
		{"http://u:p@[::1]:8080/", "http://[::1]:8080/y", nil, true, basic},
		{"https://u:p@a.test/", "https://v:q@a.test/", nil, true, ""},
		{"https://u:p@a.test/", "https://a.test/", []Header{{"authorization", given}}, true, given},
		{"https://a.test/", "https://a.test/", nil, true, ""},

		{"https://u:p@a.test/", "http://a.test/", nil, false, ""},
		{"https://u:p@a.test/", "https://a.test:444/", nil, false, ""},
		{"https://u:p@a.test/", "https://b.test/", nil, false, ""},
		{"https://u:p@a.test/", "https://a.test.b.test/", nil, false, ""},
		{"https://u:p@a.test/", "https://v:q@b.test/", nil, false, ""},
		{"https://u:p@a.test/", "https://a.test:443@b.test/", nil, false, ""},
		{"https://u:p@a.test/", "https://b.test/", []Header{{"Authorization", given}}, false, given},
	} {
		t.Run(test.endpoint+" "+test.rule, func(t *testing.T) {
			cfg, err := (&Config{Endpoints: []Endpoint{rich(test.endpoint, test.rule, test.own...)}}).resolve()
			if err != nil || len(cfg.Endpoints) != 2 {
				t.Fatalf("got %s, %v", dump(cfg), err)
			}
			parent, e := cfg.Endpoints[0], cfg.Endpoints[1]
			if len(parent.Events) != 1 || parent.URL != test.endpoint || len(parent.Headers) != 7 {
				t.Errorf("of the endpoint is left %s", dump(&Config{[]Endpoint{parent}}))
			}
			names := "X-Site"
			wantTLS := TLS{InsecureSkipVerify: true, MinVersion: defaultMinTLS}
			if test.same {
				names, wantTLS = "X-Site Cookie Host X-Api-Key x-access-TOKEN X-Passwordless Author", parent.TLS
			}
			var got []string
			auth := ""
			for _, h := range e.Headers {
				if equalFold(h.Name, "authorization") {
					auth = string(h.Value)
				} else {
					got = append(got, h.Name)
				}
			}
			if strings.Join(got, " ") != names || auth != test.auth {
				t.Errorf("headers %q, Authorization %q, want %q, %q", got, auth, names, test.auth)
			}
			if (e.Signing == Signing{}) == test.same || e.TLS != wantTLS || e.Name != "rich-2" || e.URL != test.rule {
				t.Errorf("got %s", dump(&Config{[]Endpoint{e}}))
			}
			again, err := cfg.resolve()
			if err != nil || !reflect.DeepEqual(again, cfg) {
				t.Errorf("resolved again: %v\n got %s\nwant %s", err, dump(again), dump(cfg))
			}
		})
	}
	t.Run("client certificate", func(t *testing.T) {
		e := rich("https://a.test/", "https://b.test/")
		e.TLS = TLS{CACertFile: "ca", CertFile: "c", KeyFile: "k", KeyPassword: "p", MinVersion: 5}
		if got, want := e.derive(1).TLS, (TLS{CACertFile: "ca", MinVersion: 5}); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
	t.Run("user info before the endpoint's header", func(t *testing.T) {
		e := rich("https://a.test/", "https://u:p@a.test/")
		e.Headers = append(e.Headers, Header{"authorization", "Bearer endpoint"})
		if d := e.derive(1); hasHeader(d.Headers, "Authorization") {
			t.Errorf("got %s", dump(&Config{[]Endpoint{d}}))
		}
	})
}

// TestSplitArrives looks at what comes to a rule's URL, of the same origin and
// of another one.
func TestSplitArrives(t *testing.T) {
	type request struct{ signature, cookie, auth, site string }
	got := make(chan request, 10)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got <- request{r.Header.Get("Webhook-Signature"), r.Header.Get("Cookie"), r.Header.Get("Authorization"), r.Header.Get("X-Site") + r.URL.Path}
	})
	here, there := serve(t, handler), serve(t, handler)
	for _, test := range []struct {
		rule   string
		signed bool
		want   request
	}{
		{here + "/same", true, request{cookie: "c", auth: "Basic dTpw", site: "north/same"}},
		{there + "/other", false, request{site: "north/other"}},
		{strings.Replace(there, "//", "//v:q@", 1) + "/own", false, request{auth: "Basic djpx", site: "north/own"}},
	} {
		t.Run(test.want.site, func(t *testing.T) {
			e := rich(strings.Replace(here, "//", "//u:p@", 1), test.rule)
			e.TLS = TLS{}
			h := runHook(t, &Options{Config: &Config{Endpoints: []Endpoint{e}}})
			h.emit(messageOn("there/1", "x"))
			r := <-got
			if (r.signature != "") != test.signed {
				t.Errorf("signature %q", r.signature)
			}
			if r.signature = ""; r != test.want {
				t.Errorf("got %+v, want %+v", r, test.want)
			}
			h.emit(messageOn("here/1", "x"))
			if r := <-got; r.signature == "" || r.cookie != "c" || r.auth != "Basic dTpw" {
				t.Errorf("the endpoint itself sends %+v", r)
			}
		})
	}
}

// TestSplitIsAnEndpoint: a rule's URL that hangs holds nobody else up, has its
// own counters and folder, and stays what it is over reloads.
func TestSplitIsAnEndpoint(t *testing.T) {
	dir := t.TempDir()
	got := newArrivals()
	transport := roundTripFunc(func(r *http.Request) (*http.Response, error) {
		if r.URL.Host == "slow.test" {
			<-r.Context().Done()
			return nil, r.Context().Err()
		}
		return got.RoundTrip(r)
	})
	cfg := func(disabled bool) *Config {
		return &Config{Endpoints: []Endpoint{{
			Name: "main", URL: "http://fast.test/", Disabled: disabled, PoolSize: 1,
			Queue: Queue{Type: DiskQueue, Dir: dir},
			Events: []Rule{
				{Event: OnMessagePublish, URL: "http://slow.test/", Name: "Slow", Encoding: Base62},
				{Event: OnMessagePublish, Topic: "t"},
			},
		}}}
	}
	h := startDisk(t, cfg(false), Options{Transport: transport, DrainTimeout: -1}, slog.New(slog.DiscardHandler))
	for i := range 20 {
		h.emit(publishOf("c", fmt.Sprint(i)))
	}
	got.wait(t, 20)
	s := h.Stats()
	main, slow := s.Endpoints["main"], s.Endpoints["Slow"]
	checkSum(t, main)
	checkSum(t, slow)
	if len(s.Endpoints) != 2 || main.Offered != 20 || slow.Offered != 20 || slow.Delivered != 0 {
		t.Errorf("stats %+v", s)
	}
	for _, name := range []string{"main", "Slow"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
	resolved, err := cfg(false).resolve()
	if err != nil {
		t.Fatal(err)
	}
	slowPool := h.active.Load().endpoints[1].pool
	mustReload(t, h, resolved) // what Parse gives, for instance
	if e := h.active.Load().endpoints[1]; e.pool != slowPool || e.config.Name != "Slow" {
		t.Errorf("endpoint %q has another pool", e.config.Name)
	}
	mustReload(t, h, cfg(true))
	h.emit(publishOf("c", "x"))
	if s := h.Stats(); s.Endpoints["main"].Offered != 20 || s.Endpoints["Slow"].Offered != 20 {
		t.Errorf("disabled: stats %+v", s)
	}
	withoutURL := cfg(false)
	withoutURL.Endpoints[0].Events[0].URL, withoutURL.Endpoints[0].Events[0].Name = "", ""
	mustReload(t, h, withoutURL)
	if h.departureOf("slow") == nil {
		t.Error("the rule's endpoint has not left with its url")
	}
}

func TestSplitNames(t *testing.T) {
	rule := func(name string) Rule { return Rule{Event: OnMessagePublish, URL: "http://h/", Name: name} }
	endpoint := func(name string, rules ...Rule) Endpoint {
		return Endpoint{Name: name, URL: "http://h/", Events: rules}
	}
	long := strings.Repeat("x", 63)
	for _, test := range []struct {
		name      string
		endpoints []Endpoint
		want      string // names, or what the error has
	}{
		{"by place", []Endpoint{endpoint("", rule(""), Rule{Event: OnMessagePublish}, rule("n"), rule(""))}, "default default-1 n default-4"},
		{"long", []Endpoint{endpoint(long, rule("n"))}, long + " n"},
		{"64 characters", []Endpoint{endpoint(long+"1", rule(long+"2"))}, long + "1 " + long + "2"},
		{"64 characters by place", []Endpoint{endpoint(long[1:], rule(""))}, long[1:] + " " + long[1:] + "-1"},
		{"65 characters", []Endpoint{endpoint(long + "12")}, `12": Name must be 1 to 64`},
		{"65 characters of a rule", []Endpoint{endpoint("a", rule(long+"12"))}, `"a": Events[0].Name must be 1 to 64`},
		{"too long", []Endpoint{endpoint(long, rule(""))}, `"` + long + `": Events[0].URL makes an endpoint whose name would be too long`},
		{"of an endpoint", []Endpoint{endpoint("a", rule("B")), endpoint("b")}, `"a": Events[0].Name is the name of another endpoint`},
		{"of its own", []Endpoint{endpoint("a", rule("A"))}, `"a": Events[0].Name is the name`},
		{"of another rule", []Endpoint{endpoint("a", rule("x")), endpoint("b", rule("y"), rule("X"))}, `"b": Events[1].Name is the name`},
		{"by place, of an endpoint", []Endpoint{endpoint("a", rule("")), endpoint("A-1")}, `"a": Events[0].URL makes an endpoint that is called`},
		{"by place, of a rule", []Endpoint{endpoint("a", rule("")), endpoint("b", rule("a-1"))}, `"a": Events[0].URL makes an endpoint that is called`},
		{"invalid", []Endpoint{endpoint("a", rule("a b"))}, `"a": Events[0].Name must be 1 to 64`},
		{"without URL", []Endpoint{endpoint("a", Rule{Event: OnMessagePublish, Name: "x"})}, `"a": Events[0].Name has no effect`},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg, err := (&Config{Endpoints: test.endpoints}).resolve()
			var names []string
			if cfg != nil {
				for _, e := range cfg.Endpoints {
					names = append(names, e.Name)
				}
			}
			if got := strings.Join(names, " "); err == nil && got != test.want || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %q, %v, want %q", got, err, test.want)
			}
		})
	}
}

func TestResolveOverrideProblems(t *testing.T) {
	rules := []Rule{
		{Event: OnMessagePublish, Headers: []Header{{"a b", "x"}, {"x", "hunter2\n"}, {"X", "y"}}},
		{Event: OnMessagePublish, Encoding: "hex"},
		{Event: OnMessagePublish, URL: "http://u:hunter2@h:0/"},
		{Event: OnClientConnected, Encoding: Base64},
		{Event: OnMessagePublish, Headers: []Header{{"Content-Encoding", "br"}}},
		{Event: "on_x", URL: "http://h/", Headers: []Header{{"Te", "x"}}},
	}
	given := &Config{Endpoints: []Endpoint{{URL: "http://h/", Events: rules, Compression: Gzip}}}
	before := dump(given)
	_, err := given.resolve()
	for _, want := range []string{
		"Events[0].Headers[0].Name", "Events[0].Headers[1].Value", "Events[0].Headers[2].Name is there twice", "Events[1].Encoding must be",
		"Events[2].URL must have a port", "Events[3].Encoding has no effect", "Events[4].Headers cannot have a Content-Encoding",
		"Events[5].Event", "Events[5].Headers[0].Name",
	} {
		if !strings.Contains(fmt.Sprint(err), `endpoint "default": `+want) {
			t.Errorf("no %q in:\n%v", want, err)
		}
	}
	if n := strings.Count(fmt.Sprint(err), "\n") + 1; n != 9 {
		t.Errorf("%d problems, want 9:\n%v", n, err)
	}
	noSecret(t, err, "", "hunter2")
	if dump(given) != before {
		t.Error("resolve wrote to the caller's value")
	}
	given = &Config{Endpoints: []Endpoint{{URL: "http://h/", Events: []Rule{
		{Event: "ON_MESSAGE_PUBLISH", Encoding: "BASE64", Headers: []Header{{"a", "b"}}}, {Event: OnMessagePublish, URL: "http://i/", Encoding: "BASE62"},
	}}}}
	before = dump(given)
	cfg, err := given.resolve()
	if err != nil || cfg.Endpoints[0].Events[0].Encoding != Base64 || cfg.Endpoints[1].Body.Encoding != Base62 || cfg.Endpoints[1].Body.MaxPayload != longestBase62 {
		t.Errorf("got %s, %v", dump(cfg), err)
	}
	if dump(given) != before {
		t.Error("resolve wrote to the caller's value")
	}
}

// TestSplitFile has rules with a URL in a file, and reloads it.
func TestSplitFile(t *testing.T) {
	got := newArrivals()
	url := serve(t, got)
	file := filepath.Join(t.TempDir(), "webhook.hcl")
	write := func(rules string) {
		t.Helper()
		write(t, file, "webhook \"w\" {\nurl = \""+url+"/w\"\nevents = [\n"+rules+"\n]\n}\n")
	}
	write(`{ event = "on_message_publish", url = "` + url + `/1" }, { event = "on_message_publish", headers.a = "x" }`)
	h := runHook(t, &Options{File: file, DrainTimeout: 5 * time.Second})
	paths := func(n int) (paths []string) {
		t.Helper()
		h.emit(publishOf("c", "x"))
		for _, a := range got.wait(t, n) {
			paths = append(paths, a.path+a.a)
		}
		slices.Sort(paths)
		return paths
	}
	if got, want := paths(2), []string{"/1", "/wx"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	write(`{ event = "on_message_publish", url = "` + url + `/3", name = "third" }, { event = "on_message_publish", headers.a = "y" }`)
	mustReload(t, h, nil)
	if got, want := paths(2), []string{"/3", "/wy"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if s := h.Stats(); len(s.Endpoints) != 3 || s.Endpoints["w-1"].Offered != 1 || s.Endpoints["third"].Offered != 1 {
		t.Errorf("stats %+v", s)
	}
}
