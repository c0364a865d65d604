package webhook

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mochi-hooks/webhook/internal/stream"
)

// Deliver delivers the events that brokers have put into streams, by the same
// configuration, until ctx is done. It is a [Deliverer] with nothing but the
// configuration.
func Deliver(ctx context.Context, cfg *Config) error {
	return (&Deliverer{Config: cfg}).Run(ctx)
}

// A Deliverer is a worker: it delivers the events of endpoints with a [Stream],
// by their settings, as a [Hook] does those of other endpoints. Any number of
// workers share the partitions of a stream, each its part. When one stops or
// dies, its partitions go to others within seconds.
//
// An event is acknowledged to the stream when its endpoint has answered with a
// 2xx status, or its dead letter is in the stream for those, so that each is
// delivered at least once. The events of one client are in order, over workers
// too, but for one attempt for each client that was under way in a worker that
// lost its partitions without knowing it, being paused for example: it may still
// arrive, late and for the second time.
//
// The fields must not change after Run was called. A Deliverer runs once. Its
// methods are safe for concurrent use.
type Deliverer struct {
	// Config is the configuration, that of the brokers. Endpoints without a
	// stream are not its business. Required.
	Config *Config

	// Log takes what the worker has to tell. Defaults to slog.Default().
	Log *slog.Logger

	// Transport is that of [Options].
	Transport http.RoundTripper

	// DrainTimeout is how long attempts that are under way may take when Run
	// has to return; what waits stays in the stream. -1 cancels them at once.
	// Defaults to DefaultDrainTimeout.
	DrainTimeout time.Duration

	once  sync.Once
	ready chan struct{}
	began atomic.Bool

	mu        sync.Mutex
	consumers []*consumer // since the first was started
	running   bool
}

func (d *Deliverer) init() {
	d.once.Do(func() { d.ready = make(chan struct{}) })
}

// Ready returns a channel that is closed when Run has reached the streams of
// all endpoints.
func (d *Deliverer) Ready() <-chan struct{} {
	d.init()
	return d.ready
}

// Run delivers until ctx is done, and then returns nil once what is under way
// has ended, within DrainTimeout and a second. It waits for streams that it
// cannot reach; an error is a mistake in the configuration, or a stream that is
// not what it says.
func (d *Deliverer) Run(ctx context.Context) error {
	if err := d.run(ctx); err != nil {
		return fmt.Errorf("webhook: %w", err)
	}
	return nil
}

func (d *Deliverer) run(ctx context.Context) error {
	d.init()
	if !d.began.CompareAndSwap(false, true) {
		return errors.New("a Deliverer runs once")
	}
	cfg, err := d.Config.resolve()
	if err != nil {
		return err
	}
	consumers, err := d.newConsumers(cfg)
	if err != nil {
		return err
	}
	engine, err := findEngine()
	if err != nil {
		return err
	}
	if err := d.start(ctx, consumers, engine); err != nil {
		d.stop()
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	close(d.ready)
	<-ctx.Done()
	d.stop()
	return nil
}

// newConsumers prepares the endpoints of a checked configuration.
func (d *Deliverer) newConsumers(cfg *Config) ([]*consumer, error) {
	var consumers []*consumer
	var errs []error
	for i := range cfg.Endpoints {
		c := &cfg.Endpoints[i]
		if c.Disabled || !c.Stream.enabled() {
			continue
		}
		w, err := newConsumer(c, d.Transport, cmp.Or(d.Log, slog.Default()))
		if err != nil {
			errs = append(errs, fmt.Errorf("endpoint %q: %w", c.Name, err))
			continue
		}
		consumers = append(consumers, w)
	}
	if len(errs) == 0 && len(consumers) == 0 {
		errs = append(errs, errors.New(`no endpoint that is enabled has a queue of type "jetstream"`))
	}
	return consumers, errors.Join(errs...)
}

// start connects all to their streams.
func (d *Deliverer) start(parent context.Context, consumers []*consumer, engine stream.Driver) error {
	ctx, cancel := context.WithCancel(parent)
	defer cancel()
	d.mu.Lock()
	d.consumers, d.running = consumers, true
	d.mu.Unlock()
	var connecting sync.WaitGroup
	errs := make([]error, len(consumers))
	for i, w := range consumers {
		connecting.Go(func() {
			if errs[i] = w.start(ctx, engine); errs[i] != nil {
				cancel()
			}
		})
	}
	connecting.Wait()
	errs = slices.DeleteFunc(errs, func(err error) bool { return errors.Is(err, context.Canceled) })
	return errors.Join(append(errs, parent.Err())...)
}

func (d *Deliverer) stop() {
	drain := max(cmp.Or(d.DrainTimeout, DefaultDrainTimeout), 0)
	d.mu.Lock()
	d.running = false
	d.mu.Unlock()
	var stopping sync.WaitGroup
	for _, w := range d.consumers {
		stopping.Go(func() { w.stop(drain) })
	}
	stopping.Wait()
}

// Stats returns a snapshot, as [Hook.Stats] does. Offered are events that came
// from the stream, Forwarded those that went back to it undelivered, because
// another worker has their partition.
func (d *Deliverer) Stats() Stats {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := Stats{Endpoints: make(map[string]EndpointStats)}
	for _, w := range d.consumers {
		s.Endpoints[w.endpoint.config.Name] = w.endpoint.queue.stats()
	}
	return s
}

// Healthy returns nil, or an error that names each endpoint whose breaker is
// open or whose stream cannot be used; see [Hook.Healthy].
func (d *Deliverer) Healthy() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.running {
		return errors.New("webhook: the worker is not running")
	}
	var errs []error
	for _, w := range d.consumers {
		if err := w.healthy(); err != nil {
			errs = append(errs, fmt.Errorf("endpoint %q: %w", w.endpoint.config.Name, err))
		}
	}
	if len(errs) > 0 {
		return fmt.Errorf("webhook: %w", errors.Join(errs...))
	}
	return nil
}

// A consumer is an endpoint at work in a worker: one whose queue is an intake.
type consumer struct {
	config   *Endpoint
	endpoint *endpoint
	intake   *intake
	letters  *streamLetters
	stopped  context.CancelFunc // ends the writing of dead letters

	mu      sync.Mutex
	source  stream.Source // nil before it is connected
	waiting error         // why not
}

// newConsumer prepares an endpoint, which has been checked.
func newConsumer(c *Endpoint, rt http.RoundTripper, log *slog.Logger) (*consumer, error) {
	if err := checkTransport(c, rt); err != nil {
		return nil, err
	}
	own := *c
	own.Stream, own.DeadLetter = Stream{}, DeadLetter{}
	own.Queue = Queue{Type: MemoryQueue, Capacity: -1, MaxBytes: -1} // what comes is bounded by the source
	own.Body.MaxPayload = math.MaxInt64                              // the broker has looked
	e, err := newEndpoint(&own, rt, log)
	if err != nil {
		return nil, err
	}
	w := &consumer{config: c, endpoint: e, waiting: errors.New("stream has not been reached")}
	ctx, stop := context.WithCancel(context.Background())
	w.stopped = stop
	w.letters = &streamLetters{endpoint: c.Name, ctx: ctx}
	w.intake = &intake{
		queue: e.queue, letters: w.letters, warn: e.pool.warnUnreadable,
		messages: make(map[uint64]held), tenures: make(map[int]*tenure),
	}
	e.queue.store, e.pool.letters = w.intake, w.letters
	e.queue.gate.leased = true
	return w, nil
}

// start starts the endpoint and connects it to its stream.
func (w *consumer) start(ctx context.Context, engine stream.Driver) error {
	w.endpoint.start()
	to := streamConfig(w.config, w.endpoint.log)
	to.Waiting = func(err error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.waiting = fmt.Errorf("stream has not been reached: %w", err)
	}
	source, err := engine.Source(ctx, to)
	if err != nil {
		return fmt.Errorf("endpoint %q: queue: %w", w.config.Name, err)
	}
	w.intake.source, w.letters.source = source, source
	w.mu.Lock()
	w.source = source
	w.mu.Unlock()
	source.Start(w.intake)
	return nil
}

// stop gives all partitions back when their attempts have ended, or the time is
// over: then attempts are cancelled first.
func (w *consumer) stop(drain time.Duration) {
	w.mu.Lock()
	source := w.source
	w.mu.Unlock()
	if source != nil {
		ctx, cancel := context.WithTimeout(context.Background(), drain)
		source.Release(ctx)
		cancel()
	}
	w.stopped()
	late := time.After(endGrace)
	w.endpoint.pool.stop()
	w.endpoint.clock.end()
	closed := endsBefore(late, func() {
		w.endpoint.clock.ended.Wait()
		w.intake.burying.Wait()
		if source != nil {
			source.Close()
		}
	})
	if !closed {
		w.endpoint.log.Warn(tooSlow, "what", "NATS")
	}
}

func (w *consumer) healthy() error {
	err := w.endpoint.healthy()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.source == nil {
		return errors.Join(err, w.waiting)
	}
	if failure := w.source.Err(); failure != nil {
		return errors.Join(err, fmt.Errorf("stream: %w", failure))
	}
	return err
}
