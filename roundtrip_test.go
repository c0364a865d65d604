package webhook

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A roundTripFunc is an http.RoundTripper.
type roundTripFunc func(*http.Request) (*http.Response, error)

func (f roundTripFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func newTestRoundTripConn(t testing.TB, ep Endpoint, rt http.RoundTripper) poster {
	t.Helper()
	c, err := newClient(&ep, rt)
	if err != nil {
		t.Fatal(err)
	}
	p := c.conn()
	t.Cleanup(p.cancel)
	return p
}

func respond(status int, body io.ReadCloser, header http.Header) *http.Response {
	return &http.Response{StatusCode: status, Header: header, Body: body}
}

// TestRoundTripRequest fixes what a transport gets.
func TestRoundTripRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // the time is fixed, too
		var got *http.Request
		var body string
		transport := roundTripFunc(func(r *http.Request) (*http.Response, error) {
			got = r
			b, _ := io.ReadAll(r.Body)
			body = string(b)
			return answer(204)
		})
		p := newTestRoundTripConn(t, Endpoint{
			URL:     "https://user:secret@webhook.test/a%2Fb/./c?d=%20#e",
			Headers: []Header{{"host", "other.test"}, {"x-Token", "t"}, {"user-agent", "me"}, {"accept-encoding", "identity"}, {"content-type", "text/plain"}},
		}, transport)
		req := &request{id: []byte("id-1"), contentType: "text/html", header: []byte("A: b\r\nc-d: e, f\r\nA: g\r\n"), body: []byte("{}")}
		wantOutcome(t, p.post(req, time.Now(), time.Now().Add(5*time.Second)), delivered, 204, "")

		if u := got.URL.String(); u != "https://webhook.test/a%2Fb/./c?d=%20" || got.Method != "POST" || got.Host != "other.test" {
			t.Errorf("%s %s with Host %s", got.Method, u, got.Host)
		}
		want := http.Header{
			"X-Token":           {"t"},
			"User-Agent":        {"me"},
			"Accept-Encoding":   {"identity"},
			"Content-Type":      {"text/html"},
			"Authorization":     {"Basic dXNlcjpzZWNyZXQ="},
			"Webhook-Id":        {"id-1"},
			"Webhook-Timestamp": {"946684800"},
			"A":                 {"b", "g"},
			"C-D":               {"e, f"},
		}
		if !maps.EqualFunc(got.Header, want, func(a, b []string) bool { return strings.Join(a, "|") == strings.Join(b, "|") }) {
			t.Errorf("header %v\nwant   %v", got.Header, want)
		}
		if body != "{}" || got.ContentLength != 2 {
			t.Errorf("body %q, ContentLength %d", body, got.ContentLength)
		}
		if deadline, ok := got.Context().Deadline(); !ok || time.Until(deadline) != 5*time.Second {
			t.Errorf("deadline %v", deadline)
		}
		if _, err := got.GetBody(); err != nil {
			t.Errorf("GetBody: %v", err)
		}
	})
}

// TestRoundTripTarget checks that a path keeps its percent escapes as they are
// written, whatever else is in it.
func TestRoundTripTarget(t *testing.T) {
	for target, want := range map[string]string{
		"/a%2Fb":          "/a%2Fb",
		"/a%2Fb|{c}%7e":   "/a%2Fb%7C%7Bc%7D%7e",
		"/münchen%2Fnord": "/m%C3%BCnchen%2Fnord",
		"/a?b=%zz|&c=ä":   "/a?b=%zz|&c=%C3%A4",
		"/a?":             "/a?",
		"?b":              "/?b",
		"":                "/",
	} {
		var got string
		p := newTestRoundTripConn(t, Endpoint{URL: "http://webhook.test" + target}, roundTripFunc(func(r *http.Request) (*http.Response, error) {
			got = r.URL.RequestURI()
			return answer(204)
		}))
		wantOutcome(t, p.post(testRequest("{}"), time.Now(), soon()), delivered, 204, "")
		if got != want {
			t.Errorf("%s is requested as %s, want %s", target, got, want)
		}
	}
}

// TestRoundTripSetsNoHeaderTwice has net/http's transport, which adds an
// Accept-Encoding where it finds none.
func TestRoundTripSetsNoHeaderTwice(t *testing.T) {
	checkLeaks(t)
	got := make(chan http.Header, 1)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got <- r.Header }))
	defer server.Close()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	p := newTestRoundTripConn(t, Endpoint{URL: server.URL, Headers: []Header{{"accept-encoding", "identity"}, {"user-agent", "me"}}}, transport)
	wantOutcome(t, p.post(testRequest("{}"), time.Now(), soon()), delivered, 200, "")
	header := <-got
	for name, want := range map[string]string{"Accept-Encoding": "identity", "User-Agent": "me"} {
		if values := header[name]; len(values) != 1 || values[0] != want {
			t.Errorf("%s %q, want %q", name, values, want)
		}
	}
}

func TestRoundTripOutcomes(t *testing.T) {
	secret := &url.Error{Op: "Post", URL: "https://user:secret@webhook.test/?token", Err: errors.New("broken")}
	for _, tt := range []struct {
		name      string
		transport roundTripFunc
		want      outcome // err apart
		err       string
	}{
		{"200", func(*http.Request) (*http.Response, error) { return answer(200) },
			outcome{verdict: delivered, status: 200}, ""},
		{"nil body", func(*http.Request) (*http.Response, error) { return respond(200, nil, nil), nil },
			outcome{verdict: delivered, status: 200}, ""},
		{"redirect", func(*http.Request) (*http.Response, error) { return answer(302) },
			outcome{verdict: misconfigured, status: 302}, ""},
		{"pause", func(*http.Request) (*http.Response, error) {
			return respond(503, http.NoBody, http.Header{"Retry-After": {"7"}}), nil
		}, outcome{verdict: paused, status: 503, retryAfter: 7 * time.Second}, ""},
		{"Retry-After of another status", func(*http.Request) (*http.Response, error) {
			return respond(500, http.NoBody, http.Header{"Retry-After": {"7"}}), nil
		}, outcome{verdict: failed, status: 500}, ""},
		{"URL in the error", func(*http.Request) (*http.Response, error) { return nil, secret },
			outcome{verdict: failed}, "transport: broken"},
		{"URL deep in the error", func(*http.Request) (*http.Response, error) {
			return nil, &url.Error{Op: "Post", URL: "x", Err: errors.Join(secret)}
		}, outcome{verdict: failed}, "transport: broken"},
		{"canceled by itself", func(*http.Request) (*http.Response, error) { return nil, context.Canceled },
			outcome{verdict: failed}, "transport: context canceled"},
		{"nothing", func(*http.Request) (*http.Response, error) { return nil, nil },
			outcome{verdict: failed}, "transport: neither a response nor an error"},
		{"no status", func(*http.Request) (*http.Response, error) { return answer(0) },
			outcome{verdict: failed}, "transport: a response with status 0"},
		{"panics", func(*http.Request) (*http.Response, error) { panic("oops") },
			outcome{verdict: failed}, "transport: panic: oops"},
		{"panics with a URL", func(*http.Request) (*http.Response, error) {
			panic(&url.Error{Op: "Post", URL: "http://me:hunter2@h", Err: io.ErrUnexpectedEOF})
		},
			outcome{verdict: failed}, "transport: panic: unexpected EOF"},
		{"panics in the error's text", func(*http.Request) (*http.Response, error) {
			var none *net.DNSError
			return nil, none
		}, outcome{verdict: failed}, "transport: panic: runtime error: invalid memory address or nil pointer dereference"},
		{"URL error without a cause", func(*http.Request) (*http.Response, error) { return nil, fmt.Errorf("no: %w", new(url.Error)) },
			outcome{verdict: failed}, "transport: panic: runtime error: invalid memory address or nil pointer dereference"},
		{"panics in the body", func(*http.Request) (*http.Response, error) { return respond(200, panicBody{}, nil), nil },
			outcome{verdict: delivered, status: 200}, ""},
		{"hangs", func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		}, outcome{verdict: failed}, "transport: timeout after 5s"},
		{"hangs in the body", func(r *http.Request) (*http.Response, error) {
			return respond(200, io.NopCloser(readerFunc(func([]byte) (int, error) {
				<-r.Context().Done()
				return 0, r.Context().Err()
			})), nil), nil
		}, outcome{verdict: delivered, status: 200}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newTestRoundTripConn(t, Endpoint{URL: "https://user:secret@webhook.test/?token"}, tt.transport)
				o := p.post(testRequest("{}"), time.Now(), time.Now().Add(5*time.Second))
				wantOutcome(t, o, tt.want.verdict, tt.want.status, tt.err)
				if o.retryAfter != tt.want.retryAfter {
					t.Errorf("retryAfter %v, want %v", o.retryAfter, tt.want.retryAfter)
				}
				if tt.name == "hangs" && !errors.Is(o.err, os.ErrDeadlineExceeded) {
					t.Errorf("%v is no timeout", o.err)
				}
			})
		})
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestRoundTripCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newTestRoundTripConn(t, Endpoint{URL: "http://webhook.test/"}, roundTripFunc(func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		}))
		go func() {
			synctest.Wait()
			p.cancel()
		}()
		for range 2 {
			start := time.Now()
			wantOutcome(t, p.post(testRequest("{}"), start, start.Add(time.Minute)), canceled, 0, "context canceled")
			if took := time.Since(start); took != 0 {
				t.Errorf("took %v", took)
			}
		}
	})
}

// TestRoundTripBodyIsLent checks that a transport which reads on after its
// return does not see the next request's body, nor race with it.
func TestRoundTripBodyIsLent(t *testing.T) {
	var left []io.Reader
	p := newTestRoundTripConn(t, Endpoint{URL: "http://webhook.test/"}, roundTripFunc(func(r *http.Request) (*http.Response, error) {
		_, _ = r.Body.Read(make([]byte, 1))
		again, _ := r.GetBody()
		left = append(left, r.Body, again)
		return answer(413)
	}))
	wantOutcome(t, p.post(testRequest("first"), time.Now(), soon()), refused, 413, "")
	for _, r := range left {
		if b, err := io.ReadAll(r); len(b) > 0 || err != errRevoked {
			t.Errorf("read %q, %v; want nothing, %v", b, err, errRevoked)
		}
	}
}

// TestRoundTripOverNetHTTP runs the usual transport against the usual server,
// with replies that are read and not.
func TestRoundTripOverNetHTTP(t *testing.T) {
	checkLeaks(t)
	addrs := make(map[string]int)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		addrs[r.RemoteAddr]++
		_, _ = io.Copy(io.Discard, r.Body)
		if r.Header.Get("webhook-id") == "" || r.ContentLength < 0 {
			w.WriteHeader(400)
		}
		_, _ = io.WriteString(w, strings.Repeat("x", maxReplyBody))
	}))
	t.Cleanup(server.Close)
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	p := newTestRoundTripConn(t, Endpoint{URL: server.URL + "/a"}, transport)
	for _, body := range []string{"{}", "", strings.Repeat("x", 1<<20), "{}"} {
		wantOutcome(t, p.post(testRequest(body), time.Now(), soon()), delivered, 200, "")
	}
	if len(addrs) != 1 {
		t.Errorf("connections and their requests: %v, want one", addrs)
	}
}

// TestRoundTripClosedConnection: a request that a kept connection swallowed is
// sent again, once, as part of the same attempt.
func TestRoundTripClosedConnection(t *testing.T) {
	checkLeaks(t)
	server := newRawServer(t, func(c *rawConn, n int) {
		switch n {
		case 1: // answers once
			if _, err := c.read(); err == nil && c.say(replyOK) == nil {
				_, _ = c.read()
			}
		case 2, 4: // answer until the second request begins
			if _, err := c.read(); err == nil && c.say(replyOK) == nil {
				_, _ = c.read()
				_ = c.say("HTTP/1.1 2")
			}
		case 3: // answers nothing
			_, _ = c.read()
		}
	})
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	p := newTestRoundTripConn(t, Endpoint{URL: server.url()}, transport)
	for i, want := range []verdict{delivered, delivered, failed, failed, delivered} {
		if out := p.post(testRequest("{}"), time.Now(), soon()); out.verdict != want {
			t.Errorf("request %d: %+v, want verdict %d", i, out, want)
		}
	}
	if n := server.accepted(); n != 4 {
		t.Errorf("%d connections, want 4: nothing is sent again on a new one, or after a byte", n)
	}
}

// TestRoundTripSentOnce: a server that is slow, or that ends one of the streams of
// a connection, or all with the connection, gets a request once.
func TestRoundTripSentOnce(t *testing.T) {
	t.Run("timeout of the transport", func(t *testing.T) {
		var requests atomic.Int64
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			if requests.Add(1) > 1 {
				<-r.Context().Done()
			}
		}))
		defer server.Close()
		transport := new(http.Transport)
		defer transport.CloseIdleConnections()
		p := newTestRoundTripConn(t, Endpoint{URL: server.URL}, transport)
		wantOutcome(t, p.post(testRequest("{}"), time.Now(), soon()), delivered, 200, "")
		transport.ResponseHeaderTimeout = 500 * time.Millisecond // in which the server has to get the next one
		if out := p.post(testRequest("{}"), time.Now(), soon()); out.verdict != failed || requests.Load() != 2 {
			t.Errorf("%+v after %d requests, want 2", out, requests.Load())
		}
	})
	for _, clear := range []bool{false, true} {
		for name, end := range map[string]func(*httptest.Server){
			"stream":     func(*httptest.Server) { panic(http.ErrAbortHandler) },
			"connection": (*httptest.Server).CloseClientConnections,
		} {
			t.Run(fmt.Sprintf("HTTP/2, end of the %s, clear %v", name, clear), func(t *testing.T) {
				var requests atomic.Int64
				var server *httptest.Server
				server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					_, _ = io.Copy(io.Discard, r.Body)
					if requests.Add(1) > 1 {
						end(server)
					}
				}))
				transport := new(http.Transport)
				if clear {
					transport.Protocols = new(http.Protocols)
					transport.Protocols.SetUnencryptedHTTP2(true)
					server.Config.Protocols = transport.Protocols
					server.Start()
				} else {
					server.EnableHTTP2 = true
					server.StartTLS()
					transport = server.Client().Transport.(*http.Transport)
				}
				defer server.Close()
				defer transport.CloseIdleConnections()
				p := newTestRoundTripConn(t, Endpoint{URL: server.URL}, transport)
				wantOutcome(t, p.post(testRequest("{}"), time.Now(), soon()), delivered, 200, "")
				if out := p.post(testRequest("{}"), time.Now(), soon()); out.verdict != failed || requests.Load() != 2 {
					t.Errorf("%+v after %d requests, want 2", out, requests.Load())
				}
			})
		}
	}
	t.Run("HTTP/2, before the first reply", func(t *testing.T) {
		const workers = 2
		var requests atomic.Int64
		came := make(chan bool, 2*workers)
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			n := requests.Add(1)
			came <- true
			if n <= workers {
				<-r.Context().Done()
			}
		}))
		server.EnableHTTP2 = true
		server.StartTLS()
		defer server.Close()
		transport := server.Client().Transport.(*http.Transport)
		defer transport.CloseIdleConnections()
		c, err := newClient(&Endpoint{URL: server.URL}, transport)
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range workers {
			p := c.conn()
			t.Cleanup(p.cancel)
			wg.Go(func() {
				if out := p.post(testRequest("{}"), time.Now(), soon()); out.verdict != failed {
					t.Errorf("%+v", out)
				}
			})
			<-came // over one connection
		}
		server.CloseClientConnections()
		wg.Wait()
		if n := requests.Load(); n != workers {
			t.Errorf("%d requests, want %d", n, workers)
		}
	})
	t.Run("connections that end with a request", func(t *testing.T) {
		var poisoned atomic.Int64
		var together sync.WaitGroup
		const workers = 8
		together.Add(workers)
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			if r.Header.Get("webhook-id") == "poison" {
				poisoned.Add(1)
				panic(http.ErrAbortHandler)
			}
			together.Done() // so that each has a connection
			together.Wait()
		}))
		defer server.Close()
		transport := &http.Transport{MaxIdleConnsPerHost: workers}
		defer transport.CloseIdleConnections()
		var wg sync.WaitGroup
		for range workers {
			wg.Go(func() {
				p := newTestRoundTripConn(t, Endpoint{URL: server.URL}, transport)
				p.post(testRequest("{}"), time.Now(), soon())
			})
		}
		wg.Wait()
		poison := testRequest("{}")
		poison.id = []byte("poison")
		p := newTestRoundTripConn(t, Endpoint{URL: server.URL}, transport)
		if out := p.post(poison, time.Now(), soon()); out.verdict != failed || poisoned.Load() != 2 {
			t.Errorf("%+v after %d requests, want 2", out, poisoned.Load())
		}
	})
}

// A muteListener accepts connections. What is said over the first one does not
// arrive any more once mute is set.
type muteListener struct {
	net.Listener
	mute     atomic.Bool
	accepted atomic.Int64
}

func (l *muteListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil && l.accepted.Add(1) == 1 {
		c = &muteConn{c, &l.mute}
	}
	return c, err
}

type muteConn struct {
	net.Conn
	mute *atomic.Bool
}

func (c *muteConn) Write(b []byte) (int, error) {
	if c.mute.Load() {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

// TestRoundTripDeadConnection has a connection that stays open and over which nothing
// comes any more: it does not carry requests for good.
func TestRoundTripDeadConnection(t *testing.T) {
	for name, protocol := range map[string]func(*http.Protocols){
		"HTTP/1.1":        func(p *http.Protocols) { p.SetHTTP1(true) },
		"HTTP/2":          func(p *http.Protocols) { p.SetHTTP2(true) },
		"HTTP/2 in clear": func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) },
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
			}))
			listener := &muteListener{Listener: server.Listener}
			server.Listener = listener
			protocols := new(http.Protocols)
			protocol(protocols)
			server.Config.Protocols = protocols
			if protocols.HTTP2() {
				server.EnableHTTP2 = true
				server.StartTLS()
			} else {
				server.Start()
			}
			defer server.Close()
			transport := server.Client().Transport.(*http.Transport)
			transport.Protocols = protocols
			defer transport.CloseIdleConnections()
			p := newTestRoundTripConn(t, Endpoint{URL: server.URL}, transport)
			wantOutcome(t, p.post(testRequest("{}"), time.Now(), soon()), delivered, 200, "")
			listener.mute.Store(true)
			failures := 0
			for failures < 10 && p.post(testRequest("{}"), time.Now(), time.Now().Add(200*time.Millisecond)).verdict != delivered {
				failures++
			}
			if failures == 0 || failures > 2 {
				t.Errorf("%d failures, want 1 or 2", failures)
			}
			wantOutcome(t, p.post(testRequest("{}"), time.Now(), soon()), delivered, 200, "")
			if n := listener.accepted.Load(); n != 2 {
				t.Errorf("%d connections, want 2", n)
			}
		})
	}
}

// TestRoundTripUpgrade has a server that takes the connection for something else:
// there is no end to read to.
func TestRoundTripUpgrade(t *testing.T) {
	checkLeaks(t)
	server := newRawServer(t, func(c *rawConn, _ int) {
		if _, err := c.read(); err == nil && c.say("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n") == nil {
			c.wait()
		}
	})
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	p := newTestRoundTripConn(t, Endpoint{URL: server.url()}, transport)
	begin := time.Now()
	if out := p.post(testRequest("{}"), begin, begin.Add(time.Minute)); out.verdict == delivered || time.Since(begin) > rawTimeout {
		t.Errorf("%+v after %v", out, time.Since(begin))
	}
}

// A panicBody is one that a transport should not have.
type panicBody struct{}

func (panicBody) Read([]byte) (int, error) { panic("read") }
func (panicBody) Close() error             { panic("close") }
