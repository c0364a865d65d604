//go:build unix

package webhook

import (
	"syscall"
	"testing"
	"time"
)

// TestPostUnaskedBytes checks that bytes which come on an idle connection are
// not taken for the reply to the next request.
func TestPostUnaskedBytes(t *testing.T) {
	checkLeaks(t)
	server := newRawServer(t, func(c *rawConn, n int) {
		for {
			if _, err := c.read(); err != nil {
				return
			}
			if n == 1 {
				_ = c.say(replyOK + "HTTP/1.1 500 Late\r\nContent-Length: 0\r\n\r\n")
			} else if n == 2 {
				_ = c.say(replyOK)
				_ = c.say("HTTP/1.1 500 Late\r\nContent-Length: 0\r\n\r\n")
			} else {
				_ = c.say(replyOK)
			}
		}
	})
	p := newTestConn(t, Endpoint{URL: server.url()})
	for range 3 {
		wantOutcome(t, p.post(testRequest("{}"), time.Now(), soon()), delivered, 200, "")
		if p.conn != nil && server.accepted() == 2 {
			// Wait for the late reply without taking it.
			err := p.idle.conn.Read(func(fd uintptr) bool {
				_, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK)
				return err != syscall.EAGAIN
			})
			if err != nil {
				t.Fatal(err)
			}
			p.last = time.Time{}
		}
	}
	if n := server.accepted(); n != 3 {
		t.Errorf("%d connections, want 3", n)
	}
}
