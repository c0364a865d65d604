package webhook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"sync"
	"time"

	"github.com/mochi-hooks/webhook/internal/stream"
)

// A consumer is an endpoint at work in a Deliverer: what fills its queue is a stream,
// by an intake.
type consumer struct {
	config      *Endpoint // as it is in the file; that of endpoint lacks what is the stream's
	endpoint    *endpoint
	intake      *intake
	letters     *streamLetters
	stopLetters context.CancelFunc // ends the writing of dead letters

	mu      sync.Mutex
	source  stream.Source // nil before it is connected
	waiting error         // why not
}

// newConsumer prepares the consumer of an endpoint that has been checked.
func newConsumer(config *Endpoint, rt http.RoundTripper, log *slog.Logger) (*consumer, error) {
	if err := checkTransport(config, rt); err != nil {
		return nil, err
	}
	own := *config
	own.Stream, own.DeadLetter = Stream{}, DeadLetter{}
	own.Queue = Queue{Type: MemoryQueue, Capacity: -1, MaxBytes: -1} // what comes is bounded by the source
	own.Body.MaxPayload = math.MaxInt64                              // the broker has looked
	e, err := newEndpoint(&own, rt, log)
	if err != nil {
		return nil, err
	}
	c := &consumer{config: config, endpoint: e, waiting: errors.New("stream has not been reached")}
	ctx, stop := context.WithCancel(context.Background())
	c.letters, c.stopLetters = &streamLetters{endpoint: config.Name, ctx: ctx}, stop
	c.intake = &intake{
		queue: e.queue, letters: c.letters, warn: e.pool.warnUnreadable,
		messages: make(map[uint64]held), tenures: make(map[int]*tenure),
	}
	e.queue.store, e.pool.letters = c.intake, c.letters
	e.queue.gate.leased = true
	return c, nil
}

// start starts the endpoint and connects it to its stream.
func (c *consumer) start(ctx context.Context, engine stream.Driver) error {
	c.endpoint.start()
	to := streamConfig(c.config, c.endpoint.log)
	to.Waiting = func(err error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.waiting = fmt.Errorf("stream has not been reached: %w", err)
	}
	source, err := engine.Source(ctx, to)
	if err != nil {
		return fmt.Errorf("endpoint %q: queue: %w", c.config.Name, err)
	}
	c.intake.source, c.letters.source = source, source
	c.mu.Lock()
	c.source = source
	c.mu.Unlock()
	source.Start(c.intake)
	return nil
}

// stop gives all partitions back when their attempts have ended, or the time is
// over: then attempts are cancelled first.
func (c *consumer) stop(drain time.Duration) {
	c.mu.Lock()
	source := c.source
	c.mu.Unlock()
	if source != nil {
		ctx, cancel := context.WithTimeout(context.Background(), drain)
		source.Release(ctx)
		cancel()
	}
	c.stopLetters()
	late := time.After(endGrace)
	c.endpoint.pool.stop()
	c.endpoint.clock.end()
	closed := endsBefore(late, func() {
		c.endpoint.clock.ended.Wait()
		c.intake.burying.Wait()
		if source != nil {
			source.Close()
		}
	})
	if !closed {
		c.endpoint.log.Warn(tooSlow, "what", "NATS")
	}
}

func (c *consumer) healthy() error {
	err := c.endpoint.healthy()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.source == nil {
		return errors.Join(err, c.waiting)
	}
	if failure := c.source.Err(); failure != nil {
		return errors.Join(err, fmt.Errorf("stream: %w", failure))
	}
	return err
}
