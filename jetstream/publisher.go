package jetstream

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/mochi-hooks/webhook/internal/stream"
)

// A publisher puts a broker's events into a stream.
type publisher struct {
	config stream.Config
	dialed chan struct{} // closed when it has a connection, or cannot have one

	link    sync.Mutex  // guards the next three, and is not held for long
	conn    *connection // nil before that
	dialErr error       // why it cannot have one
	closed  bool

	mu       sync.Mutex    // guards the rest, and is not held for long
	failed   error         // why the stream is not there, or not as it has to be
	fine     bool          // it was there, and as it has to be
	checkAt  time.Time     // when to look again
	doubted  bool          // look before that
	checking chan struct{} // closed when the look that is under way is over; nil: there is none
}

// Publisher implements [stream.Driver].
func (driver) Publisher(c stream.Config) (stream.Publisher, error) {
	p := &publisher{config: c, dialed: make(chan struct{})}
	go p.dial() // ends when all servers have been tried
	silent.wait(c.URL, p.dialed)
	ctx, cancel := timeout(context.Background())
	defer cancel()
	_, err := p.ready(ctx)
	p.link.Lock()
	dialErr := p.dialErr
	p.link.Unlock()
	if dialErr != nil {
		return nil, dialErr
	}
	if isMisconfigured(err) {
		p.Close()
		return nil, err
	}
	if err != nil {
		c.Log.Warn("events wait in the broker until the stream can be reached", "error", err)
	}
	return p, nil
}

// dial connects. Servers that do not answer take their time.
func (p *publisher) dial() {
	defer close(p.dialed)
	// What was not sent is not sent later by itself: the queue does that.
	conn, err := connect(p.config, nats.ReconnectBufSize(-1))
	if err == nil {
		conn.conn.SetReconnectHandler(func(to *nats.Conn) {
			p.suspect() // it may be another server's
			conn.connected(to)
		})
	}
	p.link.Lock()
	defer p.link.Unlock()
	p.conn, p.dialErr = conn, err
	if p.closed && err == nil {
		go conn.conn.Close() // which may wait
	}
}

// silent are the servers that have not answered of late: a start waits for them
// once, and not for each endpoint.
var silent silence

type silence struct {
	mu    sync.Mutex
	until map[string]time.Time // by URL
}

// wait waits until somebody has been reached, but not for long.
func (s *silence) wait(url string, reached <-chan struct{}) {
	s.mu.Lock()
	most := firstConnect
	if time.Now().Before(s.until[url]) {
		most = firstConnect / 10
	}
	s.mu.Unlock()
	select {
	case <-reached:
		return
	case <-time.After(most):
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.until, func(_ string, until time.Time) bool { return time.Now().After(until) })
	if s.until == nil {
		s.until = make(map[string]time.Time)
	}
	s.until[url] = time.Now().Add(5 * firstConnect)
}

// connection returns the connection, or why there is none now.
func (p *publisher) connection() (*connection, error) {
	p.link.Lock()
	defer p.link.Unlock()
	switch {
	case p.dialErr != nil:
		return nil, p.dialErr
	case p.conn == nil:
		return nil, errors.New("not connected to NATS: no server answers")
	}
	return p.conn, p.conn.state()
}

// recheck is how long after a failure the stream is looked at again, and
// checkEvery how long after it was right: somebody may make it anew.
const (
	recheck    = time.Second
	checkEvery = time.Minute
)

// ready returns the connection when the stream has been checked: by this call, or
// by another one that it waits for.
func (p *publisher) ready(ctx context.Context) (*connection, error) {
	for {
		conn, err := p.connection()
		if err != nil { // NATS itself would speak of buffers
			return nil, err
		}
		p.mu.Lock()
		if !p.doubted && time.Now().Before(p.checkAt) {
			defer p.mu.Unlock()
			return conn, p.failed
		}
		others := p.checking
		if others == nil {
			p.checking, p.doubted = make(chan struct{}), false
		}
		p.mu.Unlock()
		if others == nil {
			_, err := ensure(ctx, conn.js, eventStream(&p.config))
			return conn, p.checked(err, errors.Is(ctx.Err(), context.Canceled))
		}
		select {
		case <-others:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// checked ends a look at the stream with what came of it, and returns why the
// stream cannot be used. One that was given up says nothing to others.
func (p *publisher) checked(err error, givenUp bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.checking)
	p.checking = nil
	if givenUp {
		p.doubted = true // as it may have been before
		return err
	}
	p.checkAt = time.Now().Add(checkEvery)
	if err != nil {
		p.checkAt = time.Now().Add(recheck)
	}
	if err == nil || !p.fine || isMisconfigured(err) { // else publishing may work all the same
		p.failed, p.fine = err, err == nil && !p.doubted
	}
	return p.failed
}

// suspect lets the next publish look at the stream first.
func (p *publisher) suspect() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.doubted, p.fine = true, false
}

func (p *publisher) Publish(ctx context.Context, partition int, id string, event []byte) error {
	conn, err := p.ready(ctx)
	if err != nil {
		return err
	}
	err = publish(ctx, conn.js, &p.config, p.config.Name, subject(&p.config, partition), id, event)
	if errors.Is(err, jetstream.ErrNoStreamResponse) { // it may be gone: look again
		p.suspect()
	}
	return err
}

// overhead is about what a message takes of a stream beside its subject and data: its
// header and what the server writes.
const overhead = 256

// publish returns when a stream, that of events or that of dead letters, has a message.
func publish(ctx context.Context, js jetstream.JetStream, c *stream.Config, name, subject, id string, data []byte) error {
	if most := c.MaxBytes; most >= 0 && int64(len(subject)+len(data)+overhead) > most {
		// The server says what it says of a stream that is full for now.
		return &stream.Refused{Err: fmt.Errorf("%d bytes are more than the stream %s can hold, whose max_bytes is %d", len(data), name, most)}
	}
	m := &nats.Msg{Subject: subject, Data: data, Header: nats.Header{jetstream.MsgIDHeader: []string{id}}}
	_, err := js.PublishMsg(ctx, m, jetstream.WithExpectStream(name), jetstream.WithRetryAttempts(0))
	switch code := codeOf(err); {
	case errors.Is(err, nats.ErrMaxPayload), code == codeTooLarge:
		return &stream.Refused{Err: err}
	case code == codeOtherStream:
		return &stream.Misconfigured{Err: err}
	}
	return err
}

func (p *publisher) Err() error {
	conn, err := p.connection()
	if err == nil {
		err = conn.denial()
	}
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failed
}

func (p *publisher) Close() {
	p.link.Lock()
	p.closed = true
	conn := p.conn
	p.link.Unlock()
	if conn != nil {
		conn.conn.Close()
	}
}
