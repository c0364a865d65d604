package webhook

import (
	"fmt"
	"hash/crc32"
	"net"
	"strings"
	"testing"
	"time"
)

// TestPostFullSocket has a request that the socket does not take at once, because
// the server has answered the one before it without having read it.
func TestPostFullSocket(t *testing.T) {
	checkLeaks(t)
	const requests = 4
	var bodies [requests]int
	next := make(chan struct{}, requests) // a reply has been read
	server := newRawServer(t, func(c *rawConn, _ int) {
		_ = c.Conn.(*net.TCPConn).SetReadBuffer(8 << 10)
		for i := range requests - 1 {
			if i > 0 { // replies must not come together
				select {
				case <-next:
				case <-c.closed:
					return
				}
				time.Sleep(20 * time.Millisecond) // mostly behind the next request, which else looks again later
			}
			_ = c.say(replyOK)
		}
		time.Sleep(100 * time.Millisecond) // in which the socket is full
		for i := range bodies {
			req, err := c.read()
			if err != nil {
				return
			}
			bodies[i] = len(req.body)
		}
		_ = c.say(replyOK)
	})
	p := newTestConn(t, Endpoint{URL: server.url()})
	full := false
	for i := range requests {
		wantOutcome(t, p.post(testRequest(strings.Repeat("x", maxInlineBody-i)), time.Now(), soon()), delivered, 200, "")
		full = full || i > 0 && p.socket.wrote < len(p.out)
		if i == 0 {
			_ = p.raw.(*net.TCPConn).SetWriteBuffer(8 << 10)
		}
		p.last = time.Now().Add(time.Hour) // never idle: the next reply may be there
		next <- struct{}{}
	}
	for i, n := range bodies {
		if n != maxInlineBody-i {
			t.Errorf("request %d: %d bytes received", i, n)
		}
	}
	if !full {
		t.Error("the socket took it all at once")
	}
	if n := server.accepted(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

// TestPostFullSocketLong has long requests of which the socket takes a part at
// once, in the middle of the head or of the body.
func TestPostFullSocketLong(t *testing.T) {
	checkLeaks(t)
	server := newRawServer(t, func(c *rawConn, _ int) {
		_ = c.Conn.(*net.TCPConn).SetReadBuffer(8 << 10)
		for {
			time.Sleep(20 * time.Millisecond) // in which the socket is full
			req, err := c.read()
			if err != nil {
				return
			}
			_ = c.say("HTTP/1.1 200 OK\r\nX-Sum: " + fmt.Sprint(crc32.ChecksumIEEE([]byte(req.body))) + "\r\nContent-Length: 0\r\n\r\n")
		}
	})
	p := newTestConn(t, Endpoint{URL: server.url()})
	wantOutcome(t, p.post(testRequest("{}"), time.Now(), soon()), delivered, 200, "")
	_ = p.raw.(*net.TCPConn).SetWriteBuffer(8 << 10)
	for i, part := range []string{"head", "body", "body again"} {
		r := testRequest(strings.Repeat("0123456789", 6_000+i))
		if part == "head" {
			r.header = fmt.Appendf(nil, "x-long: %s\r\n", strings.Repeat("x", 50<<10))
		}
		wantOutcome(t, p.post(r, time.Now(), soon()), delivered, 200, "")
		if got, want := string(p.reader.buf[:p.reader.n]), fmt.Sprint("X-Sum: ", crc32.ChecksumIEEE(r.body), "\r"); !strings.Contains(got, want) {
			t.Errorf("full in the %s: %q, want %q", part, got, want)
		}
		if n := p.socket.wrote; n == 0 || n >= len(p.out)+len(r.body) || (n < len(p.out)) != (part == "head") {
			t.Errorf("full in the %s: %d bytes written at once", part, n)
		}
	}
	if n := server.accepted(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

// TestPostSlowReply has replies that come after the time to look again, in parts.
func TestPostSlowReply(t *testing.T) {
	checkLeaks(t)
	server := newRawServer(t, func(c *rawConn, _ int) {
		for {
			if _, err := c.read(); err != nil {
				return
			}
			time.Sleep(lookAgain)
			for _, part := range []string{"HTTP/1.1 204", " No Content\r\n", "\r\n"} {
				time.Sleep(20 * time.Millisecond)
				_ = c.say(part)
			}
		}
	})
	p := newTestConn(t, Endpoint{URL: server.url()})
	for range 3 {
		wantOutcome(t, p.post(testRequest("{}"), time.Now(), soon()), delivered, 204, "")
	}
	now := time.Now()
	wantOutcome(t, p.post(testRequest("{}"), now, now.Add(lookAgain)), failed, 0, "read: timeout after 200ms")
	if n := server.accepted(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

// TestPostMissedEnd has a server that ends its side of a connection behind its
// first reply, and goes on reading: a request that begins at that moment does not
// see it, and must not wait for the deadline.
func TestPostMissedEnd(t *testing.T) {
	checkLeaks(t)
	ended := make(chan struct{}, 1)
	server := newRawServer(t, func(c *rawConn, n int) {
		for first := n%2 == 1; ; first = false {
			if _, err := c.read(); err != nil {
				return
			}
			_ = c.say(replyOK)
			if first {
				_ = c.Conn.(*net.TCPConn).CloseWrite()
				ended <- struct{}{}
			}
		}
	})
	miss := func(timeout time.Duration) outcome {
		p := newTestConn(t, Endpoint{URL: server.url()})
		wantOutcome(t, p.post(testRequest("{}"), time.Now(), soon()), delivered, 200, "")
		<-ended
		time.Sleep(10 * time.Millisecond) // for the end to be there
		begin := time.Now()
		p.last = begin // as if it had come just now
		return p.post(testRequest("{}"), begin, begin.Add(timeout))
	}
	wantOutcome(t, miss(20*time.Second), delivered, 200, "")
	if n := server.accepted(); n != 2 {
		t.Errorf("%d connections, want 2", n)
	}
	// With a short timeout too, unless this machine is too slow for it. Each
	// try that fails leaves a server that has accepted an odd number.
	for range 10 {
		if out := miss(lookAgain); out.verdict == delivered {
			return
		}
		if server.accepted()%2 == 1 {
			p := newTestConn(t, Endpoint{URL: server.url()})
			wantOutcome(t, p.post(testRequest("{}"), time.Now(), soon()), delivered, 200, "")
		}
	}
	t.Error("not sent again within a short timeout")
}
