package webhook

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// A rawServer accepts connections on loopback and hands each to a script,
// which says every byte itself. It counts connections.
type rawServer struct {
	addr string

	mu     sync.Mutex
	conns  []net.Conn
	closed chan struct{} // at the end of the test
}

// newRawServer starts a server whose connections are handled by script; n
// counts from 1. A script's connection is closed when it returns. The end of
// the test closes everything and waits for the scripts.
func newRawServer(t testing.TB, script func(c *rawConn, n int)) *rawServer {
	t.Helper()
	return newTLSServer(t, nil, script)
}

// newTLSServer is newRawServer over TLS, if cfg is not nil.
func newTLSServer(t testing.TB, cfg *tls.Config, script func(c *rawConn, n int)) *rawServer {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &rawServer{addr: ln.Addr().String(), closed: make(chan struct{})}
	if cfg != nil {
		ln = tls.NewListener(ln, cfg)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns = append(s.conns, conn)
			n := len(s.conns)
			s.mu.Unlock()
			wg.Go(func() {
				defer conn.Close()
				script(&rawConn{Conn: conn, r: bufio.NewReader(conn), closed: s.closed}, n)
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		close(s.closed)
		s.mu.Lock()
		for _, c := range s.conns {
			c.Close()
		}
		s.mu.Unlock()
		wg.Wait()
	})
	return s
}

func (s *rawServer) url() string { return "http://" + s.addr }

// port is the port that the server listens on.
func (s *rawServer) port() string {
	_, port, _ := net.SplitHostPort(s.addr)
	return port
}

// accepted is the number of connections so far.
func (s *rawServer) accepted() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// A rawConn is a connection of a rawServer.
type rawConn struct {
	net.Conn
	r      *bufio.Reader
	closed <-chan struct{}
}

// A rawRequest is a request as it came: lines as written, without CRLF.
type rawRequest struct {
	line   string
	header []string
	body   string
}

// value returns the value of a header whose name is written so.
func (r *rawRequest) value(name string) string {
	for _, h := range r.header {
		if v, ok := strings.CutPrefix(h, name+": "); ok {
			return v
		}
	}
	return ""
}

// readHead reads up to the body.
func (c *rawConn) readHead() (*rawRequest, error) {
	tp := textproto.NewReader(c.r)
	var req rawRequest
	var err error
	if req.line, err = tp.ReadLine(); err != nil {
		return nil, err
	}
	for {
		line, err := tp.ReadLine()
		if err != nil {
			return nil, err
		}
		if line == "" {
			return &req, nil
		}
		req.header = append(req.header, line)
	}
}

// read reads a request.
func (c *rawConn) read() (*rawRequest, error) {
	req, err := c.readHead()
	if err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(req.value("Content-Length"))
	if err != nil {
		return nil, err
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(c.r, body); err != nil {
		return nil, err
	}
	req.body = string(body)
	return req, nil
}

func (c *rawConn) say(s string) error {
	_, err := io.WriteString(c.Conn, s)
	return err
}

// reset closes with a RST.
func (c *rawConn) reset() {
	_ = c.Conn.(*net.TCPConn).SetLinger(0)
	c.Close()
}

// wait reads nothing more and waits for the end of the test.
func (c *rawConn) wait() { <-c.closed }

// serveOK answers every request with 200.
func serveOK(c *rawConn, _ int) {
	for {
		if _, err := c.read(); err != nil || c.say(replyOK) != nil {
			return
		}
	}
}

const replyOK = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

// replyText is a reply with a body.
func replyText(status int, body string, header ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "HTTP/1.1 %d Text\r\n", status)
	for _, h := range header {
		b.WriteString(h + "\r\n")
	}
	fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n%s", len(body), body)
	return b.String()
}
