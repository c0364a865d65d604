package webhook

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/hcl/v2"
)

// errStopped is the error of a reload that came too late.
var errStopped = errors.New("the hook is stopped")

// Reload puts another configuration into force while the broker runs; nil reads
// Options.File again, and what its file() and env() name. Certificates are read
// anew in either case. After an error, mistakes in a file being
// hcl.Diagnostics, the old configuration stays as it is, whole. What becomes of
// a reload is logged too.
//
// No event is lost, reordered or sent twice because of a reload. An endpoint is
// known by its name, without regard to case. What waits for it goes to its new
// URL, by its new settings; attempts in flight end as they began, and count
// toward the new PoolSize. Another URL closes an open breaker and ends pauses
// and backoffs; with the same one, those under way last no longer than they
// could if they began now. An endpoint that is Disabled takes no more events,
// and keeps those that wait until it is enabled again or Retry.MaxAge is over.
// One that is missing in the new configuration takes no more events and goes on
// delivering those that wait for Options.DrainTimeout; those that are left then
// stay on disk, become dead letters if there is a file for them, or are dropped.
// If a reload brings it back before that, it goes on.
//
// An endpoint's Queue.Type, Queue.Dir, Queue.Sync and Stream cannot be changed:
// that is an error.
//
// Reloads that come at the same time follow one after the other. After Stop,
// Reload is an error.
func (h *Hook) Reload(cfg *Config) error {
	h.reloading.Lock()
	defer h.reloading.Unlock()
	if h.active.Load() == nil {
		return errors.New("webhook: the hook is not initialised")
	}
	err := h.reload(cfg)
	h.reportReload(err)
	return err
}

func (h *Hook) reload(cfg *Config) (err error) {
	switch {
	case cfg != nil:
		if cfg, err = cfg.resolve(); err != nil {
			return fmt.Errorf("webhook: %w", err)
		}
	case h.options.File == "":
		return errors.New("webhook: Reload needs a Config, because Options has no File")
	default:
		if cfg, err = h.files.parse(); err != nil {
			return err
		}
	}
	r := h.plan(cfg)
	if err := errors.Join(r.errs...); err != nil {
		r.undo()
		return fmt.Errorf("webhook: %w", err)
	}
	if !r.commit() {
		r.undo()
		return fmt.Errorf("webhook: %w", errStopped)
	}
	for _, c := range r.changed { // without h.mu, which Stop and Stats need
		c.next.closeOld(c.old)
	}
	return nil
}

// reportReload logs what became of a reload: each mistake in a file on a line.
func (h *Hook) reportReload(err error) {
	var diags hcl.Diagnostics
	switch {
	case err == nil:
		h.Log.Info("configuration reloaded")
	case errors.Is(err, errStopped):
	case errors.As(err, &diags):
		for _, d := range diags {
			h.Log.Error("configuration refused, the old one stays", "error", d.Error())
		}
	default:
		h.Log.Error("configuration refused, the old one stays", "error", err)
	}
}

// A reload is one on its way from the old configuration to the new one.
type reload struct {
	hook     *Hook
	wanted   map[string]bool // keys of the new configuration
	active   *active
	added    []*endpoint
	changed  []change
	recalled []*departure
	removed  []*endpoint
	errs     []error
}

type change struct{ old, next *endpoint }

// plan prepares all that can fail. Nothing is different until commit, but that
// endpoints which had been removed and are wanted again have not ended.
func (h *Hook) plan(cfg *Config) *reload {
	r := &reload{hook: h, wanted: make(map[string]bool)}
	for i := range cfg.Endpoints {
		r.wanted[cfg.Endpoints[i].key()] = true
	}
	current := h.active.Load().all()
	goesOn := pair(cfg.Endpoints, current, r.departing)
	r.active, r.errs = newActive(cfg, func(c *Endpoint) (*endpoint, error) {
		old := goesOn[c.Name]
		if old == nil {
			old = r.recall(c)
		}
		if err := checkTransport(c, h.options.Transport); err != nil {
			return nil, err
		}
		if old == nil {
			if c.Disabled {
				return nil, nil
			}
			e, err := newEndpoint(c, h.options.Transport, h.Log)
			if err == nil {
				r.added = append(r.added, e)
			}
			return e, err
		}
		e, err := old.next(c, h.options.Transport, h.Log)
		if err == nil {
			r.changed = append(r.changed, change{old, e})
		}
		return e, err
	})
	kept := slices.Collect(maps.Values(goesOn))
	for _, e := range current {
		if !slices.Contains(kept, e) {
			r.removed = append(r.removed, e)
		}
	}
	return r
}

// pair returns, by the names of endpoints of a new configuration, the current ones
// that go on as these: those with the same key; of the rest those that are a rule of
// the same section and URL, which selects something else now; and those that were a
// rule of the same number and selection, whose URL is another one now. What departs
// comes first where it has the key, and before the latter also where it was in the
// same place.
func pair(wanted []Endpoint, current []*endpoint, departing func(key string, place uint64) *departure) map[string]*endpoint {
	pairs := make(map[string]*endpoint)
	rest := make(map[*endpoint]bool)
	for _, e := range current {
		rest[e] = true
	}
	match := func(key func(c *Endpoint) string, may func(c, old *Endpoint) bool) {
		byKey := make(map[string]*endpoint)
		for e := range rest {
			byKey[key(e.config)] = e
		}
		for i := range wanted {
			c := &wanted[i]
			if e := byKey[key(c)]; e != nil && rest[e] && pairs[c.Name] == nil && may(c, e.config) {
				pairs[c.Name] = e
				delete(rest, e)
			}
		}
	}
	match((*Endpoint).key, func(*Endpoint, *Endpoint) bool { return true })
	match(func(c *Endpoint) string { return fmt.Sprint(c.known.place) }, func(c, old *Endpoint) bool {
		return c.known.place != 0 && departing(c.key(), 0) == nil
	})
	match(func(c *Endpoint) string { return strings.ToLower(c.Name) }, func(c, old *Endpoint) bool {
		return c.known.place != 0 && old.known.place != 0 && reflect.DeepEqual(c.Events, old.Events) &&
			departing(c.key(), c.known.place) == nil
	})
	return pairs
}

// departing returns what departs under a key, or else a rule in the same place, if that
// is not 0 and no other one is to be what it was.
func (r *reload) departing(key string, place uint64) *departure {
	if d := r.hook.departureOf(key); d != nil || place == 0 {
		return d
	}
	h := r.hook
	h.mu.Lock()
	defer h.mu.Unlock()
	for key, d := range h.departures {
		if d.endpoint.config.known.place == place && d.state.Load() == departing && !r.wanted[key] {
			return d
		}
	}
	return nil
}

// recall keeps a removed endpoint from ending, if there is still time.
// Otherwise it waits until it has ended: the files may be the same.
func (r *reload) recall(c *Endpoint) *endpoint {
	d := r.departing(c.key(), c.known.place)
	if d == nil || !d.recall() {
		return nil
	}
	r.recalled = append(r.recalled, d)
	return d.endpoint
}

// commit puts the new configuration into force, unless the hook is stopped.
func (r *reload) commit() bool {
	h := r.hook
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stopped.Load() {
		return false
	}
	for _, c := range r.changed {
		c.next.renew(c.old)
	}
	for _, e := range r.added {
		delete(h.departures, e.config.key())
		e.start()
	}
	for _, d := range r.recalled {
		delete(h.departures, d.endpoint.config.key())
	}
	h.install(r.active)
	for _, e := range r.removed {
		h.remove(e)
	}
	return true
}

// undo gives back what plan has prepared.
func (r *reload) undo() {
	for _, e := range r.added {
		e.discard()
	}
	for _, c := range r.changed {
		c.next.discardNext(c.old)
	}
	h := r.hook
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stopped.Load() {
		return // Stop ends them
	}
	for _, d := range r.recalled {
		h.remove(d.endpoint)
	}
}

// A departure is the end of an endpoint that was removed.
type departure struct {
	endpoint *endpoint // when it has ended, what Stats needs of it
	state    atomic.Int32
	recalled chan struct{} // closed when the endpoint is wanted again
	ended    chan struct{} // closed when the goroutine has ended
}

// The states of a departure.
const (
	departing int32 = iota // what waits is still delivered
	recalled               // the endpoint is another's business
	ending                 // nothing holds it any more
)

// remove lets an endpoint deliver what waits for as long as the drain timeout
// allows, and end. h.mu is held.
func (h *Hook) remove(e *endpoint) {
	d := &departure{endpoint: e, recalled: make(chan struct{}), ended: make(chan struct{})}
	h.departures[e.config.key()] = d
	e.queue.dismiss()
	go h.depart(d) // Stop waits for it
}

// depart is the end of an endpoint, in a goroutine of its own.
func (h *Hook) depart(d *departure) {
	defer close(d.ended)
	d.endpoint.drain(h.drain, d.recalled)
	if !d.state.CompareAndSwap(departing, ending) {
		return
	}
	d.endpoint.end(dropEndpointRemoved)
	h.mu.Lock()
	defer h.mu.Unlock()
	d.endpoint = d.endpoint.remains()
	if s := d.endpoint.queue.stats(); d.endpoint.config.known.rule != 0 && s.Waiting+s.InFlight == 0 {
		all := Stats{h.gone} // there are as many names as rules, but any number of URLs
		all.count(d.endpoint)
		if key := d.endpoint.config.key(); h.departures[key] == d {
			delete(h.departures, key)
		}
	}
}

// recall reports whether the endpoint has not ended; if it has, it has
// completely. The goroutine is gone in either case.
func (d *departure) recall() bool {
	won := d.state.CompareAndSwap(departing, recalled)
	if won {
		close(d.recalled)
	}
	<-d.ended
	return won
}

// stop waits until the endpoint has ended.
func (d *departure) stop(drain time.Duration) {
	<-d.ended
	if d.state.Load() == recalled { // for a reload that came too late
		d.endpoint.stop(drain)
	}
}

func (h *Hook) departureOf(key string) *departure {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.departures[key]
}

// install makes a the configuration that the callbacks see.
func (h *Hook) install(a *active) {
	h.active.Store(a)
	h.watch(a.rules.wanted)
	h.syncs.Store(slices.ContainsFunc(a.endpoints, (*endpoint).syncs))
}
