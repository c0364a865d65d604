package webhook

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestGate tells a gate's story, step by step.
func TestGate(t *testing.T) {
	b := Breaker{Failures: 3, Cooldown: 5 * time.Second}
	admits := func(t *testing.T, g *gate, want bool) {
		t.Helper()
		if got := g.admits(); got != want {
			t.Errorf("admits: got %v, want %v: %+v", got, want, *g)
		}
	}
	dueIn := func(t *testing.T, g *gate, want time.Duration) {
		t.Helper()
		at, ok := g.due()
		if got := time.Duration(at - g.now()); !ok || got != want {
			t.Errorf("due: got %v, %v, want %v: %+v", got, ok, want, *g)
		}
	}
	for name, story := range map[string]func(*testing.T, *gate){
		"failures in a row open": func(t *testing.T, g *gate) {
			g.failed(b, false)
			g.failed(b, false)
			if closed, _ := g.succeeded(); closed {
				t.Error("closed a breaker that was not open")
			}
			g.failed(b, false)
			g.failed(b, false)
			admits(t, g, true)
			if opened, _ := g.failed(b, false); !opened {
				t.Error("three failures in a row did not open")
			}
			if opened, _ := g.failed(b, false); opened {
				t.Error("opened twice")
			}
			admits(t, g, false)
			dueIn(t, g, b.Cooldown)
		},
		"comes and goes": func(t *testing.T, g *gate) {
			told, toldClosed := 0, 0
			for range 1000 {
				for range 3 {
					_, tell := g.failed(b, false)
					told += int(b2u(tell))
				}
				_, tell := g.succeeded()
				toldClosed += int(b2u(tell))
			}
			if told != 1 || toldClosed != 1 {
				t.Errorf("told %d times that it is open, and %d times that it is not", told, toldClosed)
			}
			for range 3 {
				if _, tell := g.failed(b, false); tell {
					t.Error("told too soon")
				}
			}
			time.Sleep(tellInterval)
			if opened, tell := g.failed(b, true); opened || !tell {
				t.Errorf("opened %t, told %t; want to be told that it is still open", opened, tell)
			}
			if closed, tell := g.succeeded(); !closed || !tell {
				t.Errorf("closed %t, told %t", closed, tell)
			}
		},
		"stays open": func(t *testing.T, g *gate) {
			for i := range 100 {
				if _, tell := g.failed(b, i >= 3); tell != (i == 2) {
					t.Errorf("failure %d: told %t", i, tell)
				}
				time.Sleep(tellInterval)
			}
		},
		"one probe": func(t *testing.T, g *gate) {
			for range 3 {
				g.failed(b, false)
			}
			time.Sleep(b.Cooldown)
			admits(t, g, true)
			if !g.enter() {
				t.Error("not a probe")
			}
			admits(t, g, false)
			if _, ok := g.due(); ok {
				t.Error("due while a probe is out")
			}
			time.Sleep(time.Second)
			g.failed(b, true)
			g.left()
			admits(t, g, false)
			dueIn(t, g, b.Cooldown)
			time.Sleep(b.Cooldown)
			g.enter()
			if closed, _ := g.succeeded(); !closed {
				t.Error("a probe's success did not close")
			}
			g.left()
			admits(t, g, true)
		},
		"late failures do not put off the probe": func(t *testing.T, g *gate) {
			for range 3 {
				g.failed(b, false)
			}
			time.Sleep(time.Second)
			g.failed(b, false)
			dueIn(t, g, 4*time.Second)
		},
		"a probe that was not sent costs no cooldown": func(t *testing.T, g *gate) {
			for range 3 {
				g.failed(b, false)
			}
			time.Sleep(b.Cooldown)
			g.enter()
			g.left()
			admits(t, g, true)
		},
		"a refused probe costs one": func(t *testing.T, g *gate) {
			for range 3 {
				g.failed(b, false)
			}
			time.Sleep(b.Cooldown)
			g.enter()
			g.probed(b)
			g.left()
			admits(t, g, false)
			dueIn(t, g, b.Cooldown)
		},
		"probe now": func(t *testing.T, g *gate) {
			for range 3 {
				g.failed(b, false)
			}
			g.probeNow()
			admits(t, g, true)
		},
		"the longest pause counts": func(t *testing.T, g *gate) {
			g.pause(3 * time.Second)
			g.pause(time.Second)
			admits(t, g, false)
			dueIn(t, g, 3*time.Second)
			time.Sleep(3 * time.Second)
			admits(t, g, true)
			if g.enter() {
				t.Error("an attempt after a pause is no probe")
			}
		},
		"pause and breaker": func(t *testing.T, g *gate) {
			for range 3 {
				g.failed(b, false)
			}
			g.pause(8 * time.Second)
			dueIn(t, g, 8*time.Second)
			time.Sleep(6 * time.Second)
			admits(t, g, false)
			time.Sleep(2 * time.Second)
			admits(t, g, true)
			if !g.enter() {
				t.Error("not a probe")
			}
			admits(t, g, false)
		},
		"never opens": func(t *testing.T, g *gate) {
			for range 1000 {
				g.failed(Breaker{Failures: -1}, false)
			}
			admits(t, g, true)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { story(t, &gate{epoch: time.Now()}) })
		})
	}
}

// TestRefusedProbes has an endpoint fail until its breaker opens and refuse all
// events then: still one probe goes out in each cooldown.
func TestRefusedProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := defaultEndpoint()
		c.PoolSize = 1
		var attempts int
		e := startFake(c, func(*request, time.Time, <-chan struct{}) outcome {
			if attempts++; attempts <= c.Breaker.Failures {
				return outcome{verdict: failed, status: 500}
			}
			return outcome{verdict: refused, status: 400}
		})
		for i := range 100 {
			e.queue.offer(publishOf(string(rune('a'+i)), "x"), false)
		}
		time.Sleep(21 * time.Second)
		synctest.Wait()
		if got := attempts - c.Breaker.Failures; got != 4 {
			t.Errorf("%d probes in 21 s with a cooldown of 5 s, want 4", got)
		}
		e.stop(0)
		checkSum(t, e.queue.stats())
	})
}

// TestLateAnswersDoNotPutOffTheProbe: attempts that were out when the breaker opened are
// refused or put off.
func TestLateAnswersDoNotPutOffTheProbe(t *testing.T) {
	for name, v := range map[string]verdict{"refused": refused, "paused": paused} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := defaultEndpoint()
				q := newQueue(limitsOf(&c))
				for range c.Breaker.Failures {
					q.tellGate(failed, 0, false)
				}
				time.Sleep(time.Second)
				q.tellGate(v, 0, false)
				at, _ := q.gate.due()
				if got, want := time.Duration(at-q.gate.now()), c.Breaker.Cooldown-time.Second; got != want {
					t.Errorf("the next probe is due in %v, want %v", got, want)
				}
			})
		})
	}
}

// TestClockRests counts what the clock does while nothing can be done.
func TestClockRests(t *testing.T) {
	for name, out := range map[string]outcome{
		"paused":       {verdict: paused, status: 429, retryAfter: time.Minute},
		"breaker open": {verdict: failed, status: 500},
		"refused":      {verdict: refused, status: 400},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := defaultEndpoint()
				c.Retry.MaxAge = 30 * time.Second
				e := startFake(c, func(*request, time.Time, <-chan struct{}) outcome { return out })
				for i := range 1000 {
					e.queue.offer(publishOf(string(rune('a'+i)), "x"), false)
				}
				time.Sleep(5 * time.Minute)
				synctest.Wait()
				s := e.queue.stats()
				checkSum(t, s)
				if s.Dead != 1000 {
					t.Errorf("stats %+v", s)
				}
				if d := e.clock.tick(time.Now()); d < time.Second {
					t.Errorf("the clock of an empty queue ticks again after %v", d)
				}
				e.stop(0)
			})
		})
	}
}

// TestLeaseOfASuspendedMachine has a monotonic clock that stood still.
func TestLeaseOfASuspendedMachine(t *testing.T) {
	g := gate{epoch: time.Now(), leased: true}
	if g.admits() {
		t.Error("admitted without a lease")
	}
	g.lease(time.Now().Add(time.Minute))
	if !g.admits() {
		t.Error("not admitted with a lease")
	}
	g.leaseWall = g.leaseWall.Add(-time.Hour)
	if _, ok := g.due(); ok || g.admits() {
		t.Error("admitted after the lease")
	}
}
