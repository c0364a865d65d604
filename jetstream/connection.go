package jetstream

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/mochi-hooks/webhook/internal/stream"
)

const (
	// reconnectWait is how long after all servers were tried they are tried
	// again, and reconnectJitter what it may be longer.
	reconnectWait   = 500 * time.Millisecond
	reconnectJitter = 100 * time.Millisecond
)

// A connection is one to NATS, for one endpoint.
type connection struct {
	conn  *nats.Conn
	js    jetstream.JetStream
	creds string // the credentials' file
	quiet quiet
	news  news

	// What nats.Conn would be asked: it holds its lock while it dials.
	up     atomic.Bool
	cause  atomic.Pointer[error]  // why it is not up
	denied atomic.Pointer[denial] // the last that it may not do

	made  chan struct{} // closed when conn is set
	tried chan struct{} // closed when the first attempt to connect is over
	once  sync.Once     // closes tried
}

// A denial is what the user of a connection is not permitted to do, which NATS tells
// beside what then gets no answer.
type denial struct {
	err error
	at  time.Time
}

// deniedFor is how long after one a connection has something wrong.
const deniedFor = time.Minute

// denial returns what was denied of late, or nil.
func (c *connection) denial() error {
	if d := c.denied.Load(); d != nil && time.Since(d.at) < deniedFor {
		return d.err
	}
	return nil
}

// connect returns a connection that tries forever, whether there is a server
// or not.
func connect(c stream.Config, options ...nats.Option) (*connection, error) {
	own := &connection{creds: c.CredsFile, news: news{log: c.Log}, made: make(chan struct{}), tried: make(chan struct{})}
	options = append([]nats.Option{
		nats.Name("mochi-webhook " + c.Endpoint),
		nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1),
		nats.CustomReconnectDelay(own.delay),
		nats.IgnoreAuthErrorAbort(), // credentials may be renewed
		nats.Timeout(firstConnect),
		nats.PingInterval(10 * time.Second), // a server that is gone without a word is noticed after two
		nats.FlusherTimeout(requestTimeout), // everything waits for a write
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { own.lost(err) }),
		nats.ConnectHandler(own.connected),
		nats.ReconnectHandler(own.connected),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { own.missed(err) }),
		nats.ClosedHandler(func(*nats.Conn) {
			own.once.Do(func() { close(own.tried) })
			own.news.end()
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			if errors.Is(err, nats.ErrPermissionViolation) {
				own.denied.Store(&denial{err, time.Now()})
			}
			if own.quiet.due(err) {
				c.Log.Warn("NATS reported an error", "error", own.withoutPath(err))
			}
		}),
	}, options...)
	if c.CredsFile != "" {
		options = append(options, nats.UserCredentials(c.CredsFile))
	}
	var err error
	if own.conn, err = nats.Connect(c.URL, options...); err != nil {
		return nil, withoutURL(err)
	}
	close(own.made)
	if own.js, err = jetstream.New(own.conn); err != nil {
		own.conn.Close()
		return nil, err
	}
	<-own.tried // so that there is something to say of it
	return own, nil
}

// connectContext is connect, but waits no longer than ctx: for servers that do
// not answer connect takes its time with each.
func connectContext(ctx context.Context, c stream.Config) (*connection, error) {
	type connected struct {
		conn *connection
		err  error
	}
	result := make(chan connected, 1)
	go func() { // ends when all servers have been tried
		conn, err := connect(c)
		result <- connected{conn, err}
	}()
	select {
	case r := <-result:
		return r.conn, r.err
	case <-ctx.Done():
		go func() { // ends with the other one
			if r := <-result; r.err == nil {
				r.conn.conn.Close()
			}
		}()
		return nil, context.Cause(ctx)
	}
}

// lost is told that the connection is, or with nil that it was closed.
func (c *connection) lost(err error) {
	c.up.Store(false)
	if err != nil {
		c.cause.Store(&err)
		c.news.lost(err)
	}
}

func (c *connection) connected(conn *nats.Conn) {
	c.up.Store(conn.IsConnected()) // it may be lost again, which it may be told first
	c.once.Do(func() { close(c.tried) })
	c.news.connected()
}

// missed is told why there is no connection.
func (c *connection) missed(err error) {
	err = c.withoutPath(err)
	c.cause.Store(&err)
	first := false
	c.once.Do(func() { first = true; close(c.tried) })
	if !first { // else who connects tells it
		c.news.missed(err)
	}
}

// delay is called when all servers were tried. What went wrong after one was
// reached, such as TLS or the credentials, NATS tells nobody who does not ask.
func (c *connection) delay(int) time.Duration {
	select {
	case <-c.made:
		if err := c.conn.LastError(); err != nil {
			c.missed(err)
		}
	default:
	}
	return reconnectWait + rand.N(reconnectJitter)
}

// state returns what is wrong with the connection, or nil. It does not wait.
func (c *connection) state() error {
	if c.up.Load() {
		return nil
	}
	if err := c.cause.Load(); err != nil {
		return fmt.Errorf("not connected to NATS: %w", *err)
	}
	return errors.New("not connected to NATS")
}

// withoutPath keeps the path of the credentials, which may be from env(), out of
// an error.
func (c *connection) withoutPath(err error) error {
	if c.creds == "" || !strings.Contains(err.Error(), c.creds) {
		return err
	}
	return errors.New(strings.ReplaceAll(err.Error(), c.creds, "queue.credsfile"))
}

// withoutURL keeps what may have credentials out of an error.
func withoutURL(err error) error {
	if errors.Is(err, nats.ErrNoServers) || errors.Is(err, nats.ErrTimeout) {
		return err
	}
	return fmt.Errorf("cannot connect to NATS (%T)", err)
}
