package webhook

import (
	"maps"
	"slices"
	"time"
)

// Stats is a snapshot of all endpoints. It marshals to the JSON that
// examples/broker serves at /stats.
type Stats struct {
	Endpoints map[string]EndpointStats `json:"endpoints"`
}

// EndpointStats is a snapshot of one endpoint, consistent in itself:
//
//	Offered + Recovered = Delivered + Dead + ΣDropped + Forwarded + Waiting + InFlight
//
// The counters count events since the hook was initialised and never fall. An
// endpoint that a reload brings back after its end begins anew.
type EndpointStats struct {
	Offered   uint64            `json:"offered"`   // events that a rule selected
	Recovered uint64            `json:"recovered"` // found in the durable queue at the start
	Delivered uint64            `json:"delivered"` // answered with a 2xx status
	Dead      uint64            `json:"dead"`      // refused by the endpoint, or given up
	Dropped   map[string]uint64 `json:"dropped"`   // never delivered, by reason; see [DropReasons]
	Forwarded uint64            `json:"forwarded"` // handed to a stream for other workers

	Waiting      int   `json:"waiting"`       // events in the queue, backoff included
	WaitingBytes int64 `json:"waiting_bytes"` // what they take, of queue.max_bytes
	InFlight     int   `json:"in_flight"`     // events of attempts that have begun, or that are just being written as dead letters

	Attempts Attempts `json:"attempts"`
	Retried  uint64   `json:"retried"` // how often an event went back to wait after an attempt; a batch is as many events

	// SyncLate counts publishes that were acknowledged although their event
	// was not on disk after the block timeout (queue.sync = "always").
	SyncLate uint64 `json:"sync_late,omitempty"`

	// LostLetters counts the Dead that the dead letter file did not take, or
	// whose record cannot be read.
	LostLetters uint64 `json:"lost_letters,omitempty"`

	// Breaker is "open" when the endpoint is only probed, else "closed":
	// when it is used normally, is disabled or has ended.
	Breaker string `json:"breaker"`

	// OldestWaitingMS is the age of the oldest waiting event in
	// milliseconds, 0 when the endpoint has ended.
	OldestWaitingMS int64 `json:"oldest_waiting_ms"`

	// Latency is that of the attempts that got an HTTP status, or that the
	// stream took.
	Latency Latency `json:"latency_ms"`

	// Durations is the same distribution in a form that can be added up,
	// over time and over endpoints.
	Durations Durations `json:"-"`

	// Events has the counters of events by event: those that a rule of the
	// endpoint names, those recovered, and those that there were. Damaged
	// records, whose event is not known, count under "".
	Events map[EventName]EventCounts `json:"-"`
}

// EventCounts counts what became of the events of one name.
type EventCounts struct {
	Offered, Delivered, Dead, Dropped, Forwarded uint64
}

// Attempts counts attempts by the class of their HTTP status; Error counts
// those that got none, but not those that the end of the endpoint has cut off.
// Those of a broker with a [Stream] are its publishes into it: one that the
// stream has taken counts as Status2xx.
type Attempts struct {
	Status2xx uint64 `json:"2xx"`
	Status3xx uint64 `json:"3xx"`
	Status4xx uint64 `json:"4xx"`
	Status5xx uint64 `json:"5xx"`
	Error     uint64 `json:"error"`
}

// Latency is a distribution in milliseconds, from the first byte of an
// attempt until its status is known. Percentiles are at most a sixteenth off.
type Latency struct {
	P50 float64 `json:"p50"`
	P90 float64 `json:"p90"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

// Durations is a histogram of how long attempts took.
type Durations struct {
	Buckets []DurationBucket // shortest first
	Count   uint64           // of all attempts, those longer than the last bucket included
	Sum     time.Duration    // of all attempts
}

// A DurationBucket counts the attempts that took at most a certain time. It
// includes the buckets before it.
type DurationBucket struct {
	AtMost time.Duration
	Count  uint64
}

// DropReasons returns the reasons that [EndpointStats].Dropped may have, always the
// same ones; the README's table says what each means. The slice is the caller's.
func DropReasons() []string { return slices.Clone(dropNames[keep+1:]) }

// Stats returns a snapshot of the counters, each endpoint's consistent in
// itself. Before Init it has no endpoints; those that a reload has removed or
// disabled stay in it, those that are disabled from the start are not in it.
func (h *Hook) Stats() Stats {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := Stats{Endpoints: make(map[string]EndpointStats)}
	for name, gone := range h.gone {
		s.Endpoints[name] = gone.clone()
	}
	for _, d := range h.departures {
		s.count(d.endpoint)
	}
	if a := h.active.Load(); a != nil {
		for _, e := range a.all() {
			s.count(e)
		}
	}
	return s
}

// clone returns a copy that has nothing in common with s.
func (s EndpointStats) clone() EndpointStats {
	s.Dropped, s.Events = maps.Clone(s.Dropped), maps.Clone(s.Events)
	s.Durations.Buckets = slices.Clone(s.Durations.Buckets)
	return s
}

func (c *EventCounts) add(o *EventCounts) {
	c.Offered += o.Offered
	c.Delivered += o.Delivered
	c.Dead += o.Dead
	c.Dropped += o.Dropped
	c.Forwarded += o.Forwarded
}

// count adds what an endpoint has counted. Several have one name when it is the number
// of a rule, which another rule may have had before.
func (s *Stats) count(e *endpoint) {
	own := e.queue.stats()
	if other, ok := s.Endpoints[e.config.Name]; ok {
		own.add(&other)
	}
	s.Endpoints[e.config.Name] = own
}

// add adds what another endpoint of the same name has counted. Latencies stay those
// of s.
func (s *EndpointStats) add(o *EndpointStats) {
	s.Offered += o.Offered
	s.Recovered += o.Recovered
	s.Delivered += o.Delivered
	s.Dead += o.Dead
	s.Forwarded += o.Forwarded
	for r, n := range o.Dropped {
		s.Dropped[r] += n
	}
	s.Waiting += o.Waiting
	s.WaitingBytes += o.WaitingBytes
	s.InFlight += o.InFlight
	a, b := &s.Attempts, &o.Attempts
	a.Status2xx += b.Status2xx
	a.Status3xx += b.Status3xx
	a.Status4xx += b.Status4xx
	a.Status5xx += b.Status5xx
	a.Error += b.Error
	s.Retried += o.Retried
	s.SyncLate += o.SyncLate
	s.LostLetters += o.LostLetters
	if o.Breaker == "open" {
		s.Breaker = "open"
	}
	s.OldestWaitingMS = max(s.OldestWaitingMS, o.OldestWaitingMS)
	for i := range s.Durations.Buckets {
		s.Durations.Buckets[i].Count += o.Durations.Buckets[i].Count
	}
	s.Durations.Count += o.Durations.Count
	s.Durations.Sum += o.Durations.Sum
	for k, n := range o.Events {
		m := s.Events[k]
		m.add(&n)
		s.Events[k] = m
	}
}
