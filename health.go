package webhook

import (
	"errors"
	"fmt"
)

// Healthy returns nil while the hook takes events and all its endpoints can
// deliver them, for alerts and status pages. The error names each endpoint that
// is not well, and why:
//
//   - its breaker is open: it has failed many times in a row and is only
//     probed. Its last failure is told;
//   - its disk queue cannot be written, or could not be read in the last minute;
//   - its stream cannot be used.
//
// Before Init has succeeded and once Stop has been called the hook as a whole
// is not healthy. Events that wait, retries and drops alone do not matter; see
// Stats for these.
//
// An unhealthy endpoint is no reason to restart the process, which would lose
// what waits in memory, nor to keep MQTT clients away: make it neither the
// liveness probe of a broker nor its readiness probe.
func (h *Hook) Healthy() error {
	a := h.active.Load()
	if a == nil || h.stopped.Load() {
		return errors.New("webhook: the hook is not running")
	}
	var errs []error
	for _, e := range a.endpoints {
		if err := e.healthy(); err != nil {
			errs = append(errs, fmt.Errorf("endpoint %q: %w", e.config.Name, err))
		}
	}
	if len(errs) > 0 {
		return fmt.Errorf("webhook: %w", errors.Join(errs...))
	}
	return nil
}

// healthy returns what is wrong with the endpoint, if anything is.
func (e *endpoint) healthy() error {
	var errs []error
	if e.queue.isOnlyProbed() {
		err := errors.New("breaker open")
		if last := e.pool.lastFailure.Load(); last != nil {
			err = fmt.Errorf("breaker open: %s", last.text())
		}
		errs = append(errs, err)
	}
	if e.stream != nil {
		if err := e.stream.Err(); err != nil {
			errs = append(errs, fmt.Errorf("stream: %w", err))
		}
	}
	if e.disk != nil {
		if err := e.disk.err(); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (q *queue) isOnlyProbed() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.onlyProbed()
}

// onlyProbed reports whether probes are all that the endpoint gets. One that is
// disabled or has ended gets none, whatever its breaker has come to. q.mu is
// held.
func (q *queue) onlyProbed() bool {
	return q.gate.open && q.limits.workers > 0 && !q.halted
}
