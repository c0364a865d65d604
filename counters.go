package webhook

import "time"

// counters are what a queue counts, under its lock.
type counters struct {
	recovered, retried, syncLate, lostLetters uint64

	known uint32 // bit set of the kinds that may end without having been offered: those recovered, and 0 for damaged records

	events   [kindEnd]EventCounts // by kind, 0 for damaged records
	dropped  [dropReasons]uint64
	attempts Attempts
	latency  histogram
}

// total adds up what became of events of all kinds.
func (c *counters) total() (sum EventCounts) {
	for i := range c.events {
		sum.add(&c.events[i])
	}
	return sum
}

// byEvent returns the counts of the wanted kinds, a bit set, of those that are known,
// and of those that have any. Zeros are among them: who looks for a rise has to have
// seen one before.
func (c *counters) byEvent(wanted uint32) map[EventName]EventCounts {
	m := make(map[EventName]EventCounts)
	for k, n := range c.events {
		if (wanted|c.known)&(1<<k) != 0 || n != (EventCounts{}) {
			m[kinds[k].name] = n
		}
	}
	return m
}

// attempt counts an attempt by its status, 0 for none.
func (c *counters) attempt(status int, took time.Duration) {
	a := &c.attempts
	switch status / 100 {
	case 2:
		a.Status2xx++
	case 3:
		a.Status3xx++
	case 4:
		a.Status4xx++
	case 5:
		a.Status5xx++
	default:
		a.Error++
		return
	}
	c.latency.add(took)
}

// droppedByReason returns the drops that there were.
func (c *counters) droppedByReason() map[string]uint64 {
	m := make(map[string]uint64)
	for r, n := range c.dropped {
		if n > 0 {
			m[dropNames[r]] = n
		}
	}
	return m
}

// stats returns a snapshot.
func (q *queue) stats() EndpointStats {
	q.mu.Lock()
	defer q.mu.Unlock()
	c := &q.counters
	total := c.total()
	s := EndpointStats{
		Offered: total.Offered, Recovered: c.recovered,
		Delivered: total.Delivered, Dead: total.Dead, Dropped: c.droppedByReason(), Forwarded: total.Forwarded,
		Waiting: q.waiting, WaitingBytes: q.waitingBytes, InFlight: q.inFlight,
		Attempts: c.attempts, Retried: c.retried, SyncLate: c.syncLate, LostLetters: c.lostLetters,
		Breaker: "closed",
		Latency: c.latency.summary(), Durations: c.latency.durations(),
		Events: c.byEvent(q.limits.events),
	}
	if q.onlyProbed() {
		s.Breaker = "open"
	}
	// What stays on disk when the endpoint has ended waits for nothing here.
	if at := q.age.oldestWaiting(&q.entries); at != 0 && !q.halted {
		s.OldestWaitingMS = max(time.Now().UnixMilli()-q.entries.at(at).born, 0)
	}
	return s
}

// dropReason says why an event ended without an attempt that could have
// delivered it. The set is closed, so that a reason can be a metric's label.
type dropReason uint8

const (
	keep dropReason = iota // not dropped
	dropQueueFull
	dropTooLarge
	dropRefusedQuota
	dropUnknownTopic
	dropDisk
	dropStopped
	dropShutdown
	dropCorrupt
	dropEndpointRemoved
	dropReasons
)

var dropNames = [dropReasons]string{
	dropQueueFull:    "queue_full",    // overflow
	dropTooLarge:     "too_large",     // longer than body.max_payload or queue.max_bytes
	dropRefusedQuota: "refused_quota", // events of refused connections fill their tenth of the queue
	dropUnknownTopic: "unknown_topic", // a delivery whose topic alias could not be resolved
	dropDisk:         "disk_error",    // the disk of a durable queue is too slow or fails
	dropStopped:      "stopped",       // offered after Stop
	dropShutdown:     "shutdown",      // left when the drain timeout had passed
	dropCorrupt:      "corrupt",       // its record could not be read back

	dropEndpointRemoved: "endpoint_removed", // its endpoint was taken out of the configuration
}
