package webhook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/mochi-hooks/webhook/internal/stream"
)

// forwarders is how many events are on their way into a stream at a time, each
// of another lane: a stream with replicas answers in milliseconds.
const forwarders = 256

// forwardTimeout is how long a stream may take to answer. It is less than the time
// for which the stream knows what it has, so that a repetition is noticed.
const forwardTimeout = 5 * time.Second

// engineName is the name under which the stream engine is registered.
const engineName = "jetstream"

// findEngine returns the engine of streams.
func findEngine() (stream.Driver, error) {
	d, err := stream.Find(engineName)
	if err != nil {
		return nil, fmt.Errorf(`queue: %w: import _ "github.com/mochi-hooks/webhook/jetstream"`, err)
	}
	return d, nil
}

// streamConfig is what an engine needs to know of a checked endpoint.
func streamConfig(c *Endpoint, log *slog.Logger) stream.Config {
	s := &c.Stream
	return stream.Config{
		URL: string(s.URL), CredsFile: s.CredsFile, Name: s.Name, Endpoint: strings.ToLower(c.Name),
		Partitions: s.Partitions, Replicas: s.Replicas, MaxBytes: s.MaxBytes, Log: log,
	}
}

// openPublisher connects an endpoint to its stream.
func openPublisher(c *Endpoint, log *slog.Logger) (stream.Publisher, error) {
	d, err := findEngine()
	if err != nil {
		return nil, err
	}
	p, err := d.Publisher(streamConfig(c, log))
	if err != nil {
		return nil, fmt.Errorf("queue: %w", err)
	}
	return p, nil
}

// sending is the configuration of what takes events out of an endpoint's queue:
// the endpoint's own, or that of the way into its stream, where workers do the
// rest.
func (c *Endpoint) sending() *Endpoint {
	if !c.Stream.enabled() {
		return c
	}
	f := *c
	if f.PoolSize > 0 {
		f.PoolSize = forwarders
	}
	f.Batch, f.Compression, f.RateLimit = Batch{}, NoCompression, RateLimit{}
	// How long to wait for the receiver, or to leave it alone, says nothing about the
	// stream.
	f.Timeout = forwardTimeout
	f.Breaker = Breaker{Failures: 10, Cooldown: time.Second}
	f.Retry.MinBackoff, f.Retry.MaxBackoff = 100*time.Millisecond, time.Second
	return &f
}

// newForwardPool makes the pool of an endpoint with a stream: one like all others,
// whose attempts are publishes.
func newForwardPool(q *queue, config *Endpoint, log *slog.Logger, to stream.Publisher) *pool {
	p := newPool(q, config.sending(), log, func() poster {
		ctx, stop := context.WithCancel(context.Background())
		return &forwardConn{publisher: to, ctx: ctx, stop: stop}
	})
	n, ordered := config.Stream.Partitions, config.Ordering != OrderNone
	p.render = func(req *request, ev *event) {
		req.partition = ev.partition(n, ordered)
		req.body = appendRecord(req.body, ev)
	}
	return p
}

// A forwardConn is a poster into a stream. What it sends are records.
type forwardConn struct {
	publisher stream.Publisher
	ctx       context.Context // ends with cancel
	stop      context.CancelFunc
}

func (p *forwardConn) cancel()    { p.stop() }
func (p *forwardConn) closeIdle() {}

// post publishes an event. The stream's acknowledgement counts as status 200.
func (p *forwardConn) post(req *request, now, deadline time.Time) outcome {
	ctx, cancel := context.WithDeadline(p.ctx, deadline)
	defer cancel()
	err := p.publisher.Publish(ctx, req.partition, string(req.id), req.body)
	var refusal *stream.Refused
	var misconfiguration *stream.Misconfigured
	switch {
	case err == nil:
		return outcome{verdict: delivered, status: http.StatusOK}
	case p.ctx.Err() != nil:
		return canceledOutcome()
	case errors.As(err, &refusal):
		return outcome{verdict: refused, err: err}
	case errors.As(err, &misconfiguration):
		return outcome{verdict: misconfigured, err: err}
	case ctx.Err() != nil:
		err = newTimeoutError(deadline.Sub(now))
	}
	return outcome{verdict: failed, err: &attemptError{"publish", err}}
}
