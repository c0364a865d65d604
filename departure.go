package webhook

import (
	"sync/atomic"
	"time"
)

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
	recalled               // a reload has the endpoint back
	ending                 // no reload gets it back any more
)

// remove lets an endpoint deliver what waits for as long as the drain timeout
// allows, and end. h.mu is held.
func (h *Hook) remove(e *endpoint) {
	d := &departure{endpoint: e, recalled: make(chan struct{}), ended: make(chan struct{})}
	h.departures[e.config.key()] = d
	e.queue.dismiss()
	go h.depart(d) // Stop waits for it
}

// depart runs the end of an endpoint, in a goroutine of its own.
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

// recall takes the endpoint back and reports true, or waits until it has ended if it
// is too late for that. The goroutine is gone in either case.
func (d *departure) recall() bool {
	won := d.state.CompareAndSwap(departing, recalled)
	if won {
		close(d.recalled)
	}
	<-d.ended
	return won
}

// stop waits until the endpoint has ended, whose drain timeout began when it was
// removed.
func (d *departure) stop(drain time.Duration) {
	<-d.ended
	if d.state.Load() == recalled { // by a reload that was then too late itself
		d.endpoint.stop(drain)
	}
}

// departureOf returns what departs under a key, or nil.
func (h *Hook) departureOf(key string) *departure {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.departures[key]
}

// remains returns what there is to tell of an endpoint that has ended. The rest is
// megabytes, which a program that goes through many endpoints cannot spare.
func (e *endpoint) remains() *endpoint {
	q := e.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.waiting+q.inFlight == 0 && e.disk == nil {
		q.store = new(memory)
	}
	return &endpoint{config: e.config, queue: q}
}
