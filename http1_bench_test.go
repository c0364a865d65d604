package webhook

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// BenchmarkPost compares a post on a kept connection with the least that it
// can cost, a loop that writes ready-made bytes and reads the reply, and with
// net/http. The server is in the same process and part of all times.
func BenchmarkPost(b *testing.B) {
	req := &request{
		id:   []byte("01234567-89ab-7def-8123-456789abcdef"),
		body: []byte(`{"ts":1700000000000,"topic":"a/b/c","retain":false,"qos":1,"action":"message_publish","from_username":"undefined","from_client_id":"client-1","payload":"` + strings.Repeat("x", 64) + `"}`),
	}
	reply := []byte("HTTP/1.1 200 OK\r\nDate: Tue, 15 Nov 2022 08:12:31 GMT\r\nContent-Length: 2\r\n\r\nok")
	server := newRawServer(b, func(c *rawConn, _ int) {
		buf := make([]byte, 4096)
		for {
			n, err := c.Conn.Read(buf)
			if err != nil {
				return
			}
			if n > 3 && bytes.HasSuffix(buf[:n], []byte(`"}`)) {
				_, _ = c.Conn.Write(reply)
			}
		}
	})
	ep := &Endpoint{URL: server.url() + "/hook"}

	b.Run("loop", func(b *testing.B) {
		c, err := newClient(ep, nil)
		if err != nil {
			b.Fatal(err)
		}
		p := c.conn().(*http1Conn)
		p.build(req, time.Now())
		conn, err := net.Dial("tcp", server.addr)
		if err != nil {
			b.Fatal(err)
		}
		defer conn.Close()
		reply := make([]byte, 4096)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := conn.Write(p.out); err != nil {
				b.Fatal(err)
			}
			if _, err := conn.Read(reply); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("http1Conn", func(b *testing.B) { benchmarkPoster(b, ep, nil, req) })
	b.Run("roundTripConn", func(b *testing.B) {
		transport := &http.Transport{}
		defer transport.CloseIdleConnections()
		benchmarkPoster(b, ep, transport, req)
	})
	b.Run("net-http", func(b *testing.B) {
		transport := &http.Transport{}
		defer transport.CloseIdleConnections()
		client := &http.Client{Transport: transport, Timeout: 5 * time.Second}
		b.ReportAllocs()
		for b.Loop() {
			resp, err := client.Post(ep.URL, "application/json", bytes.NewReader(req.body))
			if err != nil {
				b.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
	})
}

func benchmarkPoster(b *testing.B, ep *Endpoint, rt http.RoundTripper, req *request) {
	c, err := newClient(ep, rt)
	if err != nil {
		b.Fatal(err)
	}
	p := c.conn()
	defer p.cancel()
	b.ReportAllocs()
	for b.Loop() {
		if o := p.post(req, time.Now(), time.Now().Add(5*time.Second)); o.verdict != delivered {
			b.Fatal(o)
		}
	}
}
