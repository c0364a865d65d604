package webhook

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// limitedEndpoint is defaultEndpoint with a rate limit.
func limitedEndpoint(perSecond float64, burst int) Endpoint {
	c := defaultEndpoint()
	c.RateLimit = RateLimit{PerSecond: perSecond, Burst: burst}
	return c
}

// attemptTimes starts an endpoint, and returns a function for when its attempts
// have begun.
func attemptTimes(c Endpoint, answer func(req *request) outcome) (*endpoint, func() []time.Duration) {
	var mu sync.Mutex
	var at []time.Duration
	start := time.Now()
	e := startFake(c, func(req *request, _ time.Time, _ <-chan struct{}) outcome {
		mu.Lock()
		defer mu.Unlock()
		at = append(at, time.Since(start))
		return answer(req)
	})
	return e, func() []time.Duration {
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(at)
	}
}

func delivers(*request) outcome { return outcome{status: 200} }

func offerClients(e *endpoint, n int) {
	for i := range n {
		e.queue.offer(publishOf(fmt.Sprint("c", i), fmt.Sprint(i)), false)
	}
}

func wantTimes(t *testing.T, got []time.Duration, ms ...int) {
	t.Helper()
	want := make([]time.Duration, len(ms))
	for i := range ms {
		want[i] = time.Duration(ms[i]) * time.Millisecond
	}
	if !slices.Equal(got, want) {
		t.Errorf("attempts at %v, want %v", got, want)
	}
}

func TestRateLimitTimes(t *testing.T) {
	for _, test := range []struct {
		name  string
		limit RateLimit
		run   func(*endpoint)
		want  []int
	}{
		{"burst, then evenly", RateLimit{4, 3}, func(e *endpoint) { offerClients(e, 6) }, []int{0, 0, 0, 250, 500, 750}},
		{"fraction", RateLimit{0.5, 1}, func(e *endpoint) { offerClients(e, 3) }, []int{0, 2000, 4000}},
		{"a lane of its own", RateLimit{2, 1}, func(e *endpoint) {
			for range 3 {
				e.queue.offer(publishOf("c", "x"), false)
			}
		}, []int{0, 500, 1000}},
		{"tokens come back", RateLimit{2, 2}, func(e *endpoint) {
			offerClients(e, 3)
			time.Sleep(5 * time.Second)
			offerClients(e, 4)
		}, []int{0, 0, 500, 5000, 5000, 5500, 6000}},
		{"offered while there is no token", RateLimit{1, 1}, func(e *endpoint) {
			offerClients(e, 1)
			time.Sleep(300 * time.Millisecond)
			offerClients(e, 1)
			time.Sleep(300 * time.Millisecond)
			offerClients(e, 1)
		}, []int{0, 1000, 2000}},
		{"no limit", RateLimit{}, func(e *endpoint) { offerClients(e, 4) }, []int{0, 0, 0, 0}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e, times := attemptTimes(limitedEndpoint(test.limit.PerSecond, test.limit.Burst), delivers)
				test.run(e)
				time.Sleep(time.Minute)
				wantTimes(t, times(), test.want...)
				e.stop(0)
				s := e.queue.stats()
				if checkSum(t, s); int(s.Delivered) != len(test.want) {
					t.Errorf("stats %+v", s)
				}
			})
		})
	}
}

// TestRateLimitRounds has rates whose tokens come at no whole nanosecond: none
// is late by more than that, and the clock does not spin.
func TestRateLimitRounds(t *testing.T) {
	for _, perSecond := range []float64{3, 7, 0.3, 999.9, 1e6} {
		t.Run(fmt.Sprint(perSecond), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := limitedEndpoint(perSecond, 1)
				c.Retry.MaxAge = -1
				e, times := attemptTimes(c, delivers)
				offerClients(e, 100)
				time.Sleep(time.Hour)
				got := times()
				if len(got) != 100 {
					t.Fatalf("%d attempts, want 100", len(got))
				}
				for i, at := range got {
					if want := time.Duration(float64(i) / perSecond * 1e9); at < want-time.Duration(i+1) || at > want+time.Duration(i+1) {
						t.Errorf("attempt %d at %v, want %v", i, at, want)
					}
				}
				e.stop(0)
			})
		})
	}
}

func TestRateLimitCountsRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := limitedEndpoint(1, 1)
		c.Retry.MinBackoff, c.Retry.MaxBackoff = time.Millisecond, time.Millisecond
		failures := 3
		e, times := attemptTimes(c, func(*request) outcome {
			if failures--; failures >= 0 {
				return outcome{verdict: failed, status: 500}
			}
			return outcome{status: 200}
		})
		offerClients(e, 1)
		time.Sleep(time.Minute)
		wantTimes(t, times(), 0, 1000, 2000, 3000)
		if s := e.queue.stats(); s.Retried != 3 || s.Breaker != "closed" {
			t.Errorf("stats %+v", s)
		}
		e.stop(0)
	})
}

// TestRateLimitBesidePauses has the endpoint ask for a pause, and its breaker
// open: what waits longest counts, and afterwards there is no burst.
func TestRateLimitBesidePauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := limitedEndpoint(1, 2)
		first := true
		e, times := attemptTimes(c, func(*request) outcome {
			if first {
				first = false
				return outcome{verdict: paused, status: 429, retryAfter: 10 * time.Second}
			}
			return outcome{status: 200}
		})
		e.queue.offer(publishOf("a", "x"), false)
		synctest.Wait()
		offerClients(e, 4)
		time.Sleep(time.Minute)
		wantTimes(t, times(), 0, 10000, 10000, 11000, 12000, 13000)
		e.stop(0)
	})
	synctest.Test(t, func(t *testing.T) {
		c := limitedEndpoint(0.1, 1)
		c.Breaker = Breaker{Failures: 1, Cooldown: 3 * time.Second}
		c.Retry.MinBackoff, c.Retry.MaxBackoff = time.Millisecond, time.Millisecond
		e, times := attemptTimes(c, func(*request) outcome { return outcome{verdict: failed, status: 500} })
		offerClients(e, 2)
		time.Sleep(31 * time.Second)
		wantTimes(t, times(), 0, 10000, 20000, 30000)
		e.stop(0)
	})
}

// TestRateLimitOfBatches: a batch is one request.
func TestRateLimitOfBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := batchEndpoint(Batch{MaxEvents: 10})
		c.RateLimit = RateLimit{PerSecond: 1, Burst: 1}
		e, times := attemptTimes(c, delivers)
		offerClients(e, 30)
		time.Sleep(time.Minute)
		wantTimes(t, times(), 0, 1000, 2000)
		e.stop(0)
	})
}

// TestRateLimitOfRefusedBatches has batches with events that the endpoint
// refuses. Their halves take tokens, and everything comes to an end.
func TestRateLimitOfRefusedBatches(t *testing.T) {
	for _, test := range []struct {
		name   string
		burst  int
		poison string // payloads that begin with it are refused
	}{{"one, no burst", 1, "7"}, {"one, some burst", 4, "7"}, {"all", 3, ""}} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := batchEndpoint(Batch{MaxEvents: 16})
				c.RateLimit = RateLimit{PerSecond: 1, Burst: test.burst}
				var delivered []string
				e, times := attemptTimes(c, func(req *request) outcome {
					payloads := batchOf(t, &c, req)
					if slices.ContainsFunc(payloads, func(p string) bool { return strings.HasPrefix(p, test.poison) }) {
						return outcome{verdict: refused, status: 400}
					}
					delivered = append(delivered, payloads...)
					return outcome{status: 200}
				})
				for i := range 16 {
					e.queue.offer(publishOf(fmt.Sprint("c", i%5), fmt.Sprint(i)), false)
				}
				time.Sleep(4 * time.Minute)
				got := times()
				for i, at := range got {
					if earliest := time.Duration(i+1-test.burst) * time.Second; at < earliest {
						t.Errorf("attempt %d at %v, before %v", i, at, earliest)
					}
				}
				s := e.queue.stats()
				checkSum(t, s)
				want := 1
				if test.poison == "" {
					want = 16
				}
				if int(s.Dead) != want || len(delivered) != 16-want || s.Waiting != 0 {
					t.Errorf("delivered %q, stats %+v", delivered, s)
				}
				last := make(map[int]int)
				for _, p := range delivered {
					var n int
					if _, err := fmt.Sscan(p, &n); err != nil || n < last[n%5] {
						t.Errorf("delivered %q: %v, lane %d is not in order", delivered, err, n%5)
					}
					last[n%5] = n
				}
				e.stop(0)
			})
		})
	}
}

// TestRateLimitBatchesAtRandom has events of many lanes refused at random, with
// retries: each ends once, in the order of its lane.
func TestRateLimitBatchesAtRandom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rnd, answers := rand.New(rand.NewPCG(1, 2)), rand.New(rand.NewPCG(3, 4)) // of one goroutine each
		c := batchEndpoint(Batch{MaxEvents: 7, Linger: 3 * time.Millisecond})
		c.RateLimit, c.PoolSize = RateLimit{PerSecond: 20, Burst: 3}, 3
		c.Retry.MaxAge = -1
		last := make(map[string]int)
		e, times := attemptTimes(c, func(req *request) outcome {
			payloads := batchOf(t, &c, req)
			if answers.IntN(10) == 0 {
				return outcome{verdict: failed, status: 500}
			}
			if slices.ContainsFunc(payloads, func(p string) bool { return strings.HasSuffix(p, "3") }) {
				return outcome{verdict: refused, status: 400}
			}
			for _, p := range payloads {
				lane, number, _ := strings.Cut(p, " ")
				var n int
				if _, err := fmt.Sscan(number, &n); err != nil || n < last[lane] {
					t.Errorf("%q came after %d: %v", p, last[lane], err)
				}
				last[lane] = n
			}
			return outcome{status: 200}
		})
		const events = 500
		for i := range events {
			lane := fmt.Sprint("c", rnd.IntN(20))
			e.queue.offer(publishOf(lane, fmt.Sprint(lane, " ", i)), false)
			if i%50 == 0 {
				time.Sleep(time.Second)
			}
		}
		time.Sleep(time.Hour)
		for i, at := range times() {
			if earliest := time.Duration(i-2) * time.Second / 20; at < earliest-time.Microsecond {
				t.Fatalf("attempt %d at %v, before %v", i, at, earliest)
			}
		}
		if s := e.queue.stats(); s.Dead != events/10 || s.Delivered != events-events/10 {
			t.Errorf("stats %+v", s)
		}
		e.stop(0)
		checkSum(t, e.queue.stats())
	})
}

// TestRateLimitReload changes the limit of a gate that has used up its tokens.
func TestRateLimitReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gate{epoch: time.Now()}
		want := func(wait time.Duration) {
			t.Helper()
			if got := time.Duration(g.tokenIn(g.now())); got != wait {
				t.Errorf("after %v: the next token in %v, want %v", time.Since(g.epoch), got, wait)
			}
		}
		g.limit(RateLimit{PerSecond: 1, Burst: 2})
		for g.admits() {
			g.enter()
		}
		want(time.Second)
		time.Sleep(500 * time.Millisecond)
		g.limit(RateLimit{PerSecond: 1, Burst: 2}) // as it was
		want(500 * time.Millisecond)
		g.limit(RateLimit{PerSecond: 5, Burst: 100}) // half a token is there
		want(100 * time.Millisecond)
		g.retarget()
		want(100 * time.Millisecond)
		time.Sleep(time.Minute)
		g.limit(RateLimit{PerSecond: 5, Burst: 1})
		want(0)
		g.enter()
		want(200 * time.Millisecond)
		g.limit(RateLimit{})
		if want(0); !g.admits() {
			t.Error("shut without a limit")
		}
	})
	got := newInbox()
	url := got.serve(t, ok)
	limited := func(perSecond float64) *Config {
		return allPublishes(url, func(e *Endpoint) { e.RateLimit.PerSecond, e.PoolSize = perSecond, 1 })
	}
	h := runHook(t, &Options{Config: limited(0.001)})
	for i := range 5 {
		h.emit(publishOf(fmt.Sprint("c", i), "x"))
	}
	got.await(t, "the first event", func() bool { return len(got.payloads) == 1 })
	mustReload(t, h, limited(0))
	got.await(t, "all events", func() bool { return len(got.payloads) == 5 })
	got.mu.Lock()
	defer got.mu.Unlock()
	if len(got.open) != 1 {
		t.Errorf("%d connections, want the one that there was", len(got.open))
	}
}

func TestRateLimitStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, times := attemptTimes(limitedEndpoint(1, 1), delivers)
		offerClients(e, 10)
		start := time.Now()
		e.stop(3500 * time.Millisecond)
		wantTimes(t, times(), 0, 1000, 2000, 3000)
		s := e.queue.stats()
		if checkSum(t, s); time.Since(start) != 3500*time.Millisecond || s.Dropped["shutdown"] != 6 {
			t.Errorf("stopped after %v, stats %+v", time.Since(start), s)
		}
	})
}

// TestRateLimitServer counts what arrives, from the hook and from a redelivery.
func TestRateLimitServer(t *testing.T) {
	const perSecond, burst, events = 100, 5, 25
	var mu sync.Mutex
	var at []time.Time
	got := newInbox()
	url := got.serve(t, func(*http.Request) int {
		mu.Lock()
		defer mu.Unlock()
		at = append(at, time.Now())
		return 200
	})
	cfg := allPublishes(url, func(e *Endpoint) { e.Name, e.RateLimit = "audit", RateLimit{PerSecond: perSecond, Burst: burst} })
	check := func(t *testing.T, begin time.Time) {
		t.Helper()
		mu.Lock()
		defer mu.Unlock()
		if took, least := at[len(at)-1].Sub(begin), time.Second*(events-burst)/perSecond; len(at) != events || took < least-time.Millisecond {
			t.Errorf("%d requests in %v, want %d in at least %v", len(at), took, events, least)
		}
		at = nil
	}
	h := runHook(t, &Options{Config: cfg})
	begin := time.Now()
	for i := range events {
		h.emit(publishOf(fmt.Sprint("c", i), fmt.Sprint(i)))
	}
	got.await(t, "all events", func() bool { return len(got.payloads) == events })
	check(t, begin)
	var lines []string
	for i := range events {
		lines = append(lines, letterLine("audit", i, "{}"))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	file := writeLetterFile(t, lines...)
	begin = time.Now()
	if _, err := Redeliver(ctx, cfg, file); err != nil {
		t.Fatal(err)
	}
	check(t, begin)
}

func TestRateLimitConfig(t *testing.T) {
	for _, test := range []struct {
		text string
		want RateLimit
	}{
		{"rate_limit { per_second = 100, burst = 20 }", RateLimit{100, 20}},
		{"rate_limit.per_second = 0.5", RateLimit{0.5, 1}},
		{"rate_limit = { per_second = 101 }", RateLimit{101, 11}},
		{"rate_limit.per_second = 1e6", RateLimit{1e6, 100_000}},
		{"rate_limit { per_second = \"${2.5 * 2}\" }", RateLimit{5, 1}},
		{"", RateLimit{}},
	} {
		t.Run(test.text, func(t *testing.T) {
			cfg, err := Parse([]byte("webhook { url = \"http://h\"\n"+test.text+"\n}"), "x")
			if err != nil || cfg.Endpoints[0].RateLimit != test.want {
				t.Fatalf("got %+v, %v, want %+v", cfg, err, test.want)
			}
		})
	}
	for _, limit := range []RateLimit{{PerSecond: -1}, {PerSecond: math.NaN()}, {PerSecond: math.Inf(1)}, {PerSecond: 1e-4}, {1, -1}, {1, 2e6}, {0, 1}} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			_, err := allPublishes("http://h", func(e *Endpoint) { e.RateLimit = limit }).resolve()
			if err == nil || !strings.Contains(err.Error(), "RateLimit.") {
				t.Errorf("got %v, want an error", err)
			}
		})
	}
}
