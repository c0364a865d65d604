package webhook

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// answer is a reply without a body.
func answer(status int) (*http.Response, error) {
	return respond(status, http.NoBody, http.Header{}), nil
}

// startHook starts a hook with one endpoint, configured by change, that wants
// all publishes.
func startHook(t testing.TB, opts Options, change func(*Endpoint)) *Hook {
	t.Helper()
	c := Endpoint{URL: "http://127.0.0.1:1/", Events: []Rule{{Event: OnMessagePublish}}}
	change(&c)
	opts.Config = &Config{Endpoints: []Endpoint{c}}
	h := new(Hook)
	h.Log = slog.New(slog.DiscardHandler)
	if err := h.Init(&opts); err != nil {
		t.Fatal(err)
	}
	return h
}

// statsOf returns the counters of a hook's only endpoint, checked.
func statsOf(t testing.TB, h *Hook) EndpointStats {
	t.Helper()
	for _, s := range h.Stats().Endpoints {
		if tt, ok := t.(*testing.T); ok {
			checkSum(tt, s)
		}
		return s
	}
	t.Fatal("no endpoint")
	return EndpointStats{}
}

// wantStopWithin stops a hook twice and checks the time it takes.
func wantStopWithin(t *testing.T, h *Hook, least, most time.Duration) {
	t.Helper()
	begin := time.Now()
	if err := h.Stop(); err != nil {
		t.Errorf("Stop: %v", err)
	}
	if took := time.Since(begin); took < least || took > most {
		t.Errorf("Stop took %v, want %v to %v", took, least, most)
	}
	begin = time.Now()
	if err := h.Stop(); err != nil || time.Since(begin) != 0 {
		t.Errorf("the second Stop took %v: %v", time.Since(begin), err)
	}
	before := statsOf(t, h)
	h.emit(publishOf("late", "x"))
	after := statsOf(t, h)
	if after.Offered != before.Offered+1 || after.Dropped["stopped"] != before.Dropped["stopped"]+1 {
		t.Errorf("an event after Stop: stats %+v, before %+v", after, before)
	}
}

// TestStopTellsAllDrops looks for the drops of the last seconds in the log, and
// for those of the stop itself, each once.
func TestStopTellsAllDrops(t *testing.T) {
	for reason, end := range map[string]func(*testing.T, *Hook){
		"shutdown": func(t *testing.T, h *Hook) { wantStopWithin(t, h, 0, time.Second) },
		"endpoint_removed": func(t *testing.T, h *Hook) {
			another := Endpoint{Name: "another", URL: "http://127.0.0.1:1/"}
			mustReload(t, h, &Config{Endpoints: []Endpoint{another}})
			<-h.departureOf("default").ended
			t.Cleanup(func() { _ = h.Stop() })
		},
	} {
		t.Run(reason, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				h := new(Hook)
				h.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))
				small := func(e *Endpoint) { e.PoolSize, e.Queue.Capacity, e.Queue.Overflow = 1, 2, DropNewest }
				hangs := roundTripFunc(func(r *http.Request) (*http.Response, error) {
					<-r.Context().Done()
					return nil, r.Context().Err()
				})
				err := h.Init(&Options{Config: allPublishes("http://127.0.0.1:1/", small), DrainTimeout: -1, Transport: hangs})
				if err != nil {
					t.Fatal(err)
				}
				for i := range 4 + 5 { // one in flight, two that wait
					h.emit(publishOf(fmt.Sprint(i), "x"))
					statsOf(t, h) // a queue that is busy counts when somebody looks
					synctest.Wait()
				}
				end(t, h)
				var told []string
				for line := range strings.Lines(log.String()) {
					_, line, _ = strings.Cut(strings.TrimSpace(line), "msg=")
					told = append(told, line)
				}
				var want []string
				for _, n := range []string{"queue_full=1", "queue_full=5", reason + "=3"} {
					want = append(want, `"events dropped" endpoint=default `+n)
				}
				if !slices.Equal(told, want) {
					t.Errorf("logged %q, want %q", told, want)
				}
			})
		})
	}
}

// TestStopWaitsForADisabledEndpoint: what is in flight when a reload disables an
// endpoint ends as it began, and what waits does not keep Stop.
func TestStopWaitsForADisabledEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := Endpoint{URL: "http://127.0.0.1:1/", Events: []Rule{{Event: OnMessagePublish}}}
		h := startHook(t, Options{Transport: roundTripFunc(func(r *http.Request) (*http.Response, error) {
			select {
			case <-time.After(500 * time.Millisecond):
				return answer(200)
			case <-r.Context().Done():
				return nil, r.Context().Err()
			}
		})}, func(e *Endpoint) { *e = c })
		h.emit(publishOf("a", "1"))
		h.emit(publishOf("a", "2"))
		time.Sleep(100 * time.Millisecond)
		c.Disabled = true
		if err := h.Reload(&Config{Endpoints: []Endpoint{c}}); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		_ = h.Stop()
		s := statsOf(t, h)
		if took := time.Since(begin); took != 400*time.Millisecond || s.Delivered != 1 || s.Dropped["shutdown"] != 1 {
			t.Errorf("after %v: stats %+v", took, s)
		}
	})
}

func TestStopIsBounded(t *testing.T) {
	const drain = 3 * time.Second
	t.Run("endpoint hangs", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h := startHook(t, Options{DrainTimeout: drain, Transport: roundTripFunc(func(r *http.Request) (*http.Response, error) {
				<-r.Context().Done()
				return nil, r.Context().Err()
			})}, func(*Endpoint) {})
			for i := range 100 {
				h.emit(publishOf(fmt.Sprint(i), "x"))
			}
			synctest.Wait()
			wantStopWithin(t, h, drain, drain+time.Second)
			if s := statsOf(t, h); s.Dropped["shutdown"] != 100 {
				t.Errorf("stats %+v", s)
			}
		})
	})
	t.Run("transport ignores its context", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			release := make(chan struct{})
			h := startHook(t, Options{DrainTimeout: drain, Transport: roundTripFunc(func(*http.Request) (*http.Response, error) {
				<-release
				return answer(500)
			})}, func(*Endpoint) {})
			for i := range 100 {
				h.emit(publishOf(fmt.Sprint(i), "x"))
			}
			synctest.Wait()
			wantStopWithin(t, h, drain, drain+time.Second)
			if s := statsOf(t, h); s.Dropped["shutdown"] != 68 || s.InFlight != 32 {
				t.Errorf("stats %+v", s)
			}
			close(release)
			synctest.Wait()
			if s := statsOf(t, h); s.Dropped["shutdown"]+s.Dead != 100 || s.InFlight != 0 || s.Waiting != 0 {
				t.Errorf("when the attempts have ended: stats %+v", s)
			}
		})
	})
	t.Run("nothing to do", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h := startHook(t, Options{DrainTimeout: drain}, func(*Endpoint) {})
			wantStopWithin(t, h, 0, 0)
		})
	})
	t.Run("at once", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h := startHook(t, Options{DrainTimeout: -1, Transport: roundTripFunc(func(r *http.Request) (*http.Response, error) {
				<-r.Context().Done()
				return nil, r.Context().Err()
			})}, func(*Endpoint) {})
			h.emit(publishOf("c", "x"))
			synctest.Wait()
			wantStopWithin(t, h, 0, 0)
		})
	})
	t.Run("breaker open, one probe", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var mu sync.Mutex
			attempts := 0
			h := startHook(t, Options{DrainTimeout: drain, Transport: roundTripFunc(func(*http.Request) (*http.Response, error) {
				mu.Lock()
				defer mu.Unlock()
				attempts++
				return answer(500)
			})}, func(e *Endpoint) { e.PoolSize = 1 })
			for i := range 100 {
				h.emit(publishOf(fmt.Sprint(i), "x"))
			}
			time.Sleep(time.Second)
			if s := statsOf(t, h); s.Breaker != "open" || attempts != 10 {
				t.Fatalf("%d attempts, stats %+v", attempts, s)
			}
			wantStopWithin(t, h, drain, drain+time.Second)
			if attempts != 11 {
				t.Errorf("%d attempts, want one more than 10", attempts)
			}
		})
	})
	t.Run("backoff kept", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var at []time.Duration
			t0 := time.Now()
			h := startHook(t, Options{DrainTimeout: time.Minute, Transport: roundTripFunc(func(*http.Request) (*http.Response, error) {
				if at = append(at, time.Since(t0)); len(at) == 1 {
					return answer(500)
				}
				return answer(200)
			})}, func(e *Endpoint) { e.Retry.MinBackoff, e.Retry.MaxBackoff = 7*time.Second, 7*time.Second })
			h.emit(publishOf("c", "x"))
			synctest.Wait()
			wantStopWithin(t, h, 7*time.Second, 7*time.Second)
			if len(at) != 2 || at[1] != 7*time.Second {
				t.Errorf("attempts at %v, want the second after 7s", at)
			}
		})
	})
}
