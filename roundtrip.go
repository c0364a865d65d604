package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// prepareTransport builds what all requests to an Options.Transport share.
func (c *client) prepareTransport(u *url.URL, target string) {
	shared := *u
	// A path with a byte that net/url would escape loses how its other escapes
	// were written, such as that of a slash, unless that byte is escaped here.
	path, query, _ := strings.Cut(target, "?")
	shared.RawPath, shared.RawQuery = escapeBytes(path, `"<>\^`+"`{|}"), query
	// The transport would make an Authorization header of the user info,
	// which is among the headers already.
	shared.User = nil
	shared.Fragment, shared.RawFragment = "", ""
	c.url = &shared
}

// newTransportHead is newHead for an Options.Transport. Names are in canonical
// form: a transport that sets another header of that name finds the one there.
func newTransportHead(headers []Header) *head {
	h := &head{header: make(http.Header, len(headers))}
	for _, header := range headers {
		if equalFold(header.Name, "Host") {
			h.hostname = string(header.Value)
		} else {
			h.header.Add(header.Name, string(header.Value))
		}
	}
	return h
}

// A roundTripConn is a poster over an http.RoundTripper, which has the
// connections.
type roundTripConn struct {
	client *client
	sign   *signer         // nil: requests are not signed
	ctx    context.Context // ends with cancel
	stop   context.CancelFunc
}

func (p *roundTripConn) cancel() { p.stop() }

// closeIdle does nothing: the connections belong to the transport, which may
// serve others too.
func (p *roundTripConn) closeIdle() {}

func (p *roundTripConn) post(req *request, now, deadline time.Time) (out outcome) {
	if p.ctx.Err() != nil {
		return canceledOutcome()
	}
	var resp *http.Response
	defer func() {
		cause := recover() // no reason to end a broker
		switch err, ok := cause.(error); {
		case cause == nil:
		case resp != nil && resp.StatusCode >= 100: // it was about the body
			out = p.outcomeOf(resp)
		case ok:
			out = errorOutcome(&attemptError{"transport", fmt.Errorf("panic: %w", withoutURL(err))})
		default:
			out = errorOutcome(&attemptError{"transport", fmt.Errorf("panic: %v", cause)})
		}
	}()
	ctx, cancel := context.WithDeadline(p.ctx, deadline)
	defer cancel()
	body := &lentBody{bytes: req.body}
	defer body.revoke()
	resp, swallowed, err := p.roundTrip(ctx, req, body, now)
	if swallowed && ctx.Err() == nil {
		// Once: it may be the request that makes the server close.
		resp, _, err = p.roundTrip(ctx, req, body, now)
	}
	if resp != nil && resp.Body != nil {
		defer resp.Body.Close()
	}
	switch {
	case err != nil && p.ctx.Err() != nil:
		return canceledOutcome()
	case err != nil && ctx.Err() != nil:
		return errorOutcome(&attemptError{"transport", newTimeoutError(deadline.Sub(now))})
	case err != nil:
		err = &attemptError{"transport", withoutURL(err)}
		_ = err.Error() // if the text panics, as that of a nil pointer may, then here, where it ends nothing else
		return errorOutcome(err)
	case resp == nil:
		return errorOutcome(&attemptError{"transport", errors.New("neither a response nor an error")})
	case resp.StatusCode < 100:
		return errorOutcome(&attemptError{"transport", fmt.Errorf("a response with status %d", resp.StatusCode)})
	}
	if resp.Body != nil && resp.StatusCode != http.StatusSwitchingProtocols { // whose body is the connection, without an end
		// As much as lets the transport use the connection again.
		_, _ = io.CopyN(io.Discard, resp.Body, maxReplyBody+1)
	}
	return p.outcomeOf(resp)
}

func (p *roundTripConn) outcomeOf(resp *http.Response) outcome {
	return statusOutcome(resp.StatusCode, parseRetryAfter(resp.Header.Get("Retry-After"), time.Now()))
}

// roundTrip sends a request once. swallowed says that it went to a kept connection
// from which no byte came back, because the server had closed it: it is then to be
// sent again, which net/http does not do with a POST. Only net/http tells that.
//
// Nor does net/http part with an HTTP/2 connection over which nothing comes any more,
// perhaps because it is dead and nobody has said so. After a timeout the next request
// asks for the end of the connection that it gets: those after it go over another.
func (p *roundTripConn) roundTrip(ctx context.Context, req *request, body *lentBody, now time.Time) (resp *http.Response, swallowed bool, err error) {
	var kept, shared, replied atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(c httptrace.GotConnInfo) {
			shared.Store(p.client.shares(c.Conn))
			kept.Store(c.Reused && !shared.Load())
		},
		GotFirstResponseByte: func() { replied.Store(true) },
	})
	r := p.client.newRequest(ctx, req, p.sign, body, now)
	closes := r.Close // before others have the request
	resp, err = p.client.transport.RoundTrip(r)
	if err == nil && resp != nil {
		p.client.http2.Store(resp.ProtoMajor == 2)
	}
	if isTimeout(err) && shared.Load() && !closes {
		p.client.silent.Store(true)
	}
	swallowed = err != nil && !isTimeout(err) && kept.Load() && !replied.Load()
	return resp, swallowed, err
}

// shares reports whether a connection carries several requests at a time: one of
// them may fail while it stays open, and all when it breaks under them.
func (c *client) shares(conn net.Conn) bool {
	if t, ok := conn.(*tls.Conn); ok {
		return t.ConnectionState().NegotiatedProtocol == "h2"
	}
	return c.http2.Load()
}

// newRequest makes the request of one attempt. Its header map is its own, as
// some transports add to it.
func (c *client) newRequest(ctx context.Context, req *request, sign *signer, body *lentBody, now time.Time) *http.Request {
	head := c.heads[req.head]
	header := maps.Clone(head.header)
	if req.contentType != "" {
		header.Set("Content-Type", req.contentType)
	}
	header.Set("Webhook-Id", string(req.id))
	header.Set("Webhook-Timestamp", strconv.FormatInt(now.Unix(), 10))
	if sign != nil {
		header.Set("Webhook-Signature", string(sign.append(nil, req.id, now.Unix(), req.body)))
	}
	for line := range bytes.Lines(req.header) {
		if name, value, ok := splitField(bytes.TrimSuffix(line, []byte("\r\n"))); ok {
			header.Add(string(name), string(value))
		}
	}
	u := *c.url
	r := &http.Request{
		Method:        http.MethodPost,
		URL:           &u,
		Host:          head.hostname,
		Header:        header,
		Proto:         "HTTP/1.1",
		ProtoMajor:    1,
		ProtoMinor:    1,
		ContentLength: int64(len(req.body)),
		Close:         c.silent.Swap(false),
		Body:          body.open(),
		// For transports that send again themselves.
		GetBody: func() (io.ReadCloser, error) { return body.open(), nil },
	}
	return r.WithContext(ctx)
}

// withoutURL takes a url.Error's URL, which may carry credentials, out of err.
func withoutURL(err error) error {
	var ue *url.Error
	for errors.As(err, &ue) {
		err = ue.Err
	}
	return err
}

// A lentBody lends a body to a transport until the attempt is over. A
// transport may read on after that, for instance when the server answered
// early, but the bytes then belong to another request.
type lentBody struct {
	mu      sync.Mutex
	bytes   []byte
	revoked bool
}

func (b *lentBody) open() io.ReadCloser {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.revoked && len(b.bytes) == 0 {
		return http.NoBody // anything else would be sent chunked
	}
	return &lentReader{body: b}
}

func (b *lentBody) revoke() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.bytes, b.revoked = nil, true
}

// readAt reads from a place in the body, like an io.ReaderAt.
func (b *lentBody) readAt(p []byte, off int) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.revoked:
		return 0, errRevoked
	case off == len(b.bytes):
		return 0, io.EOF
	}
	return copy(p, b.bytes[off:]), nil
}

var errRevoked = errors.New("the attempt is over")

type lentReader struct {
	body *lentBody
	off  int
}

func (r *lentReader) Read(p []byte) (int, error) {
	n, err := r.body.readAt(p, r.off)
	r.off += n
	return n, err
}

func (r *lentReader) Close() error { return nil }
