package webhook

import "time"

// A gate stands between a queue and its workers: it is shut while the endpoint
// has asked for a pause, and it lets one probe through per cooldown while the
// breaker is open. The queue's lock guards it.
type gate struct {
	epoch time.Time // times are nanoseconds since then, by the monotonic clock

	failures    int   // in a row, of the endpoint
	open        bool  // the breaker
	probing     bool  // a probe is out
	nextProbe   int64 // when the breaker is open: not before
	pausedUntil int64 // 0 when there is no pause

	leased     bool  // attempts need a lease
	leaseUntil int64 // and have it until then

	target int // rises when the endpoint gets another URL: what becomes of attempts on an earlier one says nothing
}

func (g *gate) now() int64 { return int64(time.Since(g.epoch)) }

// admits reports whether an attempt may start now.
func (g *gate) admits() bool {
	if g.pausedUntil == 0 && !g.open && !g.leased {
		return true // the usual case, without a look at the clock
	}
	now := g.now()
	if now < g.pausedUntil || g.leased && now >= g.leaseUntil {
		return false
	}
	g.pausedUntil = 0
	return !g.open || !g.probing && now >= g.nextProbe
}

// enter records that an attempt starts and reports whether it is a probe,
// whose end is told with left.
func (g *gate) enter() bool {
	g.probing = g.open
	return g.open
}

// left records that the probe is over.
func (g *gate) left() { g.probing = false }

// probed records that a probe got an answer that says nothing about the
// endpoint's health: the next one has to wait all the same.
func (g *gate) probed(b Breaker) {
	if g.open {
		g.nextProbe = g.now() + int64(b.Cooldown)
	}
}

// pause shuts the gate for d, unless it is shut for longer already.
func (g *gate) pause(d time.Duration) {
	g.pausedUntil = max(g.pausedUntil, g.now()+int64(d))
}

// succeeded records a delivery and reports whether it closed the breaker.
func (g *gate) succeeded() (closed bool) {
	closed = g.open
	g.failures, g.open, g.probing = 0, false, false
	return closed
}

// failed records a failure of the endpoint and reports whether it opened the
// breaker. Attempts that were out when it opened do not put off the next
// probe; a probe's failure does.
func (g *gate) failed(b Breaker, probe bool) (opened bool) {
	g.failures++
	if g.open {
		if probe {
			g.nextProbe = g.now() + int64(b.Cooldown)
		}
		return false
	}
	if b.Failures < 0 || g.failures < b.Failures {
		return false
	}
	g.open = true
	g.nextProbe = g.now() + int64(b.Cooldown)
	return true
}

// probeNow lets a probe out without waiting for the cooldown.
func (g *gate) probeNow() { g.nextProbe = 0 }

// retarget forgets what it knows of the endpoint, which has another URL.
func (g *gate) retarget() { *g = gate{epoch: g.epoch, target: g.target + 1} }

// due returns when a shut gate may open, in nanoseconds since the epoch, or
// false when nothing but an attempt's end will change it.
func (g *gate) due() (int64, bool) {
	switch {
	case g.leased && g.now() >= g.leaseUntil:
		return 0, false
	case g.pausedUntil > 0 && g.open:
		return max(g.pausedUntil, g.nextProbe), !g.probing
	case g.pausedUntil > 0:
		return g.pausedUntil, true
	}
	return g.nextProbe, g.open && !g.probing
}
