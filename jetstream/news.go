package jetstream

import (
	"errors"
	"log/slog"
	"maps"
	"net"
	"sync"
	"time"
)

// tellInterval is the least time between two lines in the log that the
// connection is lost: a server that comes and goes must not flood it.
const tellInterval = 10 * time.Second

// mostCauses bounds the lines about why one connection cannot be had.
const mostCauses = 8

// A news tells the log that a connection is there, or not, and why not.
type news struct {
	log *slog.Logger

	mu     sync.Mutex
	up     bool            // it is there,
	told   bool            // as the log has it
	tellAt time.Time       // that it is lost: not before
	later  *time.Timer     // tells it then
	causes map[string]bool // that the log has since it had the connection
}

func (n *news) connected() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.up = true
	n.stopLater()
	if !n.told {
		n.told, n.causes = true, nil
		n.log.Info("connected to NATS")
	}
}

func (n *news) lost(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.up = false
	if wait := time.Until(n.tellAt); wait > 0 {
		n.stopLater()
		n.later = time.AfterFunc(wait, func() { n.tellLost(err) })
		return
	}
	n.warnLost(err)
}

// tellLost does later what lost could not.
func (n *news) tellLost(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.up && n.later != nil {
		n.warnLost(err)
	}
}

func (n *news) warnLost(err error) {
	n.stopLater()
	n.told, n.tellAt = false, time.Now().Add(tellInterval)
	n.log.Warn("connection to NATS lost", "error", err)
}

// missed tells why there is no connection, each cause once.
func (n *news) missed(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	cause := err.Error()
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		cause = op.Err.Error() // without ports, which are others each time
	}
	if n.up || n.causes[cause] || len(n.causes) >= mostCauses {
		return
	}
	if n.causes == nil {
		n.causes = make(map[string]bool)
	}
	n.causes[cause] = true
	n.log.Warn("cannot connect to NATS", "error", err)
}

// end lets nothing be told any more.
func (n *news) end() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stopLater()
}

func (n *news) stopLater() {
	if n.later != nil {
		n.later.Stop()
		n.later = nil
	}
}

// A quiet keeps lines about the same error out of the log for a while.
type quiet struct {
	mu   sync.Mutex
	last map[string]time.Time // by the error's text
}

// quietTime is how long.
const quietTime = time.Minute

// due reports whether it is time for a line about err.
func (q *quiet) due(err error) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	text := err.Error()
	if now := time.Now(); now.Sub(q.last[text]) >= quietTime {
		maps.DeleteFunc(q.last, func(_ string, at time.Time) bool { return now.Sub(at) >= quietTime })
		if len(q.last) >= mostCauses { // one text for each event, as it may be
			return false
		}
		if q.last == nil {
			q.last = make(map[string]time.Time)
		}
		q.last[text] = now
		return true
	}
	return false
}
