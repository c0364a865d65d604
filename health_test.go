package webhook

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestHealthy(t *testing.T) {
	hook := new(Hook)
	unhealthy := func(when string, want ...string) {
		t.Helper()
		err := hook.Healthy()
		for _, text := range want {
			if err == nil || !strings.Contains(err.Error(), text) {
				t.Errorf("%s: got %v, want %q in it", when, err, text)
			}
		}
	}
	unhealthy("before Init", "webhook: the hook is not running")
	receiver := newRawServer(t, serveOK)
	err := hook.Init(&Options{DrainTimeout: -1, Config: &Config{Endpoints: []Endpoint{
		{Name: "well", URL: receiver.url()},
		{Name: "off", URL: receiver.url(), Disabled: true},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := hook.Healthy(); err != nil {
		t.Errorf("while all is well: got %v, want nil", err)
	}
	q := hook.active.Load().endpoints[0].queue
	q.mu.Lock()
	q.gate.open = true
	q.mu.Unlock()
	unhealthy("with an open breaker", "webhook: ", `endpoint "well": breaker open`)
	q.mu.Lock()
	q.gate.open = false
	q.mu.Unlock()
	if err := hook.Healthy(); err != nil {
		t.Errorf("when the breaker is closed again: got %v, want nil", err)
	}
	if err := hook.Stop(); err != nil {
		t.Fatal(err)
	}
	unhealthy("after Stop", "not running")
}

func TestHealthyTellsTheLastFailure(t *testing.T) {
	for name, test := range map[string]struct {
		out  outcome
		want string
	}{
		"status": {outcome{verdict: misconfigured, status: 401}, "breaker open: status 401"},
		"error":  {outcome{verdict: failed, err: errors.New("read: connection reset by peer")}, "breaker open: read: connection reset by peer"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := defaultEndpoint()
				c.Breaker.Failures = 1
				e := startFake(c, func(*request, time.Time, <-chan struct{}) outcome { return test.out })
				defer e.stop(0)
				if err := e.healthy(); err != nil {
					t.Errorf("before the failure: got %v, want nil", err)
				}
				e.queue.offer(publishOf("a", "1"), false)
				synctest.Wait()
				if err := e.healthy(); err == nil || err.Error() != test.want {
					t.Errorf("after the failure: got %v, want %s", err, test.want)
				}
			})
		})
	}
}
