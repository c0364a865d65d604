package webhook

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
)

// DefaultDrainTimeout is the default of Options.DrainTimeout and of
// Deliverer.DrainTimeout.
const DefaultDrainTimeout = 5 * time.Second

// Options is the configuration that a program gives to a [Hook] with
// mqtt.Server.AddHook. Exactly one of File and Config is set.
type Options struct {
	// File is the path of the HCL file.
	File string

	// Config is the configuration as a Go value. The hook takes a copy.
	Config *Config

	// Watch reloads File when it changes, or a file that it names: certificates,
	// keys, and what file() reads. See [Hook.Reload].
	Watch bool

	// Transport, if set, carries the requests instead of the package's own
	// HTTP/1.1 connections: for HTTP/2 or instrumentation. It is used by
	// many goroutines at a time. Names of headers in its requests are in
	// canonical form, not as they are written. TLS settings of the configuration
	// are an error then.
	Transport http.RoundTripper

	// DrainTimeout is how long Stop, which mqtt.Server.Close calls, goes on
	// delivering events that wait; -1 stops at once.
	// Defaults to DefaultDrainTimeout.
	DrainTimeout time.Duration
}

// A Hook sends the events of a mochi-mqtt broker to HTTP endpoints. Register
// it with mqtt.Server.AddHook and an [*Options], after all hooks that may
// reject a message. Its methods are safe for concurrent use.
type Hook struct {
	mqtt.HookBase
	tracker

	active  atomic.Pointer[active] // nil until Init has succeeded
	options Options                // set by Init, without Config
	drain   time.Duration          // Options.DrainTimeout, 0 for none
	stop    sync.Once
	stopped atomic.Bool // Stop has been called; set under mu

	reloading sync.Mutex // held by Reload; taken before mu
	files     files

	mu         sync.Mutex               // guards what follows, and changes of active
	watcher    *watcher                 // of Options.Watch
	departures map[string]*departure    // of removed endpoints, by Endpoint.key
	gone       map[string]EndpointStats // by name, of removed endpoints that were unnamed rules and have ended

	now     wallClock
	seq     sequence
	observe func(event) // for tests: sees every event that is emitted
}

// active is what the callbacks need of a configuration.
type active struct {
	rules     *rules
	endpoints []*endpoint // that take events
	disabled  []*endpoint // that keep what waits
	wants     wants       // of all endpoints together
}

// all returns the endpoints.
func (a *active) all() []*endpoint { return slices.Concat(a.endpoints, a.disabled) }

// ID returns the name of the hook in the broker's log.
func (h *Hook) ID() string { return "webhook" }

// SetOpts takes the server's logger, which mqtt.Server.AddHook calls it for. It does
// nothing when the hook is initialised.
func (h *Hook) SetOpts(l *slog.Logger, o *mqtt.HookOptions) {
	if h.active.Load() == nil {
		h.HookBase.SetOpts(l, o)
	}
}

// Init starts the hook. The broker calls it from AddHook, with what the
// program gave there: an [*Options], else the error is
// mqtt.ErrInvalidConfigType. Mistakes in a file are hcl.Diagnostics. After an
// error nothing is left running.
func (h *Hook) Init(config any) error {
	opts, ok := config.(*Options)
	if !ok || opts == nil {
		return mqtt.ErrInvalidConfigType
	}
	if h.active.Load() != nil {
		return errors.New("webhook: the hook is initialised already; another server or another time needs another Hook")
	}
	if h.Log == nil {
		h.Log = slog.New(slog.DiscardHandler)
	}
	h.options = *opts
	h.files.path, h.files.watched = opts.File, opts.Watch
	cfg, err := h.load()
	h.options.Config = nil // or %s of the hook would print its secrets
	if err != nil {
		return err
	}
	a, errs := newActive(cfg, func(c *Endpoint) (*endpoint, error) {
		if err := checkTransport(c, opts.Transport); err != nil || c.Disabled {
			return nil, err
		}
		return newEndpoint(c, opts.Transport, h.Log)
	})
	if len(errs) > 0 {
		for _, e := range a.endpoints {
			e.discard()
		}
		return fmt.Errorf("webhook: %w", errors.Join(errs...))
	}
	h.drain = max(cmp.Or(opts.DrainTimeout, DefaultDrainTimeout), 0)
	h.seq.last.Store(uint64(time.Now().UnixMicro())) // above those of earlier runs
	for _, e := range a.endpoints {
		e.start()
	}
	warnOfOtherSpools(cfg.Endpoints, h.Log)
	var w *watcher
	if opts.Watch {
		w = newWatcher(h)
	}
	h.mu.Lock() // Stats and Stop may be called meanwhile
	defer h.mu.Unlock()
	h.departures, h.gone, h.watcher = make(map[string]*departure), make(map[string]EndpointStats), w
	h.install(a)
	if w != nil {
		w.start()
	}
	return nil
}

// load returns the configuration that the options name, checked.
func (h *Hook) load() (*Config, error) {
	switch o := &h.options; {
	case o.File != "" && o.Config != nil:
		return nil, errors.New("webhook: Options has both File and Config; set one of them")
	case o.File != "":
		return h.files.parse()
	case o.Watch:
		return nil, errors.New("webhook: Options has Watch, and no File to watch")
	case o.Config != nil:
		cfg, err := o.Config.resolve()
		if err != nil {
			return nil, fmt.Errorf("webhook: %w", err)
		}
		return cfg, nil
	}
	return nil, errors.New("webhook: Options has neither File nor Config")
}

// newActive puts together what the callbacks need of a configuration. build returns
// the endpoint at work for a configured one, or nil where none is needed. The errors
// say what is wrong with single ones; what build has made is then the caller's to close.
func newActive(cfg *Config, build func(*Endpoint) (*endpoint, error)) (a *active, errs []error) {
	var enabled []Endpoint
	a = new(active)
	for i := range cfg.Endpoints {
		c := &cfg.Endpoints[i]
		e, err := build(c)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("endpoint %q: %w", c.Name, err))
		case e == nil:
		case c.Disabled:
			a.disabled = append(a.disabled, e)
		default:
			a.endpoints = append(a.endpoints, e)
			a.wants |= e.wants
			enabled = append(enabled, *c)
		}
	}
	a.rules = newRules(enabled)
	a.wants |= a.rules.asks
	return a, errs
}

// install makes a the configuration that the callbacks see.
func (h *Hook) install(a *active) {
	h.active.Store(a)
	h.watch(a.rules.wanted)
	h.syncs.Store(slices.ContainsFunc(a.endpoints, (*endpoint).syncs))
}

// checkTransport refuses settings that Options.Transport leaves without effect.
func checkTransport(c *Endpoint, rt http.RoundTripper) error {
	if rt != nil && !c.Disabled && c.TLS != (TLS{MinVersion: defaultMinTLS}) {
		return errors.New("tls has no effect with Options.Transport; configure it there")
	}
	return nil
}

// Stop ends the hook: it takes no more events, goes on delivering those that wait
// for as long as Options.DrainTimeout allows, all endpoints in parallel, and returns
// within a second after that. Events that come later are counted as dropped.
// The broker calls it from Close; it may be called more than once.
func (h *Hook) Stop() error {
	if h.active.Load() == nil {
		return nil
	}
	h.stop.Do(func() {
		h.mu.Lock()
		h.stopped.Store(true) // no reload changes anything from here on
		endpoints, departures, w := h.active.Load().all(), slices.Collect(maps.Values(h.departures)), h.watcher
		h.mu.Unlock()
		var wg sync.WaitGroup
		if w != nil {
			wg.Go(w.stop)
		}
		for _, e := range endpoints {
			wg.Go(func() { e.stop(h.drain) })
		}
		for _, d := range departures {
			wg.Go(func() { d.stop(h.drain) })
		}
		wg.Wait()
	})
	return nil
}
