package webhook

import (
	"time"

	"golang.org/x/time/rate"
)

// A gate stands between a queue and its workers: it is shut while the endpoint
// has asked for a pause, and it lets one probe through per cooldown while the
// breaker is open, and no more requests than the rate limit allows. The queue's
// lock guards it.
type gate struct {
	epoch time.Time // times are nanoseconds since then, by the monotonic clock

	failures    int   // in a row, of the endpoint
	open        bool  // the breaker
	probing     bool  // a probe is out
	nextProbe   int64 // when the breaker is open: not before
	told        bool  // that it is open
	tellAt      int64 // not before: an endpoint that comes and goes must not flood the log
	pausedUntil int64 // 0 when there is no pause

	leased     bool      // attempts need a lease
	leaseUntil int64     // and have it until then,
	leaseWall  time.Time // also by the wall clock, as the other one may stand still while a machine is suspended

	limiter *rate.Limiter // a token for each attempt; nil for no limit

	target int // rises when the endpoint gets another URL: what comes of attempts at an earlier one says nothing about it
}

func (g *gate) now() int64 { return int64(time.Since(g.epoch)) }

// admits reports whether an attempt may start now.
func (g *gate) admits() bool {
	if g.pausedUntil == 0 && !g.open && g.limiter == nil && !g.leased {
		return true // the usual case, without a look at the clock
	}
	now := g.now()
	if now < g.pausedUntil || g.lacksLease(now) {
		return false
	}
	g.pausedUntil = 0
	return (!g.open || !g.probing && now >= g.nextProbe) && g.tokenIn(now) == 0
}

// lease gives attempts a lease, or ends it.
func (g *gate) lease(until time.Time) {
	g.leaseUntil, g.leaseWall = int64(until.Sub(g.epoch)), until.Round(0)
}

func (g *gate) lacksLease(now int64) bool {
	return g.leased && (now >= g.leaseUntil || !time.Now().Round(0).Before(g.leaseWall))
}

// enter records that an attempt starts and reports whether it is a probe,
// whose end is told with left.
func (g *gate) enter() bool {
	g.takeToken()
	g.probing = g.open
	return g.open
}

// takeToken takes the token of an attempt that admits has admitted.
func (g *gate) takeToken() {
	if g.limiter != nil {
		g.limiter.AllowN(g.at(g.now()), 1)
	}
}

// tokenIn returns how long after now there is a token for the next attempt, 0 if
// there is one. It rounds as the limiter does: what is 0 here is allowed there.
func (g *gate) tokenIn(now int64) int64 {
	if g.limiter == nil {
		return 0
	}
	missing := 1 - g.limiter.TokensAt(g.at(now))
	return int64(max(missing, 0) / float64(g.limiter.Limit()) * float64(time.Second))
}

// at is the time of an instant.
func (g *gate) at(now int64) time.Time { return g.epoch.Add(time.Duration(now)) }

// limit changes the rate limit. The tokens that there are stay, and so do those that
// are owed, so that no change of the limit makes a burst.
func (g *gate) limit(r RateLimit) {
	switch limit, now := rate.Limit(r.PerSecond), g.at(g.now()); {
	case r.PerSecond == 0:
		g.limiter = nil
	case g.limiter == nil:
		g.limiter = rate.NewLimiter(limit, r.Burst)
	default:
		g.limiter.SetLimitAt(now, limit)
		g.limiter.SetBurstAt(now, r.Burst)
	}
}

// left records that the probe is over.
func (g *gate) left() { g.probing = false }

// probed puts off the next probe of an open breaker, whatever came of the last.
func (g *gate) probed(b Breaker) {
	if g.open {
		g.nextProbe = g.now() + int64(b.Cooldown)
	}
}

// pause shuts the gate for d, unless it is shut for longer already.
func (g *gate) pause(d time.Duration) {
	g.pausedUntil = max(g.pausedUntil, g.now()+int64(d))
}

// succeeded records a delivery and reports whether it closed the breaker, and
// whether that is to be told.
func (g *gate) succeeded() (closed, tell bool) {
	closed, tell = g.open, g.told
	g.failures, g.open, g.probing, g.told = 0, false, false, false
	return closed, tell
}

// failed records a failure of the endpoint and reports whether it opened the
// breaker, and whether it is to be told that it is open. Attempts that were out
// when the breaker opened do not put off the next probe; a probe's failure does.
func (g *gate) failed(b Breaker, probe bool) (opened, tell bool) {
	g.failures++
	opened = !g.open && b.Failures >= 0 && g.failures >= b.Failures
	g.open = g.open || opened
	if opened || probe {
		g.probed(b)
	}
	tell, _ = g.tellOpen()
	return opened, tell
}

// tellOpen reports whether it is to be told now that the breaker is open, or else
// after what time to ask again: it may have been too soon when it opened.
func (g *gate) tellOpen() (tell bool, wait time.Duration) {
	if !g.open || g.told {
		return false, time.Hour
	}
	now := g.now()
	if now < g.tellAt {
		return false, time.Duration(g.tellAt - now)
	}
	g.told, g.tellAt = true, now+int64(tellInterval)
	return true, time.Hour
}

// tellInterval is the least time between two log lines that the breaker is open.
const tellInterval = 10 * time.Second

// probeNow lets a probe out without waiting for the cooldown.
func (g *gate) probeNow() { g.nextProbe = 0 }

// retarget forgets what it knows of the endpoint, which has another URL.
func (g *gate) retarget() {
	*g = gate{epoch: g.epoch, limiter: g.limiter, target: g.target + 1}
}

// shorten bounds what began under earlier settings: it lasts no longer than it could
// if it began now.
func (g *gate) shorten(b Breaker, mostPause time.Duration) {
	now := g.now()
	if b.Failures < 0 {
		g.succeeded() // closes it
	}
	g.nextProbe = min(g.nextProbe, now+int64(b.Cooldown))
	g.pausedUntil = min(g.pausedUntil, now+int64(mostPause))
}

// due returns when a shut gate may open, in nanoseconds since the epoch, or
// false when nothing but an attempt's end will change it.
func (g *gate) due() (int64, bool) {
	if g.lacksLease(g.now()) {
		return 0, false
	}
	at, shut := g.pausedUntil, g.pausedUntil > 0
	if g.open {
		at, shut = max(at, g.nextProbe), true
	}
	if g.limiter != nil {
		now := g.now()
		if wait := g.tokenIn(now); wait > 0 {
			at, shut = max(at, now+wait), true
		}
	}
	return at, shut && !(g.open && g.probing)
}
