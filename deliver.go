package webhook

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
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
// delivered at least once. The events of one client are in order, across workers
// too, with one exception: when a worker has lost its partitions without knowing
// it, because its process was paused for example, one attempt for each client that
// was under way there may still arrive, late and for the second time.
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
		e := &cfg.Endpoints[i]
		if e.Disabled || !e.Stream.enabled() {
			continue
		}
		c, err := newConsumer(e, d.Transport, cmp.Or(d.Log, slog.Default()))
		if err != nil {
			errs = append(errs, fmt.Errorf("endpoint %q: %w", e.Name, err))
			continue
		}
		consumers = append(consumers, c)
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
	for i, c := range consumers {
		connecting.Go(func() {
			if errs[i] = c.start(ctx, engine); errs[i] != nil {
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
	for _, c := range d.consumers {
		stopping.Go(func() { c.stop(drain) })
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
	for _, c := range d.consumers {
		s.Endpoints[c.endpoint.config.Name] = c.endpoint.queue.stats()
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
	for _, c := range d.consumers {
		if err := c.healthy(); err != nil {
			errs = append(errs, fmt.Errorf("endpoint %q: %w", c.endpoint.config.Name, err))
		}
	}
	if len(errs) > 0 {
		return fmt.Errorf("webhook: %w", errors.Join(errs...))
	}
	return nil
}
