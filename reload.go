package webhook

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

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

// A reload is a new configuration on its way into force: plan makes it, and then
// either commit or undo ends it.
type reload struct {
	hook     *Hook
	wanted   map[string]bool // keys of the new configuration
	active   *active         // what the callbacks will see
	added    []*endpoint     // new ones
	changed  []change        // those that go on
	recalled []*departure    // of those among changed that had been removed
	removed  []*endpoint     // those that are missing in the new configuration
	errs     []error         // why it is refused
}

// A change is an endpoint, and the one that goes on with its queue.
type change struct{ old, next *endpoint }

// plan prepares all that can fail. Until commit everything goes on as it was, except
// that endpoints which depart and are wanted again do not end.
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

// pair returns which of the current endpoints go on under a new configuration, by the
// names that they have in it. An endpoint of the new configuration goes on with
//
//   - the current one that has its key, or else
//   - the rule in its place, of the same section and URL, which selects something else
//     now, unless what has its key departs, or else
//   - the rule of the same number that selects the same, and whose URL is another one
//     now, unless what has its key, or was in its place, departs.
//
// What departs is recalled instead.
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

// departing returns what departs under a key, or else the rule that departs from a
// place, unless place is 0 or the new configuration has that rule's key elsewhere.
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

// recall returns the departing endpoint that goes on as c, or nil. If one is just
// ending it waits for that first: c may have the same files.
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
