package webhook

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"strconv"
	"sync"
	"time"
)

const (
	// maxInlineBody is the longest body that is copied behind the head, so
	// that one buffer goes out. What the socket does not take at once of a
	// longer one goes out from a goroutine: it may fill the socket while the
	// server, which has answered already, no longer reads.
	maxInlineBody = 16 << 10

	// maxRawBody is the longest body that is offered to the socket as a whole,
	// in a call that the scheduler does not know of: it takes less than a
	// quarter of a millisecond.
	maxRawBody = 256 << 10

	// idleCheck is the age of the last request from which on a look at the
	// connection comes before its next use. Under load, connections are
	// younger and save the system call.
	idleCheck = 10 * time.Millisecond

	// lookAgain is the longest time after which a request that waits for its
	// reply looks again whether there is something to read; see socket. With
	// a short timeout it is half of that.
	lookAgain = 200 * time.Millisecond
)

// An http1Conn is a poster with one HTTP/1.1 connection of its own, kept alive
// between requests. In the steady state a post is one write and one read, and
// allocates nothing.
//
// A request on a kept connection which turns out to be closed, without a byte
// of a reply, is sent again at once on a new one. So that this is rare, a
// connection that was idle is looked at first: when anything can be read from
// it, be it the end or bytes nobody asked for, such as the 408 that servers send
// to idle clients, a new one takes its place. Within idleCheck there is no look
// where a socket exchanges the whole request: unasked bytes then show when the
// reply comes behind them, and if it comes soon, the request is sent again on a
// new connection, too. Unasked bytes that come behind a request are taken for its
// reply, as nothing can tell them from it.
type http1Conn struct {
	client *client
	sign   *signer         // nil: requests are not signed
	ctx    context.Context // ends with cancel
	stop   context.CancelFunc

	mu  sync.Mutex
	raw net.Conn // the socket, for cancel to close; nil before the first dial

	// The rest belongs to post.
	conn   net.Conn  // usable connection, raw or what encrypts it; nil for none
	used   bool      // conn has carried a request
	last   time.Time // when that was
	until  time.Time // the deadline of the attempt
	armed  time.Time // the deadline of conn, not after until; see extend and lookAgain
	idle   *idleLook // at raw
	socket *socket   // raw; nil if conn is not raw
	out    []byte    // out[:fixed] is the head that requests share
	fixed  int
	head   uint32 // which one
	ctype  string // content-type in it
	vec    [2][]byte
	bufs   net.Buffers // over vec
	wrote  chan error  // result of a write from a goroutine; room for one
	reader replyReader
}

func (p *http1Conn) post(req *request, now, deadline time.Time) outcome {
	p.build(req, now)
	p.until = deadline
	for {
		if err := p.connect(now, len(req.body)); err != nil {
			return p.fail(err, now)
		}
		rep, stale, err := p.exchange(req.body)
		switch {
		case stale: // once at most: the next connection is a new one
			continue
		case err != nil:
			return p.fail(err, now)
		}
		return statusOutcome(rep.status, rep.retryAfter)
	}
}

// connect makes sure that there is a usable connection for a request that starts now
// and has a body of the given length.
func (p *http1Conn) connect(now time.Time, length int) error {
	if err := p.ctx.Err(); err != nil {
		return err
	}
	if p.conn != nil {
		var err error
		if p.conn != p.raw { // only what Read and Write do can be extended
			if err = p.arm(p.until); err == nil && p.decrypted() {
				err = errSurplus
			}
		} else if most := min(p.until.Sub(now)/2, lookAgain); p.armed.Sub(now) < most/2 || p.armed.Sub(now) > most {
			err = p.arm(now.Add(most))
		}
		look := p.socket == nil || length > maxInlineBody || now.Sub(p.last) > idleCheck
		if err != nil || look && p.idle.readable() {
			p.drop()
		}
	}
	p.last = now
	if p.conn == nil {
		return p.dial()
	}
	return nil
}

var errSurplus = errors.New("bytes nobody asked for")

// decrypted reports whether TLS has bytes, or the end, of which the socket knows
// nothing any more. It does not wait. TLS may write meanwhile, to a server that has
// asked for other keys: the connection has the deadline of the attempt.
func (p *http1Conn) decrypted() bool {
	if p.raw.SetReadDeadline(longAgo) != nil {
		return true
	}
	n, err := p.conn.Read(p.reader.room()[:1])
	return n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) || p.raw.SetReadDeadline(p.until) != nil
}

// arm gives the connection a deadline.
func (p *http1Conn) arm(t time.Time) error {
	p.armed = t
	return p.raw.SetDeadline(t)
}

// extend reports whether a call that ended with err can go on, because what ended
// it was not the attempt's deadline: an earlier attempt set it, or it was the time
// to look again. Setting one costs as much as making the request, so attempts that
// follow each other share it.
func (p *http1Conn) extend(err error) bool {
	return errors.Is(err, os.ErrDeadlineExceeded) && p.armed.Before(p.until) && p.arm(p.until) == nil
}

// Read reads from the connection until the attempt's deadline.
func (p *http1Conn) Read(b []byte) (n int, err error) {
	for {
		n, err = p.conn.Read(b)
		if err == nil || n > 0 || !p.extend(err) {
			return n, err
		}
	}
}

// Write writes to the connection until the attempt's deadline.
func (p *http1Conn) Write(b []byte) (n int, err error) {
	for {
		m, err := p.conn.Write(b[n:])
		n += m
		if err == nil || !p.extend(err) {
			return n, err
		}
	}
}

// build puts the head of the request into out, and the body too if it is short.
func (p *http1Conn) build(req *request, now time.Time) {
	if p.fixed == 0 || p.head != req.head || p.ctype != req.contentType {
		p.out = p.client.heads[req.head].append(p.out[:0], req.contentType)
		p.fixed, p.head, p.ctype = len(p.out), req.head, req.contentType
	}
	out := append(p.out[:p.fixed], "webhook-id: "...)
	out = append(out, req.id...)
	out = append(out, "\r\nwebhook-timestamp: "...)
	out = strconv.AppendInt(out, now.Unix(), 10)
	out = append(out, "\r\n"...)
	if p.sign != nil {
		out = append(out, "webhook-signature: "...)
		out = p.sign.append(out, req.id, now.Unix(), req.body)
		out = append(out, "\r\n"...)
	}
	out = append(out, req.header...)
	out = append(out, "Content-Length: "...)
	out = strconv.AppendInt(out, int64(len(req.body)), 10)
	out = append(out, "\r\n\r\n"...)
	if len(req.body) <= maxInlineBody {
		out = append(out, req.body...)
	}
	p.out = out
}

// exchange sends the request and reads the reply. stale says that it has to be
// sent again: nobody has read it, because the kept connection had been closed, or
// it is not known which reply is its own.
func (p *http1Conn) exchange(body []byte) (rep reply, stale bool, err error) {
	reused := p.used
	p.used = true
	if len(body) <= maxInlineBody {
		body = nil // it is in out
	}
	rep, keep, writeErr, err := p.talk(body, reused)
	if err != nil {
		stale = reused && p.reader.n == 0 && !isTimeout(err)
		err = exchangeError(writeErr, err)
	}
	if err == nil && reused && p.reader.more {
		stale = true // one of two replies is not to this request, and nobody knows which
	}
	if writeErr != nil || err != nil || stale {
		p.drop()
	} else if !keep {
		p.closeIdle()
	}
	return rep, stale, err
}

// talk writes what is in out, and a body beside it, and reads the reply.
func (p *http1Conn) talk(body []byte, reused bool) (rep reply, keep bool, writeErr, err error) {
	out := p.out
	if reused && p.conn == p.raw && len(body) <= maxRawBody { // connect has seen to lookAgain
		var wrote int
		wrote, p.reader.there, writeErr, err = p.socket.exchange(out, body, p.reader.room())
		if err != nil {
			return rep, false, nil, err
		}
		n := min(wrote, len(out))
		out, body = out[n:], body[wrote-n:]
	}
	if len(body) > 0 && writeErr == nil {
		return p.talkBoth(out, body)
	}
	if len(out) > 0 && writeErr == nil {
		_, writeErr = p.Write(out)
	}
	// Also after an error: the server may have answered and closed.
	rep, keep, err = p.reader.read(p)
	return rep, keep, writeErr, err
}

// talkBoth reads while it writes what is left of out and of a long body, because
// the reply may come before that is written, and instead.
func (p *http1Conn) talkBoth(out, body []byte) (rep reply, keep bool, writeErr, err error) {
	if p.wrote == nil {
		p.wrote = make(chan error, 1)
	}
	if err := p.arm(p.until); err != nil { // extend is not for two calls at a time
		return rep, false, nil, err
	}
	p.vec = [2][]byte{out, body}
	p.bufs = p.vec[:]
	go func() {
		_, err := p.bufs.WriteTo(p.conn)
		p.wrote <- err
	}()
	rep, keep, err = p.reader.read(p.conn)
	// The attempt is over. If the server has read the whole body then its
	// last write has succeeded, and a deadline no longer changes that.
	_ = p.conn.SetWriteDeadline(longAgo)
	p.armed = longAgo
	writeErr = <-p.wrote
	p.vec = [2][]byte{}
	return rep, keep, writeErr, err
}

// longAgo is a deadline that ends a call at once.
var longAgo = time.Unix(1, 0)

// exchangeError chooses what to report when there is no reply. A write error
// comes first, unless the server said why it closes the connection.
func exchangeError(writeErr, readErr error) error {
	if malformed, ok := readErr.(malformedError); ok {
		return malformed
	}
	if writeErr != nil && !isTimeout(writeErr) && !isVerification(readErr) {
		return &attemptError{"write", writeErr}
	}
	return &attemptError{"read", readErr}
}

// fail is the outcome of an attempt without a status.
func (p *http1Conn) fail(err error, start time.Time) outcome {
	if p.ctx.Err() != nil {
		return canceledOutcome()
	}
	var attempt *attemptError
	if errors.As(err, &attempt) && isTimeout(err) && !time.Now().Before(p.until) {
		err = &attemptError{attempt.phase, newTimeoutError(p.until.Sub(start))}
	}
	return errorOutcome(err)
}

// dial makes a connection that is ready for a request.
func (p *http1Conn) dial() error {
	c := p.client
	ctx, cancel := context.WithDeadline(p.ctx, p.until)
	defer cancel()
	addr, via := c.host, ""
	if c.proxy != nil {
		addr, via = c.proxy.addr, "proxy "
	}
	var dialer net.Dialer
	raw, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return &attemptError{via + "dial", err}
	}
	if err := p.attach(raw); err != nil {
		return err
	}
	conn, err := p.prepare(ctx, raw)
	if err != nil {
		_ = raw.Close()
		return err
	}
	p.conn, p.used, p.idle, p.socket = conn, false, lookAt(raw), nil
	if conn == raw {
		p.socket = socketOf(raw)
	}
	return nil
}

// attach shows the socket to cancel.
func (p *http1Conn) attach(raw net.Conn) error {
	p.mu.Lock()
	p.raw = raw
	p.mu.Unlock()
	if err := p.ctx.Err(); err != nil {
		_ = raw.Close()
		return err
	}
	return nil
}

// prepare takes a new socket through the proxy and the TLS handshakes.
func (p *http1Conn) prepare(ctx context.Context, raw net.Conn) (conn net.Conn, err error) {
	c := p.client
	_ = p.arm(p.until)
	conn = raw
	if c.proxy != nil && c.proxy.tls != nil {
		if conn, err = handshake(conn, c.proxy.tls); err != nil {
			return nil, &attemptError{"proxy tls handshake", err}
		}
	}
	if c.proxy != nil && (c.proxy.socks || c.tls != nil) {
		if err := c.proxy.connect(ctx, conn, c.host); err != nil {
			return nil, &attemptError{"proxy connect", err}
		}
		_ = p.arm(p.until)
	}
	if c.tls != nil {
		if conn, err = handshake(conn, c.tls); err != nil {
			return nil, &attemptError{"tls handshake", err}
		}
	}
	return conn, nil
}

// handshake needs no context: the socket has a deadline, and cancel closes it.
func handshake(conn net.Conn, cfg *tls.Config) (net.Conn, error) {
	tc := tls.Client(conn, cfg)
	return tc, tc.Handshake()
}

// drop closes the connection without another word, as a TLS goodbye could
// wait behind a body that the server does not read.
func (p *http1Conn) drop() {
	_ = p.raw.Close()
	p.conn = nil
}

func (p *http1Conn) closeIdle() {
	if p.conn != nil {
		_ = p.conn.Close()
		p.conn = nil
	}
}

func (p *http1Conn) cancel() {
	p.stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.raw != nil {
		_ = p.raw.Close()
	}
}
