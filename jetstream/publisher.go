package jetstream

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/mochi-hooks/webhook/internal/stream"
)

// A publisher puts a broker's events into a stream.
type publisher struct {
	*connection
	config stream.Config

	mu      sync.Mutex
	failed  error     // why the stream is not there, or not as it has to be
	fine    bool      // it was there, and as it has to be
	checkAt time.Time // when to look again
}

// Publisher implements [stream.Driver].
func (driver) Publisher(c stream.Config) (stream.Publisher, error) {
	// What was not sent is not sent later by itself: the queue does that.
	conn, err := connect(c, nats.ReconnectBufSize(-1))
	if err != nil {
		return nil, err
	}
	p := &publisher{connection: conn, config: c}
	conn.conn.SetReconnectHandler(func(*nats.Conn) {
		conn.connected()
		p.suspect() // it may be another server's
	})
	ctx, cancel := timeout(context.Background())
	defer cancel()
	err = p.state()
	if err == nil {
		err = p.ready(ctx)
	}
	var misconfigured *stream.Misconfigured
	if errors.As(err, &misconfigured) {
		p.Close()
		return nil, err
	}
	if err != nil {
		c.Log.Warn("events wait in the broker until the stream can be reached", "error", err)
	}
	return p, nil
}

// recheck is how long after a failure the stream is looked at again, and
// checkEvery how long after it was right: somebody may make it anew.
const (
	recheck    = time.Second
	checkEvery = time.Minute
)

// ready sees to it that the stream has been checked.
func (p *publisher) ready(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Now().Before(p.checkAt) {
		return p.failed
	}
	_, err := ensure(ctx, p.js, eventStream(&p.config))
	var misconfigured *stream.Misconfigured
	p.checkAt = time.Now().Add(checkEvery)
	if err != nil {
		p.checkAt = time.Now().Add(recheck)
	}
	if err == nil || !p.fine || errors.As(err, &misconfigured) { // else publishing may work all the same
		p.failed, p.fine = err, err == nil
	}
	return p.failed
}

// suspect lets the next publish look at the stream first.
func (p *publisher) suspect() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.checkAt, p.fine = time.Time{}, false
}

// Codes of JetStream's errors for which the client has no name.
const (
	codeInvalidConfig   = 10052 // invalid stream configuration
	codeTooLarge        = 10054 // message size exceeds maximum allowed
	codeOtherStream     = 10060 // the subject is another stream's
	codeSubjectsOverlap = 10065 // subjects overlap with an existing stream
	codeNoCluster       = 10074 // replicas > 1 not supported in non-clustered mode
	codeNotUnique       = 10100 // filtered consumer not unique on workqueue stream
)

func (p *publisher) Publish(ctx context.Context, partition int, id string, event []byte) error {
	if err := p.state(); err != nil { // NATS itself would speak of buffers
		return err
	}
	if err := p.ready(ctx); err != nil {
		return err
	}
	err := publish(ctx, p.js, p.config.Name, subject(&p.config, partition), id, event)
	if errors.Is(err, jetstream.ErrNoStreamResponse) { // it may be gone: look again
		p.suspect()
	}
	return err
}

// publish returns when a stream has a message.
func publish(ctx context.Context, js jetstream.JetStream, name, subject, id string, data []byte) error {
	m := &nats.Msg{Subject: subject, Data: data, Header: nats.Header{jetstream.MsgIDHeader: []string{id}}}
	_, err := js.PublishMsg(ctx, m, jetstream.WithExpectStream(name), jetstream.WithRetryAttempts(0))
	var api *jetstream.APIError
	switch {
	case err == nil:
	case errors.Is(err, nats.ErrMaxPayload), errors.As(err, &api) && api.ErrorCode == codeTooLarge:
		return &stream.Refused{Err: err}
	case errors.As(err, &api) && api.ErrorCode == codeOtherStream:
		return &stream.Misconfigured{Err: err}
	}
	return err
}

func (p *publisher) Err() error {
	if err := p.state(); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failed
}

func (p *publisher) Close() { p.conn.Close() }
