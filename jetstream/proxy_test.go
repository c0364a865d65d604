package jetstream_test

import (
	"bytes"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
)

// A proxy stands before a NATS server, for a test to cut connections.
type proxy struct {
	listener net.Listener

	mu    sync.Mutex
	to    string
	conns map[net.Conn]bool
	shut  bool
	hole  []byte        // from what has this in it on, a connection takes all and passes nothing on
	fell  chan struct{} // closed when something did

	stalled chan struct{} // closed when nothing goes through any more
	ended   chan struct{} // closed with the test
}

func startProxy(t testing.TB, url string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l, conns: make(map[net.Conn]bool), stalled: make(chan struct{}), ended: make(chan struct{})}
	p.moveTo(url)
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { p.serve(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		close(p.ended)
		p.cut(true)
		serving.Wait()
	})
	return p
}

func (p *proxy) url() string { return "nats://" + p.listener.Addr().String() }

func (p *proxy) serve(c net.Conn) {
	defer c.Close()
	p.mu.Lock()
	to := p.to
	p.mu.Unlock()
	up, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer up.Close()
	p.mu.Lock()
	if p.shut {
		p.mu.Unlock()
		return
	}
	p.conns[c], p.conns[up] = true, true
	p.mu.Unlock()
	var copying sync.WaitGroup
	pipe := func(to, from net.Conn, up bool) {
		_, _ = io.Copy(&way{to, p, up, false}, from)
		_, _ = to.Close(), from.Close()
	}
	copying.Go(func() { pipe(up, c, true) })
	copying.Go(func() { pipe(c, up, false) })
	copying.Wait()
	p.mu.Lock()
	delete(p.conns, c)
	delete(p.conns, up)
	p.mu.Unlock()
}

// cut ends all connections; shut keeps new ones out until open.
func (p *proxy) cut(shut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shut = shut
	for c := range p.conns {
		c.Close()
	}
}

func (p *proxy) open() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shut = false
}

// moveTo sets the server that new connections lead to.
func (p *proxy) moveTo(url string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.to = strings.TrimPrefix(url, "nats://")
}

// swallow lets a connection swallow all that the client sends from what has text
// in it on, until it is cut.
func (p *proxy) swallow(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hole, p.fell = []byte(text), make(chan struct{})
}

func (p *proxy) swallowed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.fell:
		return true
	default:
		return false
	}
}

// stall lets nothing through any more, and all connections stay.
func (p *proxy) stall() { close(p.stalled) }

// A way is one to the server, up, or back.
type way struct {
	net.Conn
	proxy *proxy
	up    bool
	hole  bool
}

func (w *way) Write(b []byte) (int, error) {
	p := w.proxy
	select {
	case <-p.stalled:
		<-p.ended
	default:
	}
	p.mu.Lock()
	if w.up && p.hole != nil && bytes.Contains(b, p.hole) {
		w.hole, p.hole = true, nil
		close(p.fell)
	}
	p.mu.Unlock()
	if w.hole {
		return len(b), nil
	}
	return w.Conn.Write(b)
}
