package webhook

import (
	"sync/atomic"
	"time"
)

func (p *pool) warnUnreadable(err error) {
	if p.readWarn.due() {
		p.log.Warn("events cannot be read from the queue", "error", err)
	}
}

func (p *pool) warnOpen(out outcome, breaker Breaker) {
	p.log.Warn("endpoint failing, breaker open", "status", out.status, "error", out.err,
		"failures", breaker.Failures, "cooldown", breaker.Cooldown)
}

// tellOpen tells that the breaker has been open for a while.
func (p *pool) tellOpen() {
	if last := p.lastFailure.Load(); last != nil {
		p.warnOpen(*last, p.config.Breaker)
	}
}

// report logs the changes in an endpoint's health, not its single failures: tell
// says that the breaker is open, or closed again.
func (p *pool) report(out outcome, breaker Breaker, tell bool) {
	switch {
	case !tell:
	case out.verdict == delivered:
		p.log.Info("endpoint recovered")
	default:
		p.warnOpen(out, breaker)
	}
	switch out.verdict {
	case delivered:
		if p.warned.Load() {
			p.warned.Store(false)
		}
	case misconfigured:
		if !p.warned.Load() && p.configWarn.due() {
			p.warned.Store(true)
			p.log.Warn("endpoint or its configuration at fault, retrying", "status", out.status, "error", out.err)
		}
	}
}

// warnInterval is the least time between two warnings about the same fault of an
// endpoint, so that one that comes and goes does not flood the log.
const warnInterval = time.Minute

// An interval keeps log lines about the same thing a warnInterval apart.
type interval struct{ last atomic.Pointer[time.Time] }

// due reports whether it is time for the next line.
func (i *interval) due() bool {
	now, last := time.Now(), i.last.Load()
	return (last == nil || now.Sub(*last) >= warnInterval) && i.last.CompareAndSwap(last, &now)
}
