package webhook

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// newTestConn makes a poster for an endpoint, and cancels it with the test.
func newTestConn(t testing.TB, ep Endpoint) *http1Conn {
	t.Helper()
	c, err := newClient(&ep, nil)
	if err != nil {
		t.Fatal(err)
	}
	p := c.conn().(*http1Conn)
	t.Cleanup(p.cancel)
	return p
}

func testRequest(body string) *request {
	return &request{id: []byte("01234567-89ab-7def-8123-456789abcdef"), body: []byte(body)}
}

// soon is a deadline that no test should reach.
func soon() time.Time { return time.Now().Add(20 * time.Second) }

func wantOutcome(t testing.TB, o outcome, v verdict, status int, err string) {
	t.Helper()
	text := ""
	if o.err != nil {
		text = o.err.Error()
	}
	if o.verdict != v || o.status != status || text != err {
		t.Errorf("got verdict %d, status %d, error %q; want %d, %d, %q", o.verdict, o.status, text, v, status, err)
	}
}

// TestPostRequest fixes every byte of a request.
func TestPostRequest(t *testing.T) {
	checkLeaks(t)
	got := make(chan string, 1)
	server := newRawServer(t, func(c *rawConn, _ int) {
		for {
			req, err := c.read()
			if err != nil {
				return
			}
			got <- req.line + "\n" + strings.Join(req.header, "\n") + "\n\n" + req.body
			_ = c.say(replyOK)
		}
	})
	p := newTestConn(t, Endpoint{URL: server.url() + "/a%2Fb?c", Headers: []Header{{"X-Token", "s"}}})
	for _, tt := range []struct {
		name string
		req  request
		want string
	}{
		{"plain", request{id: []byte("id-1"), body: []byte(`{"a":1}`)},
			"Content-Type: application/json\nUser-Agent: mochi-webhook/1\nwebhook-id: id-1\nwebhook-timestamp: TIME\nContent-Length: 7\n\n{\"a\":1}"},
		{"everything", request{id: []byte("id-2"), contentType: "text/plain", header: []byte("A: b\r\nc: d\r\n"), body: []byte("x")},
			"Content-Type: text/plain\nUser-Agent: mochi-webhook/1\nwebhook-id: id-2\nwebhook-timestamp: TIME\nA: b\nc: d\nContent-Length: 1\n\nx"},
		{"no body", request{id: []byte("id-3")},
			"Content-Type: application/json\nUser-Agent: mochi-webhook/1\nwebhook-id: id-3\nwebhook-timestamp: TIME\nContent-Length: 0\n\n"},
		{"long body", request{id: []byte("id-4"), body: []byte(strings.Repeat("x", 1<<20))},
			"Content-Type: application/json\nUser-Agent: mochi-webhook/1\nwebhook-id: id-4\nwebhook-timestamp: TIME\nContent-Length: 1048576\n\n" + strings.Repeat("x", 1<<20)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := time.Now().Unix()
			wantOutcome(t, p.post(&tt.req, time.Now(), soon()), delivered, 200, "")
			after := time.Now().Unix()
			want := "POST /a%2Fb?c HTTP/1.1\nHost: " + server.addr + "\nX-Token: s\n" + tt.want
			have := <-got
			_, stamp, _ := strings.Cut(have, "webhook-timestamp: ")
			stamp, _, _ = strings.Cut(stamp, "\n")
			if sec, err := strconv.ParseInt(stamp, 10, 64); err != nil || sec < before || sec > after {
				t.Errorf("webhook-timestamp %q, want %d to %d", stamp, before, after)
			}
			if want = strings.Replace(want, "TIME", stamp, 1); have != want {
				t.Errorf("got  %.600q\nwant %.600q", have, want)
			}
		})
	}
	if n := server.accepted(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

// TestPostReplies sends two requests to servers that give every kind of reply:
// neither reply affects the other, and the connection is kept when it may be.
func TestPostReplies(t *testing.T) {
	checkLeaks(t)
	for _, tt := range replyCases {
		t.Run(tt.name, func(t *testing.T) {
			server := newRawServer(t, func(c *rawConn, _ int) {
				for {
					if _, err := c.read(); err != nil || c.say(tt.reply) != nil || !tt.keep {
						return
					}
				}
			})
			p := newTestConn(t, Endpoint{URL: server.url()})
			for range 2 {
				o := p.post(testRequest("{}"), time.Now(), soon())
				if tt.err == "" {
					wantOutcome(t, o, classify(tt.status, 0), tt.status, "")
				} else if o.verdict != failed || o.status != 0 || !strings.HasSuffix(o.err.Error(), tt.err) {
					// Bytes behind the end, unread by either side, may
					// reset the connection before the reply is read.
					t.Errorf("got verdict %d, status %d, error %v; want failed, 0, %q", o.verdict, o.status, o.err, tt.err)
				}
			}
			want := 2
			if tt.keep {
				want = 1
			}
			if n := server.accepted(); n != want {
				t.Errorf("%d connections, want %d", n, want)
			}
		})
	}
}

// TestPostEndless sends replies without an end: what can be told early is, and
// nothing is read for long.
func TestPostEndless(t *testing.T) {
	checkLeaks(t)
	for _, tt := range []struct {
		name, first, again string
		status             int
		err                string
	}{
		{"headers", "HTTP/1.1 200 OK\r\n", "X-Header: value\r\n", 0, "malformed reply: the head is longer than 64 KiB"},
		{"header line", "HTTP/1.1 200 OK\r\nX: ", strings.Repeat("x", 1000), 0, "malformed reply: the head is longer than 64 KiB"},
		{"interim replies", "", "HTTP/1.1 100 Continue\r\n\r\n", 0, "malformed reply: the head is longer than 64 KiB"},
		{"reason", "HTTP/1.1 200 ", "OK", 0, "malformed reply: the head is longer than 64 KiB"},
		{"garbage", "", "\x00\xff\n\r", 0, "malformed reply: not HTTP/1"},
		{"100 MiB of body", "HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n", strings.Repeat("x", 1<<16), 200, ""},
		{"chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n", 200, ""},
		{"chunk extension", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", "x", 200, ""},
		{"trailers", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", "A: b\r\n", 200, ""},
		{"body without length", "HTTP/1.1 200 OK\r\n\r\n", "x", 200, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := newRawServer(t, func(c *rawConn, _ int) {
				if _, err := c.read(); err != nil {
					return
				}
				for err := c.say(tt.first); err == nil; {
					err = c.say(tt.again)
				}
			})
			p := newTestConn(t, Endpoint{URL: server.url()})
			v := failed
			if tt.status != 0 {
				v = delivered
			}
			for range 2 {
				wantOutcome(t, p.post(testRequest("{}"), time.Now(), soon()), v, tt.status, tt.err)
			}
			if n := server.accepted(); n != 2 {
				t.Errorf("%d connections, want 2", n)
			}
		})
	}
}

// TestPostEarlyReply is about servers that answer before they have read the
// request, and may never read it.
func TestPostEarlyReply(t *testing.T) {
	checkLeaks(t)
	const tooLarge = "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n"
	for _, tt := range []struct {
		name   string
		script func(c *rawConn)
		unread bool // the body stays unread
	}{
		{"after the head, and closes", func(c *rawConn) {
			_, _ = c.readHead()
			_ = c.say(tooLarge)
		}, true},
		{"after the head, and reads no more", func(c *rawConn) {
			_, _ = c.readHead()
			_ = c.say(tooLarge)
			c.wait()
		}, true},
		{"after the head, and reads on", func(c *rawConn) {
			_, _ = c.readHead()
			_ = c.say(tooLarge)
			_, _ = io.Copy(io.Discard, c.r)
		}, false},
		{"before anything is read, and closes", func(c *rawConn) {
			_ = c.say(tooLarge)
			_ = c.Conn.(*net.TCPConn).CloseWrite()
			_, _ = io.Copy(io.Discard, c.r)
		}, false},
		{"before anything is read, and closes on the request", func(c *rawConn) {
			_ = c.say(tooLarge) // what comes then is answered with a RST
		}, true},
		{"before anything is read, and reads nothing", func(c *rawConn) {
			_ = c.say(tooLarge)
			c.wait()
		}, true},
	} {
		for name, body := range map[string]string{"short body": "{}", "8 MiB": strings.Repeat("x", 8<<20)} {
			t.Run(tt.name+"/"+name, func(t *testing.T) {
				server := newRawServer(t, func(c *rawConn, _ int) { tt.script(c) })
				p := newTestConn(t, Endpoint{URL: server.url()})
				wantOutcome(t, p.post(testRequest(body), time.Now(), soon()), refused, 413, "")
				if kept := p.conn != nil; kept && tt.unread && len(body) > maxInlineBody {
					t.Error("the connection is kept although the body was not read")
				}
			})
		}
	}
}

// TestPostLongBodyKeepsConnection checks that a long body, fully read before
// the reply, costs no connection.
func TestPostLongBodyKeepsConnection(t *testing.T) {
	checkLeaks(t)
	server := newRawServer(t, serveOK)
	p := newTestConn(t, Endpoint{URL: server.url()})
	for i := range 50 {
		body := strings.Repeat("x", maxInlineBody+1+i*10_000)
		wantOutcome(t, p.post(testRequest(body), time.Now(), soon()), delivered, 200, "")
	}
	if n := server.accepted(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

// TestPostClosedIdle is about kept connections that the server has closed
// meanwhile: every request arrives, and none fails.
func TestPostClosedIdle(t *testing.T) {
	for _, body := range []string{"{}", strings.Repeat("x", 1<<20)} {
		size := fmt.Sprintf("/%d bytes", len(body))

		for by, last := range map[string]time.Time{
			"look":    {},                        // as if it had been idle for long
			"request": time.Now().Add(time.Hour), // never idle
		} {
			t.Run("found by the "+by+size, func(t *testing.T) {
				checkLeaks(t)
				var requests atomic.Int32
				server := newRawServer(t, func(c *rawConn, n int) {
					if _, err := c.read(); err == nil {
						requests.Add(1)
						_ = c.say(replyOK)
					}
				})
				p := newTestConn(t, Endpoint{URL: server.url()})
				for range 20 {
					wantOutcome(t, p.post(testRequest(body), time.Now(), soon()), delivered, 200, "")
					waitReadable(t, p)
					p.last = last
				}
				if r, n := requests.Load(), server.accepted(); r != 20 || n != 20 {
					t.Errorf("%d requests on %d connections, want 20 on 20", r, n)
				}
			})
		}

		for name, end := range map[string]func(c *rawConn){
			"closed": func(c *rawConn) { c.Close() },
			"reset":  func(c *rawConn) { c.reset() },
		} {
			t.Run(name+" under the request"+size, func(t *testing.T) {
				checkLeaks(t)
				var requests atomic.Int32
				server := newRawServer(t, func(c *rawConn, n int) {
					for range 2 {
						if _, err := c.read(); err != nil {
							return
						}
						if requests.Add(1) == 2 {
							end(c)
							return
						}
						_ = c.say(replyOK)
					}
				})
				p := newTestConn(t, Endpoint{URL: server.url()})
				for range 2 {
					wantOutcome(t, p.post(testRequest(body), time.Now(), soon()), delivered, 200, "")
				}
				if r, n := requests.Load(), server.accepted(); r != 3 || n != 2 {
					t.Errorf("%d requests on %d connections, want 3 on 2", r, n)
				}
			})
		}
	}
}

// waitReadable waits until the end of p's connection has arrived.
func waitReadable(t *testing.T, p *http1Conn) {
	t.Helper()
	if err := p.raw.SetReadDeadline(soon()); err != nil {
		t.Fatal(err)
	}
	if _, err := p.raw.Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("read %v, want EOF", err)
	}
}

// TestPostResendsOnce checks that a request is sent again once at most, and
// only if there was no byte of a reply and no timeout.
func TestPostResendsOnce(t *testing.T) {
	for _, tt := range []struct {
		name     string
		script   func(c *rawConn, n int) // of the second request on
		timeout  time.Duration
		status   int
		err      string
		requests int32
	}{
		{"the new connection is closed too", func(*rawConn, int) {}, time.Minute, 0, "read: the connection was closed without a reply", 3},
		{"408 is a reply", func(c *rawConn, _ int) { _ = c.say("HTTP/1.1 408 X\r\nConnection: close\r\n\r\n") }, time.Minute, 408, "", 2},
		{"a byte of a reply came", func(c *rawConn, _ int) { _ = c.say("H") }, time.Minute, 0, "read: the connection was closed in the middle of the reply", 2},
		{"garbage came", func(c *rawConn, _ int) { _ = c.say("400") }, time.Minute, 0, "malformed reply: not HTTP/1", 2},
		{"timeout", func(c *rawConn, _ int) { c.wait() }, 500 * time.Millisecond, 0, "read: timeout after 500ms", 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			checkLeaks(t)
			var requests atomic.Int32
			server := newRawServer(t, func(c *rawConn, n int) {
				for {
					if _, err := c.read(); err != nil {
						return
					}
					if requests.Add(1) > 1 {
						tt.script(c, n)
						return
					}
					_ = c.say(replyOK)
				}
			})
			p := newTestConn(t, Endpoint{URL: server.url()})
			wantOutcome(t, p.post(testRequest("{}"), time.Now(), soon()), delivered, 200, "")
			start := time.Now()
			o := p.post(testRequest("{}"), start, start.Add(tt.timeout))
			wantOutcome(t, o, failed, tt.status, tt.err)
			if r := requests.Load(); r != tt.requests {
				t.Errorf("%d requests, want %d", r, tt.requests)
			}
		})
	}
}

func TestPostFailures(t *testing.T) {
	refusing, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refusing.Close()
	for _, tt := range []struct {
		name    string
		script  func(c *rawConn, n int)
		url     string
		timeout time.Duration
		err     string
	}{
		{name: "refused", url: "http://" + refusing.Addr().String(), timeout: time.Minute,
			err: "dial " + refusing.Addr().String() + ": connection refused"},
		{name: "no time left", url: "http://" + refusing.Addr().String(), timeout: -time.Second,
			err: "dial: timeout after 0s"},
		{name: "hangs", timeout: 500 * time.Millisecond, err: "read: timeout after 500ms",
			script: func(c *rawConn, _ int) { c.wait() }},
		{name: "trickles", timeout: 500 * time.Millisecond, err: "read: timeout after 500ms",
			script: func(c *rawConn, _ int) {
				for err := c.say("HTTP/1.1 200 OK\r\nX: "); err == nil; err = c.say("x") {
					time.Sleep(time.Millisecond)
				}
			}},
		{name: "reset", timeout: time.Minute, err: "read: connection reset by peer",
			script: func(c *rawConn, _ int) {
				_, _ = c.read()
				c.reset()
			}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			checkLeaks(t)
			if tt.script != nil {
				tt.url = newRawServer(t, tt.script).url()
			}
			p := newTestConn(t, Endpoint{URL: tt.url})
			for range 2 {
				start := time.Now()
				o := p.post(testRequest("{}"), start, start.Add(tt.timeout))
				wantOutcome(t, o, failed, 0, tt.err)
				if timedOut := errors.Is(o.err, os.ErrDeadlineExceeded); timedOut != strings.Contains(tt.err, "timeout") {
					t.Errorf("errors.Is(%v, os.ErrDeadlineExceeded) = %v", o.err, timedOut)
				}
				if took := time.Since(start); tt.timeout < time.Second && took > rawTimeout {
					t.Errorf("took %v, deadline after %v", took, tt.timeout)
				}
			}
		})
	}
}

// TestPostTimeoutOfTheSystem: only what the attempt's own deadline ends is told as that.
func TestPostTimeoutOfTheSystem(t *testing.T) {
	p := newTestConn(t, Endpoint{URL: "http://127.0.0.1/"})
	start := time.Now()
	for _, tt := range []struct {
		err   syscall.Errno
		until time.Time
		want  string
	}{
		{syscall.ETIMEDOUT, soon(), "dial: connection timed out"},
		{syscall.ETIMEDOUT, start, "dial: timeout after 0s"},
		{syscall.ECONNREFUSED, start, "dial: connection refused"},
	} {
		p.until = tt.until
		err := &attemptError{"dial", &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", tt.err)}}
		wantOutcome(t, p.fail(err, start), failed, 0, tt.want)
	}
}

// TestPostStatusBeforeTimeout checks that a status counts although the body
// never ends.
func TestPostStatusBeforeTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newTestConn(t, Endpoint{URL: "http://127.0.0.1/"})
		here, there := net.Pipe()
		p.conn, p.raw = here, here
		go func() { // ends with the pipe
			defer there.Close()
			room := make([]byte, 4096)
			_, _ = there.Read(room)
			_, _ = io.WriteString(there, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhalf")
			_, _ = there.Read(room)
		}()
		start := time.Now()
		wantOutcome(t, p.post(testRequest("{}"), start, start.Add(500*time.Millisecond)), delivered, 200, "")
		if took := time.Since(start); p.conn != nil || took != 500*time.Millisecond {
			t.Errorf("the connection is kept: %v, after %v", p.conn != nil, took)
		}
	})
}

// TestPostSharedDeadline checks that every attempt has its own deadline to the
// moment although a connection is not told each: reading and writing both go on
// beyond an earlier attempt's.
func TestPostSharedDeadline(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
	for _, tt := range []struct {
		name             string
		part, read, tell time.Duration // what the server waits before it reads, with a part, and before it answers
		timeout          time.Duration // of the second attempt
		verdict          verdict
		took             time.Duration
		err              string
	}{
		{"at once", 0, 0, 0, time.Minute, delivered, 0, ""},
		{"slow reply", 0, 0, 70 * time.Second, 80 * time.Second, delivered, 70 * time.Second, ""},
		{"slow reader", 70 * time.Second, 0, 0, 80 * time.Second, delivered, 70 * time.Second, ""},
		{"slow in the middle", lookAgain / 2, 70*time.Second - lookAgain/2, 0, 80 * time.Second, delivered, 70 * time.Second, ""},
		{"both", 50 * time.Second, 0, 20 * time.Second, 80 * time.Second, delivered, 70 * time.Second, ""},
		{"no reply", 0, 0, time.Hour, 80 * time.Second, failed, 80 * time.Second, "read: timeout after 1m20s"},
		{"no reader", time.Hour, 0, 0, 80 * time.Second, failed, 80 * time.Second, "read: timeout after 1m20s"},
		{"sooner than the first", 0, 0, time.Hour, time.Second, failed, time.Second, "read: timeout after 1s"},
		{"much later than the first", 0, 0, time.Hour, 50 * time.Minute, failed, 50 * time.Minute, "read: timeout after 50m0s"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newTestConn(t, Endpoint{URL: "http://127.0.0.1/"})
				here, there := net.Pipe()
				p.conn, p.raw, p.used = here, here, true
				go func() { // ends with the pipe
					defer there.Close()
					room := make([]byte, 4096) // one write is two reads
					var lengths []int
					for _, wait := range [][3]time.Duration{{}, {tt.part, tt.read, tt.tell}} {
						time.Sleep(wait[0])
						begin, _ := there.Read(room[:100])
						time.Sleep(wait[1])
						rest, _ := there.Read(room)
						time.Sleep(wait[2])
						_, _ = there.Write([]byte(ok))
						lengths = append(lengths, begin+rest)
					}
					if tt.verdict == delivered && lengths[0] != lengths[1] {
						t.Errorf("requests of %d bytes, want the same", lengths)
					}
				}()
				wantOutcome(t, p.post(testRequest("{}"), time.Now(), time.Now().Add(time.Minute)), delivered, 200, "")
				start := time.Now()
				o := p.post(testRequest("{}"), start, start.Add(tt.timeout))
				wantOutcome(t, o, tt.verdict, o.status, tt.err)
				if took := time.Since(start); took != tt.took {
					t.Errorf("took %v, want %v", took, tt.took)
				}
				p.cancel()
				time.Sleep(2 * time.Hour) // the server's end
			})
		})
	}
}

// TestPostAddressFamilies checks that a name with addresses of both families
// reaches a server that listens on one of them.
func TestPostAddressFamilies(t *testing.T) {
	checkLeaks(t)
	server := newRawServer(t, serveOK)
	p := newTestConn(t, Endpoint{URL: "http://localhost:" + server.port()})
	wantOutcome(t, p.post(testRequest("{}"), time.Now(), soon()), delivered, 200, "")
}

func TestPostRetryAfter(t *testing.T) {
	checkLeaks(t)
	server := newRawServer(t, func(c *rawConn, n int) {
		_, _ = c.read()
		_ = c.say([]string{"",
			replyText(429, "", "Retry-After: 3"),
			replyText(503, "", "Retry-After: 0"),
			replyText(429, ""),
			replyText(500, "", "Retry-After: 3"),
		}[n])
	})
	p := newTestConn(t, Endpoint{URL: server.url()})
	for _, want := range []outcome{
		{verdict: paused, status: 429, retryAfter: 3 * time.Second},
		{verdict: failed, status: 503},
		{verdict: failed, status: 429},
		{verdict: failed, status: 500},
	} {
		got := p.post(testRequest("{}"), time.Now(), soon())
		if got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
		p.closeIdle()
	}
}

func TestPostCancel(t *testing.T) {
	long := strings.Repeat("x", 8<<20)
	for _, tt := range []struct {
		name string
		body string
		// script ends when the post hangs where it should.
		script func(c *rawConn)
	}{
		{"waits for the reply", "{}", func(c *rawConn) { _, _ = c.read() }},
		{"reads the reply", "{}", func(c *rawConn) {
			_, _ = c.read()
			_ = c.say("HTTP/1.1 200")
		}},
		{"writes", long, func(c *rawConn) { _, _ = c.readHead() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			checkLeaks(t)
			hangs := make(chan struct{})
			server := newRawServer(t, func(c *rawConn, _ int) {
				tt.script(c)
				close(hangs)
				c.wait()
			})
			p := newTestConn(t, Endpoint{URL: server.url()})
			go func() {
				<-hangs
				p.cancel()
			}()
			wantOutcome(t, p.post(testRequest(tt.body), time.Now(), soon()), canceled, 0, "context canceled")
			wantOutcome(t, p.post(testRequest(tt.body), time.Now(), soon()), canceled, 0, "context canceled")
			if n := server.accepted(); n != 1 {
				t.Errorf("%d connections, want 1", n)
			}
		})
	}
	t.Run("before the first", func(t *testing.T) {
		checkLeaks(t)
		server := newRawServer(t, func(c *rawConn, _ int) {})
		p := newTestConn(t, Endpoint{URL: server.url()})
		p.cancel()
		p.cancel()
		wantOutcome(t, p.post(testRequest("{}"), time.Now(), soon()), canceled, 0, "context canceled")
		if n := server.accepted(); n != 0 {
			t.Errorf("%d connections, want none", n)
		}
	})
	t.Run("at any time", func(t *testing.T) {
		checkLeaks(t)
		var got atomic.Int32
		server := newRawServer(t, func(c *rawConn, n int) {
			for i := range 3 { // and then closes
				if _, err := c.read(); err != nil {
					return
				}
				got.Add(1)
				if i < 2 || n%2 == 0 {
					_ = c.say(replyOK)
				}
			}
		})
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for i := range 50 {
					p := newTestConn(t, Endpoint{URL: server.url()})
					timer := time.AfterFunc(time.Duration(i)*20*time.Microsecond, p.cancel)
					for {
						o := p.post(testRequest("{}"), time.Now(), soon())
						if o.verdict == canceled {
							break
						}
						if o.verdict != delivered && o.verdict != failed {
							t.Errorf("outcome %+v", o)
						}
					}
					timer.Stop()
					p.closeIdle()
				}
			})
		}
		wg.Wait()
	})
}

func TestPostCloseIdle(t *testing.T) {
	checkLeaks(t)
	server := newRawServer(t, serveOK)
	p := newTestConn(t, Endpoint{URL: server.url()})
	p.closeIdle() // without a connection
	for range 2 {
		wantOutcome(t, p.post(testRequest("{}"), time.Now(), soon()), delivered, 200, "")
		p.closeIdle()
		p.closeIdle()
	}
	if n := server.accepted(); n != 2 {
		t.Errorf("%d connections, want 2", n)
	}
}

// TestPostAllocs fails when a post on a kept connection allocates.
func TestPostAllocs(t *testing.T) {
	reply := []byte(replyOK)
	server := newRawServer(t, func(c *rawConn, _ int) {
		buf := make([]byte, 4096)
		for {
			if _, err := c.Conn.Read(buf); err != nil {
				return
			}
			if _, err := c.Conn.Write(reply); err != nil {
				return
			}
		}
	})
	p := newTestConn(t, Endpoint{URL: server.url()})
	req := testRequest("{}")
	post := func() {
		p.last = time.Time{} // with the look at the connection
		if o := p.post(req, time.Now(), soon()); o.verdict != delivered {
			t.Fatalf("outcome %+v", o)
		}
	}
	post()
	if n := testing.AllocsPerRun(100, post); n > 0 {
		t.Errorf("%v allocations per post, want none", n)
	}
}

// newSurplusServer starts a server that takes its first request, sends surplus behind
// the reply, and tells when it has. It refuses all other requests.
func newSurplusServer(t *testing.T, surplus string, gap, slow time.Duration) (server *rawServer, sent chan bool) {
	sent = make(chan bool, 1)
	return newRawServer(t, func(c *rawConn, n int) {
		for i := 0; ; i++ {
			if _, err := c.read(); err != nil {
				return
			}
			if n == 1 && i == 0 {
				_ = c.say(replyOK)
				time.Sleep(gap)
				_ = c.say(surplus)
				sent <- true
				continue
			}
			time.Sleep(slow)
			_ = c.say(replyText(500, ""))
		}
	}), sent
}

// TestPostSurplus has a server that sends a reply too many, soon or at once, and
// refuses the next request: that must not be taken for delivered.
func TestPostSurplus(t *testing.T) {
	for _, gap := range []time.Duration{0, time.Millisecond, 3 * time.Millisecond} {
		for _, slow := range []time.Duration{0, 50 * time.Millisecond} {
			t.Run(fmt.Sprint(gap, slow), func(t *testing.T) {
				checkLeaks(t)
				server, sent := newSurplusServer(t, replyOK, gap, slow)
				p := newTestConn(t, Endpoint{URL: server.url()})
				wantOutcome(t, p.post(testRequest("{}"), time.Now(), soon()), delivered, 200, "")
				<-sent
				time.Sleep(5 * time.Millisecond) // until it has come, and the poller has seen it
				wantOutcome(t, p.post(testRequest("{}"), time.Now(), soon()), failed, 500, "")
				if n := server.accepted(); n != 2 {
					t.Errorf("%d connections, want 2", n)
				}
			})
		}
	}
}

// TestPostSurplusClose has a server that sends a reply too many which ends the
// connection, and refuses the next request all the same.
func TestPostSurplusClose(t *testing.T) {
	for _, tt := range []struct{ name, surplus string }{
		{"close", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"},
		{"close, chunked", "HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
		{"HTTP/1.0", "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n"},
		{"204 with a length", "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			checkLeaks(t)
			server, sent := newSurplusServer(t, tt.surplus, time.Millisecond, 0)
			p := newTestConn(t, Endpoint{URL: server.url()})
			wantOutcome(t, p.post(testRequest("{}"), time.Now(), soon()), delivered, 200, "")
			<-sent
			time.Sleep(4 * time.Millisecond)
			p.last = time.Now() // however busy the machine is
			wantOutcome(t, p.post(testRequest("{}"), time.Now(), soon()), failed, 500, "")
		})
	}
}

// TestPostSurplusSoon has a server that sends a reply too many when the connection is
// about to be used again, where the next reply would not show it: TLS hands out one
// record at a time, and of a long body the writing goes on while the reply is read.
func TestPostSurplusSoon(t *testing.T) {
	for _, test := range []struct {
		secure bool
		size   int
	}{{true, 2}, {true, 1000 << 10}, {false, maxInlineBody + 1}, {false, maxRawBody + 1}} {
		for _, slow := range []time.Duration{0, 50 * time.Millisecond} {
			t.Run(fmt.Sprint(test.secure, test.size, slow), func(t *testing.T) {
				checkLeaks(t)
				sent := make(chan bool, 1)
				script := func(c *rawConn, n int) {
					for i := 0; ; i++ {
						r, err := c.read()
						if err != nil {
							return
						}
						reply := "HTTP/1.1 " + r.value("webhook-id") + " No\r\nContent-Length: 0\r\n\r\n"
						if n == 1 && i == 0 {
							_ = c.say(reply)
							time.Sleep(time.Millisecond)
							_ = c.say(reply)
							sent <- true
							continue
						}
						time.Sleep(slow)
						_ = c.say(reply)
					}
				}
				var p *http1Conn
				if test.secure {
					ca := newTestCA(t, "ca")
					server := newTLSServer(t, ca.serverConfig(), script)
					p = newTestConn(t, Endpoint{URL: "https://" + server.addr, TLS: TLS{CACertFile: ca.file}})
				} else {
					p = newTestConn(t, Endpoint{URL: newRawServer(t, script).url()})
				}
				for status := 502; status < 506; status++ {
					req := testRequest(strings.Repeat("x", test.size))
					req.id = []byte(strconv.Itoa(status))
					wantOutcome(t, p.post(req, time.Now(), soon()), failed, status, "")
					if status == 502 {
						<-sent
						time.Sleep(4 * time.Millisecond)
						p.last = time.Now() // however busy the machine is
					}
				}
			})
		}
	}
}
