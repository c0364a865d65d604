package webhook

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// An inbox is what several test servers have received.
type inbox struct {
	mu       sync.Mutex
	changed  sync.Cond
	payloads []string // in the order of arrival
	ids      map[string]int
	open     map[net.Conn]bool
	at, most int // requests being answered, now and at most
}

func newInbox() *inbox {
	s := &inbox{ids: make(map[string]int), open: make(map[net.Conn]bool)}
	s.changed.L = &s.mu
	return s
}

// serve starts a server that answers with answer, and puts what it accepts into
// the inbox.
func (s *inbox) serve(t *testing.T, answer func(r *http.Request) int) string {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		s.mu.Lock()
		s.at++
		s.most = max(s.most, s.at)
		s.mu.Unlock()
		status := answer(r)
		s.mu.Lock()
		s.at--
		if status == 200 {
			s.payloads = append(s.payloads, payloadOf(body))
			s.ids[r.Header.Get("webhook-id")]++
			s.changed.Broadcast()
		}
		s.mu.Unlock()
		w.WriteHeader(status)
	}))
	srv.Config.ConnState = func(c net.Conn, state http.ConnState) {
		s.mu.Lock()
		defer s.mu.Unlock()
		switch state {
		case http.StateNew:
			s.open[c] = true
		case http.StateClosed:
			delete(s.open, c)
			s.changed.Broadcast()
		}
	}
	srv.Start()
	t.Cleanup(srv.Close)
	return srv.URL
}

// await waits until done reports true under the inbox's lock.
func (s *inbox) await(t *testing.T, what string, done func() bool) {
	t.Helper()
	late := time.AfterFunc(time.Minute, func() {
		buf := make([]byte, 1<<20)
		panic(fmt.Sprintf("waiting for %s\n%s", what, buf[:runtime.Stack(buf, true)]))
	})
	defer late.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for !done() {
		s.changed.Wait()
	}
}

func ok(*http.Request) int { return 200 }

// runHook starts a hook without a broker.
func runHook(t *testing.T, opts *Options) *Hook {
	t.Helper()
	h := new(Hook)
	h.Log = slog.New(slog.DiscardHandler)
	if err := h.Init(opts); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Stop() })
	return h
}

// allPublishes is a configuration of one endpoint that takes all publishes.
func allPublishes(url string, change func(*Endpoint)) *Config {
	e := Endpoint{URL: url, Events: []Rule{{Event: OnMessagePublish}}}
	if change != nil {
		change(&e)
	}
	return &Config{Endpoints: []Endpoint{e}}
}

func mustReload(t *testing.T, h *Hook, cfg *Config) {
	t.Helper()
	if err := h.Reload(cfg); err != nil {
		t.Fatal(err)
	}
}

// TestReloadUnderLoad reloads while clients publish. Each event has to arrive
// once, and those of a client in order.
func TestReloadUnderLoad(t *testing.T) {
	const reloads, clients, mostWorkers = 1000, 12, 8
	got := newInbox()
	urls := []string{got.serve(t, ok), got.serve(t, ok)}
	before := runtime.NumGoroutine()
	patient := func(e *Endpoint) { e.Timeout = time.Minute }
	h := runHook(t, &Options{Config: allPublishes(urls[0], patient), DrainTimeout: 20 * time.Second})

	var done atomic.Bool
	var sent atomic.Int64
	var publishers sync.WaitGroup
	for c := range clients {
		publishers.Go(func() {
			for n := 0; n < 3000 && !done.Load(); n++ { // not more than are delivered in time
				h.emit(publishOf(fmt.Sprint("c", c), fmt.Sprintf("%d %d", c, n)))
				if sent.Add(1)%16 == 0 {
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range reloads {
		mustReload(t, h, allPublishes(urls[rnd.IntN(2)], func(e *Endpoint) {
			e.PoolSize = 1 + rnd.IntN(mostWorkers)
			e.Headers = []Header{{"x-reload", Secret(fmt.Sprint(rnd.IntN(3)))}}
			e.Body.Encoding = Plain
			e.Timeout = time.Duration(60+rnd.IntN(3)) * time.Second
			e.Queue.Capacity = 1 << (20 + rnd.IntN(3))
			e.Queue.MaxBytes = -1
			if rnd.IntN(2) == 0 {
				e.Events = append(e.Events, Rule{Event: OnMessagePublish, Topic: "t"})
			}
			if rnd.IntN(4) == 0 {
				e.Name = "DEFAULT"
			}
		}))
		if i%100 == 0 {
			checkSum(t, h.Stats().Endpoints["default"])
		}
	}
	done.Store(true)
	publishers.Wait()
	mustReload(t, h, allPublishes(urls[1], patient))
	want := int(sent.Load())
	got.await(t, "all events", func() bool { return len(got.payloads) >= want })
	if err := h.Stop(); err != nil {
		t.Fatal(err)
	}
	s := h.Stats().Endpoints["default"]
	checkSum(t, s)
	if int(s.Offered) != want || int(s.Delivered) != want || s.Retried != 0 {
		t.Errorf("%d sent, stats %+v", want, s)
	}
	got.await(t, "connections to close", func() bool { return len(got.open) == 0 })
	if got.most > 32 {
		t.Errorf("%d requests at a time, of pools of at most %d, and 32 at the ends", got.most, mostWorkers)
	}
	for id, n := range got.ids {
		if n != 1 {
			t.Fatalf("%s came %d times", id, n)
		}
	}
	last := make(map[int]int)
	for _, p := range got.payloads {
		var c, n int
		if _, err := fmt.Sscanf(p, "%d %d", &c, &n); err != nil {
			t.Fatal(err)
		}
		if n != last[c] {
			t.Fatalf("client %d: event %d came where %d is next", c, n, last[c])
		}
		last[c] = n + 1
	}
	for deadline := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before+2 && time.Now().Before(deadline); {
		runtime.Gosched() // the servers' goroutines end after their connections
	}
	if n := runtime.NumGoroutine(); n > before+2 {
		buf := make([]byte, 1<<20)
		t.Errorf("%d goroutines, %d before:\n%s", n, before, buf[:runtime.Stack(buf, true)])
	}
}

func TestReloadPoolSize(t *testing.T) {
	got := newInbox()
	release := make(chan struct{})
	url := got.serve(t, func(*http.Request) int { <-release; return 200 })
	workers := func(n int) *Config {
		return allPublishes(url, func(e *Endpoint) { e.PoolSize, e.Timeout = n, time.Hour })
	}
	h := runHook(t, &Options{Config: workers(4), DrainTimeout: 10 * time.Second})
	for i := range 40 {
		h.emit(publishOf(fmt.Sprint("c", i), "x"))
	}
	inFlight := func(n int) {
		t.Helper()
		for h.Stats().Endpoints["default"].InFlight != n {
			runtime.Gosched()
		}
	}
	inFlight(4)
	mustReload(t, h, workers(6))
	inFlight(6)
	mustReload(t, h, workers(2))
	release <- struct{}{}
	release <- struct{}{}
	inFlight(4)
	for range 3 {
		release <- struct{}{}
	}
	for h.Stats().Endpoints["default"].Delivered != 5 {
		runtime.Gosched()
	}
	inFlight(2)
	close(release)
	got.await(t, "all events", func() bool { return len(got.payloads) == 40 })
	if got.most > 6 {
		t.Errorf("%d requests at a time", got.most)
	}
}

func TestReloadEndsIdleConnections(t *testing.T) {
	old, current := newInbox(), newInbox()
	h := runHook(t, &Options{Config: allPublishes(old.serve(t, ok), nil)})
	h.emit(publishOf("c", "1"))
	old.await(t, "the first event", func() bool { return len(old.payloads) == 1 })
	mustReload(t, h, allPublishes(current.serve(t, ok), nil))
	old.await(t, "the connection to close", func() bool { return len(old.open) == 0 })
	h.emit(publishOf("c", "2"))
	current.await(t, "the second event", func() bool { return len(current.payloads) == 1 })
}

func TestReloadKeepsConnectionsWhereItCan(t *testing.T) {
	got := newInbox()
	url := got.serve(t, ok)
	h := runHook(t, &Options{Config: allPublishes(url, func(e *Endpoint) { e.PoolSize = 1 })})
	for i := range 5 {
		h.emit(publishOf("c", fmt.Sprint(i)))
		got.await(t, "an event", func() bool { return len(got.payloads) == i+1 })
		mustReload(t, h, allPublishes(url, func(e *Endpoint) {
			e.PoolSize, e.Events[0].Topic = 1, "t"
			e.Queue.Capacity = 100 + i
		}))
	}
	got.mu.Lock()
	defer got.mu.Unlock()
	if n := len(got.open); n != 1 {
		t.Errorf("%d connections", n)
	}
}

func TestReloadToAnotherURL(t *testing.T) {
	for _, test := range []struct {
		name   string
		batch  Batch
		answer func(http.ResponseWriter)
	}{
		{"open breaker", Batch{}, func(w http.ResponseWriter) { w.WriteHeader(500) }},
		{"pause", Batch{}, func(w http.ResponseWriter) { w.Header().Set("Retry-After", "200"); w.WriteHeader(429) }},
		{"backoff", Batch{}, func(w http.ResponseWriter) { w.WriteHeader(404) }},
		{"backoff of batches", Batch{MaxEvents: 1000}, func(w http.ResponseWriter) { w.WriteHeader(404) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			var failures atomic.Int64
			bad := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				test.answer(w)
				failures.Add(1)
			}))
			defer bad.Close()
			good := newInbox()
			slow := func(e *Endpoint) {
				e.Batch = test.batch
				e.Breaker = Breaker{Failures: 3, Cooldown: time.Hour}
				e.Retry = Retry{MinBackoff: time.Hour, MaxBackoff: 2 * time.Hour, MaxAge: -1}
			}
			h := runHook(t, &Options{Config: allPublishes(bad.URL, slow)})
			for i := range 20 {
				h.emit(publishOf(fmt.Sprint("c", i), fmt.Sprint(i)))
			}
			for failures.Load() == 0 || h.Stats().Endpoints["default"].InFlight > 0 {
				runtime.Gosched()
			}
			mustReload(t, h, allPublishes(good.serve(t, ok), slow))
			awaitTrue(t, "all are delivered", func() bool { return h.Stats().Endpoints["default"].Delivered == 20 })
			if s := h.Stats().Endpoints["default"]; s.Breaker != "closed" {
				t.Errorf("stats %+v", s)
			}
		})
	}
}

// TestReloadDuringAttempt changes the URL while an attempt at the old one is
// under way, which then fails: the event goes to the new one at once.
func TestReloadDuringAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := func(e *Endpoint) { e.Retry = Retry{MinBackoff: time.Hour, MaxBackoff: 2 * time.Hour, MaxAge: -1} }
		h := runHook(t, &Options{Config: allPublishes("http://old/", slow), Transport: roundTripFunc(func(r *http.Request) (*http.Response, error) {
			if r.URL.Host == "old" {
				time.Sleep(time.Second)
				return answer(500)
			}
			return answer(200)
		})})
		h.emit(publishOf("c", "1"))
		h.emit(publishOf("c", "2"))
		synctest.Wait()
		mustReload(t, h, allPublishes("http://new/", slow))
		time.Sleep(time.Second + time.Millisecond)
		if s := h.Stats().Endpoints["default"]; s.Delivered != 2 || s.Retried != 1 {
			t.Errorf("stats %+v", s)
		}
	})
}

// TestStopEndsAttemptsFromBeforeAReload has an attempt hang that began under another
// configuration.
func TestStopEndsAttemptsFromBeforeAReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := runHook(t, &Options{Config: allPublishes("http://old/", nil), DrainTimeout: -1, Transport: unreachable})
		h.emit(publishOf("c", "x"))
		synctest.Wait()
		for _, url := range []string{"http://new/", "http://newer/"} {
			mustReload(t, h, allPublishes(url, nil))
		}
		begin := time.Now()
		_ = h.Stop()
		synctest.Wait()
		s := h.Stats().Endpoints["default"]
		if took := time.Since(begin); took > time.Second || s.InFlight != 0 || s.Dropped["shutdown"] != 1 {
			t.Errorf("Stop took %v, stats %+v, want the event dropped", took, s)
		}
	})
}

// TestReloadShortens lowers how long an endpoint is left alone, after a failure
// that has it left alone for an hour, and while an attempt is under way.
func TestReloadShortens(t *testing.T) {
	for name, test := range map[string]struct {
		status        int
		before, after func(*Endpoint)
	}{
		"cooldown": {500,
			func(e *Endpoint) { e.Breaker = Breaker{Failures: 1, Cooldown: time.Hour} },
			func(e *Endpoint) { e.Breaker = Breaker{Failures: 1, Cooldown: time.Second} }},
		"no breaker": {500,
			func(e *Endpoint) { e.Breaker = Breaker{Failures: 1, Cooldown: time.Hour} },
			func(e *Endpoint) { e.Breaker = Breaker{Failures: -1} }},
		"pause": {429,
			func(e *Endpoint) { e.Retry.MaxRetryAfter = time.Hour },
			func(e *Endpoint) { e.Retry.MaxRetryAfter = time.Second }},
		"backoff": {500,
			func(e *Endpoint) { e.Retry.MinBackoff, e.Retry.MaxBackoff = time.Hour, time.Hour },
			func(e *Endpoint) { e.Retry.MinBackoff, e.Retry.MaxBackoff = time.Millisecond, time.Second }},
	} {
		for _, during := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, attempt under way: %v", name, during), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var attempts atomic.Int64
					reply := make(chan bool)
					h := runHook(t, &Options{DrainTimeout: -1, Transport: roundTripFunc(func(*http.Request) (*http.Response, error) {
						if attempts.Add(1) > 1 {
							return answer(200)
						}
						<-reply
						return respond(test.status, http.NoBody, http.Header{"Retry-After": {"3600"}}), nil
					}), Config: allPublishes("http://127.0.0.1:1/", func(e *Endpoint) {
						e.Retry = Retry{MinBackoff: time.Millisecond, MaxBackoff: time.Millisecond, MaxAge: -1}
						test.before(e)
					})})
					h.emit(publishOf("c", "x"))
					synctest.Wait()
					if !during {
						close(reply)
						time.Sleep(time.Minute)
					}
					mustReload(t, h, allPublishes("http://127.0.0.1:1/", func(e *Endpoint) {
						e.Retry = Retry{MinBackoff: time.Millisecond, MaxBackoff: time.Millisecond, MaxAge: -1}
						test.after(e)
					}))
					if during {
						close(reply)
					}
					time.Sleep(time.Second)
					synctest.Wait()
					if s := h.Stats().Endpoints["default"]; s.Delivered != 1 || s.Breaker != "closed" {
						t.Errorf("a second after the reload: stats %+v", s)
					}
				})
			})
		}
	}
}

// TestReloadEndsTheOrder: with ordering = "none" the events of one client do not
// wait for each other any more, those that wait already included.
func TestReloadEndsTheOrder(t *testing.T) {
	for _, status := range []int{0, 500} { // of the first attempt, 0 for none yet
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const events = 10
				var attempts atomic.Int64
				reply := make(chan bool)
				h := runHook(t, &Options{DrainTimeout: -1, Transport: roundTripFunc(func(*http.Request) (*http.Response, error) {
					if attempts.Add(1) == 1 && status != 0 {
						return answer(status)
					}
					<-reply
					return answer(200)
				}), Config: allPublishes("http://127.0.0.1:1/", func(e *Endpoint) {
					e.Retry.MinBackoff, e.Retry.MaxBackoff, e.Timeout = time.Minute, time.Minute, time.Hour
				})})
				for i := range events {
					h.emit(publishOf("c", fmt.Sprint(i)))
				}
				synctest.Wait()
				mustReload(t, h, allPublishes("http://127.0.0.1:1/", func(e *Endpoint) {
					e.Retry.MinBackoff, e.Retry.MaxBackoff, e.Timeout = time.Minute, time.Minute, time.Hour
					e.Ordering = OrderNone
				}))
				synctest.Wait()
				want := events
				if status != 0 {
					want-- // one is in backoff
				}
				if s := h.Stats().Endpoints["default"]; s.InFlight != want {
					t.Errorf("stats %+v, want %d in flight", s, want)
				}
				close(reply)
				time.Sleep(time.Hour)
				if s := h.Stats().Endpoints["default"]; s.Delivered != events || s.Waiting != 0 {
					t.Errorf("at last: stats %+v", s)
				}
			})
		})
	}
}

func TestReloadDisables(t *testing.T) {
	got := newInbox()
	url := got.serve(t, ok)
	bad := got.serve(t, func(*http.Request) int { return 503 })
	h := runHook(t, &Options{Config: allPublishes(bad, nil), DrainTimeout: 5 * time.Second})
	for i := range 3 {
		h.emit(publishOf("c", fmt.Sprint(i)))
	}
	mustReload(t, h, allPublishes(url, func(e *Endpoint) { e.Disabled = true }))
	for h.Stats().Endpoints["default"].InFlight > 0 {
		runtime.Gosched()
	}
	h.emit(publishOf("c", "not wanted"))
	time.Sleep(50 * time.Millisecond) // in which nothing may happen
	if s := h.Stats().Endpoints["default"]; s.Waiting != 3 || s.Offered != 3 || s.Delivered != 0 {
		t.Errorf("disabled: stats %+v", s)
	}
	mustReload(t, h, allPublishes(url, nil))
	h.emit(publishOf("c", "3"))
	got.await(t, "all events", func() bool { return len(got.payloads) == 4 })
	if want := []string{"0", "1", "2", "3"}; !slices.Equal(got.payloads, want) {
		t.Errorf("got %q, want %q", got.payloads, want)
	}
}

func TestReloadRemoves(t *testing.T) {
	endpoint := func(name, url string) Endpoint {
		return Endpoint{Name: name, URL: url, Events: []Rule{{Event: OnMessagePublish}}}
	}
	t.Run("drains", func(t *testing.T) {
		got := newInbox()
		release := make(chan struct{})
		slow := got.serve(t, func(*http.Request) int { <-release; return 200 })
		h := runHook(t, &Options{Config: &Config{Endpoints: []Endpoint{endpoint("a", slow), endpoint("b", slow)}}, DrainTimeout: time.Minute})
		a := h.active.Load()
		for i := range 50 {
			h.emit(publishOf(fmt.Sprint("c", i), "x"))
		}
		mustReload(t, h, &Config{Endpoints: []Endpoint{endpoint("a", slow)}})
		a.endpoints[1].queue.offer(publishOf("late", "x"), false) // as a callback does that has seen the old rules
		close(release)
		got.await(t, "all events", func() bool { return len(got.payloads) == 100 })
		if err := h.Stop(); err != nil {
			t.Fatal(err)
		}
		s := h.Stats().Endpoints["b"]
		checkSum(t, s)
		if s.Delivered != 50 || s.Offered != 51 || s.Dropped["endpoint_removed"] != 1 {
			t.Errorf("stats %+v", s)
		}
	})
	t.Run("drops", func(t *testing.T) {
		got := newInbox()
		bad := got.serve(t, func(*http.Request) int { return 503 })
		h := runHook(t, &Options{Config: &Config{Endpoints: []Endpoint{endpoint("a", bad), endpoint("b", bad)}}, DrainTimeout: -1})
		for i := range 50 {
			h.emit(publishOf(fmt.Sprint("c", i), "x"))
		}
		mustReload(t, h, &Config{Endpoints: []Endpoint{endpoint("a", bad)}})
		<-h.departureOf("b").ended
		// Events in flight are not waited for where a worker gets no time.
		awaitTrue(t, "all are dropped", func() bool { return h.Stats().Endpoints["b"].Dropped["endpoint_removed"] == 50 })
		checkSum(t, h.Stats().Endpoints["b"])
	})
	t.Run("comes back after it was disabled", func(t *testing.T) {
		got := newInbox()
		good, bad := got.serve(t, ok), got.serve(t, func(*http.Request) int { return 503 })
		h := runHook(t, &Options{Config: &Config{Endpoints: []Endpoint{endpoint("a", good), endpoint("b", bad)}}, DrainTimeout: time.Minute})
		for i := range 3 {
			h.emit(publishOf("c", fmt.Sprint(i)))
		}
		off := endpoint("b", bad)
		off.Disabled = true
		mustReload(t, h, &Config{Endpoints: []Endpoint{endpoint("a", good), off}})
		mustReload(t, h, &Config{Endpoints: []Endpoint{endpoint("a", good)}})
		mustReload(t, h, &Config{Endpoints: []Endpoint{endpoint("a", good), endpoint("b", good)}})
		got.await(t, "all events", func() bool { return len(got.payloads) == 6 })
	})
	t.Run("writes dead letters", func(t *testing.T) {
		got := newInbox()
		file := filepath.Join(t.TempDir(), "dead.jsonl")
		bad := got.serve(t, func(*http.Request) int { return 503 })
		b := endpoint("b", bad)
		b.DeadLetter.File = file
		h := runHook(t, &Options{Config: &Config{Endpoints: []Endpoint{endpoint("a", bad), b}}, DrainTimeout: -1})
		h.emit(publishOf("c", "x"))
		mustReload(t, h, &Config{Endpoints: []Endpoint{endpoint("a", bad)}})
		<-h.departureOf("b").ended
		awaitTrue(t, "the event has ended", func() bool { s := h.Stats().Endpoints["b"]; return s.Waiting+s.InFlight == 0 })
		text, err := os.ReadFile(file)
		if s := h.Stats().Endpoints["b"]; err != nil || s.Dead != 1 || bytes.Count(text, []byte("\n")) != 1 {
			t.Errorf("%v: %s stats %+v", err, text, s)
		}
	})
	t.Run("and brings back in time", func(t *testing.T) {
		got := newInbox()
		var up atomic.Bool
		url := got.serve(t, func(*http.Request) int {
			if up.Load() {
				return 200
			}
			return 503
		})
		both := func(url string) *Config {
			return &Config{Endpoints: []Endpoint{endpoint("a", url), endpoint("b", url)}}
		}
		h := runHook(t, &Options{Config: both(url), DrainTimeout: time.Minute})
		h.emit(publishOf("c", "1"))
		mustReload(t, h, &Config{Endpoints: []Endpoint{endpoint("A", url)}})
		if err := h.Reload(&Config{Endpoints: []Endpoint{{Name: "a", URL: url, Queue: Queue{Type: DiskQueue, Dir: t.TempDir()}}, endpoint("b", url)}}); err == nil {
			t.Fatal("no error")
		}
		mustReload(t, h, both(url+"/other"))
		up.Store(true) // not before: what has delivered everything is gone
		h.emit(publishOf("c", "2"))
		got.await(t, "all events", func() bool { return len(got.payloads) == 4 })
		if s := h.Stats(); len(s.Endpoints) != 2 || s.Endpoints["b"].Offered != 2 {
			t.Errorf("stats %+v", s)
		}
	})
	t.Run("a disk queue and brings it back", func(t *testing.T) {
		got := newInbox()
		dir := t.TempDir()
		onDisk := func(url string) *Config {
			e := endpoint("b", url)
			e.Queue = Queue{Type: DiskQueue, Dir: dir}
			return &Config{Endpoints: []Endpoint{e}}
		}
		bad := got.serve(t, func(*http.Request) int { return 503 })
		good := got.serve(t, ok)
		h := runHook(t, &Options{Config: onDisk(bad), DrainTimeout: -1})
		for i := range 5 {
			h.emit(publishOf("c", fmt.Sprint(i)))
		}
		mustReload(t, h, allPublishes(good, nil))
		<-h.departureOf("b").ended
		awaitTrue(t, "all wait", func() bool { return h.Stats().Endpoints["b"].Waiting == 5 })
		if s := h.Stats().Endpoints["b"]; len(s.Dropped) > 0 {
			t.Errorf("removed: stats %+v", s)
		}
		awaitTrue(t, "the folder is free", func() bool { return h.Reload(onDisk(good)) == nil }) // nobody waits for a slow disk
		got.await(t, "all events", func() bool { return len(got.payloads) == 5 })
		if want := []string{"0", "1", "2", "3", "4"}; !slices.Equal(got.payloads, want) {
			t.Errorf("got %q, want %q", got.payloads, want)
		}
	})
}

// TestReloadEndsTheProbes takes an endpoint away, or disables it, that was only
// probed: what says that it is would say so for ever.
func TestReloadEndsTheProbes(t *testing.T) {
	got := newInbox()
	bad := got.serve(t, func(*http.Request) int { return 503 })
	for _, test := range []struct {
		name    string
		change  func(*Endpoint)
		waits   bool // until it is enabled again
		healthy bool
	}{
		{"other settings", func(e *Endpoint) { e.PoolSize = 1 }, true, false},
		{"disabled", func(e *Endpoint) { e.Disabled = true }, true, true},
		{"removed", func(e *Endpoint) { e.Name = "another" }, false, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			failing := func(e *Endpoint) {
				e.Name, e.Queue = "failing", Queue{Type: DiskQueue, Dir: dir}
				e.Breaker = Breaker{Failures: 1, Cooldown: time.Hour}
			}
			h := runHook(t, &Options{Config: allPublishes(bad, failing), DrainTimeout: -1})
			h.emit(publishOf("c", "x"))
			stats := func() EndpointStats { return h.Stats().Endpoints["failing"] }
			awaitTrue(t, "the breaker is open and the event gets older", func() bool {
				s := stats()
				return s.Breaker == "open" && s.OldestWaitingMS > 0
			})
			mustReload(t, h, allPublishes(bad, func(e *Endpoint) { failing(e); test.change(e) }))
			if d := h.departureOf("failing"); d != nil {
				<-d.ended
			}
			want := "open"
			if test.healthy {
				want = "closed"
			}
			if s := stats(); s.Waiting != 1 || s.Breaker != want || (s.OldestWaitingMS > 0) != test.waits {
				t.Errorf("want an event that waits, breaker %s, an age: %v; stats %+v", want, test.waits, s)
			}
			if err := h.Healthy(); (err == nil) != test.healthy || err != nil && !strings.Contains(err.Error(), "status 503") {
				t.Errorf("Healthy: got %v, want nil: %v, or else the status", err, test.healthy)
			}
		})
	}
}

func TestReloadRefuses(t *testing.T) {
	dir := t.TempDir()
	onDisk := allPublishes("http://127.0.0.1:1/", func(e *Endpoint) { e.Queue = Queue{Type: DiskQueue, Dir: dir} })
	for _, test := range []struct {
		name     string
		from, to *Config
		want     string
	}{
		{"queue type", allPublishes("http://127.0.0.1:1/", nil), onDisk, "queue.type cannot be changed by a reload, it needs a restart"},
		{"queue dir", onDisk, allPublishes("http://127.0.0.1:1/", func(e *Endpoint) { e.Queue = Queue{Type: DiskQueue, Dir: dir + "/x"} }),
			"queue.dir cannot be changed"},
		{"queue sync", onDisk, allPublishes("http://127.0.0.1:1/", func(e *Endpoint) { e.Queue = Queue{Type: DiskQueue, Dir: dir, Sync: SyncAlways} }),
			"queue.sync cannot be changed"},
		{"checks", onDisk, allPublishes("ftp://secret@x/", nil), "must begin with http://"},
		{"no file", onDisk, nil, "Options has no File"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var log bytes.Buffer
			h := new(Hook)
			h.Log = slog.New(slog.NewTextHandler(&log, nil))
			if err := h.Init(&Options{Config: test.from, DrainTimeout: -1}); err != nil {
				t.Fatal(err)
			}
			defer h.Stop()
			before := h.active.Load()
			err := h.Reload(test.to)
			if err == nil || !strings.HasPrefix(err.Error(), "webhook: ") || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "secret") {
				t.Errorf("error %v, want %q", err, test.want)
			}
			if h.active.Load() != before {
				t.Error("the configuration has changed")
			}
			if !strings.Contains(log.String(), "configuration refused") || strings.Contains(log.String(), "secret") {
				t.Errorf("log %q", log.String())
			}
		})
	}
	t.Run("before Init and after Stop", func(t *testing.T) {
		h := new(Hook)
		if err := h.Reload(onDisk); err == nil {
			t.Error("no error before Init")
		}
		var log logLines
		h.Log = log.logger()
		if err := h.Init(&Options{Config: onDisk}); err != nil {
			t.Fatal(err)
		}
		_ = h.Stop()
		if err := h.Reload(onDisk); !errors.Is(err, errStopped) || strings.Contains(log.String(), "configuration refused") {
			t.Errorf("after Stop: %v, which is no fault of the configuration; log:\n%s", err, log.String())
		}
	})
}

// TestNeedsRestart has each change of a queue told once, by its key in the file.
func TestNeedsRestart(t *testing.T) {
	stream, other := Stream{URL: "nats://a", Name: "A"}, Stream{URL: "nats://a", Name: "B"}
	inMemory, onDisk := Queue{Type: MemoryQueue}, Queue{Type: DiskQueue, Dir: "d"}
	synced, moved := onDisk, onDisk
	synced.Sync, moved.Dir = SyncAlways, "e"
	for _, test := range []struct {
		name     string
		from, to Endpoint
		want     []string // what cannot be changed
	}{
		{"nothing", Endpoint{Queue: onDisk}, Endpoint{Queue: onDisk}, nil},
		{"memory to disk", Endpoint{Queue: inMemory}, Endpoint{Queue: onDisk}, []string{"queue.type"}},
		{"dir", Endpoint{Queue: onDisk}, Endpoint{Queue: moved}, []string{"queue.dir"}},
		{"type and sync", Endpoint{Queue: inMemory}, Endpoint{Queue: synced}, []string{"queue.type", "queue.sync"}},
		{"disk to stream", Endpoint{Queue: onDisk}, Endpoint{Queue: inMemory, Stream: stream}, []string{"queue.type"}},
		{"stream to memory", Endpoint{Queue: inMemory, Stream: stream}, Endpoint{Queue: inMemory}, []string{"queue.type"}},
		{"stream to stream", Endpoint{Queue: inMemory, Stream: stream}, Endpoint{Queue: inMemory, Stream: other}, []string{"the stream of a queue"}},
		{"local type", Endpoint{Queue: inMemory, Stream: stream}, Endpoint{Queue: onDisk, Stream: stream}, []string{"queue.local.type"}},
		{"local dir", Endpoint{Queue: onDisk, Stream: stream}, Endpoint{Queue: moved, Stream: stream}, []string{"queue.local.dir"}},
		{"local sync", Endpoint{Queue: onDisk, Stream: stream}, Endpoint{Queue: synced, Stream: stream}, []string{"queue.local.sync"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got []string
			if err := needsRestart(&test.from, &test.to); err != nil {
				got = strings.Split(strings.ReplaceAll(err.Error(), " cannot be changed by a reload, it needs a restart", ""), "\n")
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// TestRefusedReloadLeavesNothingOpen refuses a reload because of one endpoint: what was
// opened for another one, which changes or is new, is closed, and can be opened again.
func TestRefusedReloadLeavesNothingOpen(t *testing.T) {
	for _, added := range []bool{false, true} {
		t.Run(fmt.Sprint("added: ", added), func(t *testing.T) {
			dir := t.TempDir()
			a := Endpoint{Name: "a", URL: "http://127.0.0.1:1/", Events: rulesFor(OnMessagePublish)}
			refused, b := a, a
			refused.Queue, b.Name = Queue{Type: DiskQueue, Dir: dir}, "b"
			first := &Config{Endpoints: []Endpoint{a, b}}
			b.DeadLetter.File = filepath.Join(dir, "dead.jsonl")
			if added {
				first.Endpoints = first.Endpoints[:1]
				b.Queue = Queue{Type: DiskQueue, Dir: dir}
			}
			h := runHook(t, &Options{Config: first, DrainTimeout: -1})
			if err := h.Reload(&Config{Endpoints: []Endpoint{refused, b}}); err == nil {
				t.Fatal("no error")
			}
			if n := openTestLetters(t, b.DeadLetter).users; n != 1 {
				t.Errorf("the dead letter file has %d users, want the test alone", n)
			}
			mustReload(t, h, &Config{Endpoints: []Endpoint{a, b}})
		})
	}
}

// TestReloadClosesTheOldLetters changes the dead letter file: nobody has the old one
// open any more.
func TestReloadClosesTheOldLetters(t *testing.T) {
	before, after := DeadLetter{File: filepath.Join(t.TempDir(), "before")}, DeadLetter{File: filepath.Join(t.TempDir(), "after")}
	h := runHook(t, &Options{Config: allPublishes("http://127.0.0.1:1/", func(e *Endpoint) { e.DeadLetter = before }), DrainTimeout: -1})
	mustReload(t, h, allPublishes("http://127.0.0.1:1/", func(e *Endpoint) { e.DeadLetter = after }))
	if n, m := openTestLetters(t, before).users, openTestLetters(t, after).users; n != 1 || m != 2 {
		t.Errorf("%d and %d users of the files, want the test alone, and with the endpoint", n, m)
	}
}

// TestReloadAndStopRace has both at once; nothing may be left.
func TestReloadAndStopRace(t *testing.T) {
	got := newInbox()
	urls := []string{got.serve(t, ok), got.serve(t, ok)}
	for range 50 {
		h := runHook(t, &Options{Config: allPublishes(urls[0], nil), DrainTimeout: time.Second})
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				for n := range 10 {
					h.emit(publishOf(fmt.Sprint(i), "x"))
					_ = h.Reload(allPublishes(urls[n%2], func(e *Endpoint) { e.Name = []string{"a", "b", "default"}[n%3] }))
				}
			})
		}
		wg.Go(func() { _ = h.Stop() })
		wg.Wait()
		awaitEnd(t, h)
		for name, s := range h.Stats().Endpoints {
			if checkSum(t, s); s.Waiting+s.InFlight > 0 {
				t.Errorf("%s: %+v", name, s)
			}
		}
	}
	got.await(t, "connections to close", func() bool { return len(got.open) == 0 })
}

// TestReloadLowersTheCapacity checks that what waits is not thrown away.
func TestReloadLowersTheCapacity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := defaultEndpoint()
		e := startFake(c, hang)
		e.queue.mu.Lock()
		e.queue.limits.workers = 0
		e.queue.mu.Unlock()
		for i := range 100 {
			e.queue.offer(publishOf("c", fmt.Sprint(i)), false)
		}
		e.queue.mu.Lock()
		e.queue.limits.queue.Capacity = 10
		e.queue.mu.Unlock()
		e.queue.offer(publishOf("c", "x"), false)
		if s := e.queue.stats(); s.Waiting != 100 || s.Dropped["queue_full"] != 1 {
			t.Errorf("stats %+v", s)
		}
		e.stop(0)
	})
}

// TestSamePool: how events are ordered is the queue's to know, but for a stream,
// whose partition an event is put into by the pool.
func TestSamePool(t *testing.T) {
	a := defaultEndpoint()
	b := a
	b.Ordering = OrderNone
	if !samePool(&a, &b) {
		t.Error("another ordering takes another pool")
	}
	a.Stream.URL, b.Stream.URL = "nats://127.0.0.1", "nats://127.0.0.1"
	if samePool(&a, &b) {
		t.Error("another ordering keeps the pool of a stream")
	}
}

// TestSameConnections: a connection that has shown another client certificate, or told
// a proxy another password, does not go on after a reload.
func TestSameConnections(t *testing.T) {
	ca := newTestCA(t, "CA")
	connect := func(password, certFile, keyFile string) *client {
		t.Helper()
		withProxies(t, map[string]string{"HTTPS_PROXY": "http://user:" + password + "@proxy.test"})
		c, err := newClient(&Endpoint{URL: "https://webhook.test/", TLS: TLS{CertFile: certFile, KeyFile: keyFile}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	cert, key := ca.clientFiles()
	otherCert, otherKey := ca.clientFiles()
	c := connect("old", cert, key)
	if !c.same(connect("old", cert, key)) {
		t.Error("the same settings take other connections")
	}
	if c.same(connect("old", otherCert, otherKey)) {
		t.Error("another client certificate keeps the connections")
	}
	if c.same(connect("new", cert, key)) {
		t.Error("another password for the proxy keeps the connections")
	}
	trusting := func(ca *testCA) *client {
		t.Helper()
		c, err := newClient(&Endpoint{URL: "https://webhook.test/", TLS: TLS{CACertFile: ca.file}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	if c := trusting(ca); !c.same(trusting(ca)) || c.same(trusting(newTestCA(t, "CA"))) {
		t.Error("the same certificates of CAs take other connections, or others keep them")
	}
}

// An outageTransport answers with 503 until its end, and keeps payloads from then on.
type outageTransport struct {
	roundTripFunc
	end func()
}

// outage returns one, and the payloads by a key of their requests, which may be read
// when nothing is sent any more.
func outage(t *testing.T, key func(r *http.Request) string) (outageTransport, map[string][]string) {
	var mu sync.Mutex
	up, got := false, make(map[string][]string)
	transport := roundTripFunc(func(r *http.Request) (*http.Response, error) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		if !up {
			return answer(503)
		}
		got[key(r)] = append(got[key(r)], payloadOf(body))
		return answer(200)
	})
	return outageTransport{transport, func() {
		mu.Lock()
		defer mu.Unlock()
		up = true
	}}, got
}

// TestReloadMovesRules changes the numbers of rules that have receivers of their
// own while events wait: none may go to another one's.
func TestReloadMovesRules(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down, got := outage(t, func(r *http.Request) string { return r.URL.Host })
		config := func(rules ...string) *Config {
			e := Endpoint{Name: "all", URL: "http://all/"}
			for _, rule := range rules {
				topic, host, _ := strings.Cut(rule, " ")
				e.Events = append(e.Events, Rule{Event: OnMessagePublish, Topic: topic, URL: "http://" + host + "/"})
			}
			return &Config{Endpoints: []Endpoint{e}}
		}
		h := new(Hook)
		if err := h.Init(&Options{Config: config("a a", "b b", "b2 b"), Transport: down}); err != nil {
			t.Fatal(err)
		}
		for _, topic := range []string{"a", "b", "b2"} {
			ev := publishOf("c", topic)
			ev.topic = topic
			h.emit(ev)
		}
		time.Sleep(time.Second)
		if err := h.Reload(config("c c", "a a", "b2 b")); err != nil { // b's second rule goes on, its first departs
			t.Fatal(err)
		}
		if s := h.Stats().Endpoints; s["all-2"].Waiting+s["all-2"].InFlight != 2 || s["all-3"].Waiting+s["all-3"].InFlight != 1 || s["all-1"].Offered != 0 {
			t.Errorf("stats %+v", s)
		}
		down.end()
		time.Sleep(time.Minute)
		_ = h.Stop()
		slices.Sort(got["b"])
		if !slices.Equal(got["a"], []string{"a"}) || !slices.Equal(got["b"], []string{"b", "b2"}) || len(got["c"]) > 0 {
			t.Errorf("got %q", got)
		}
	})
}

// TestReloadMovesRulesOfOneURL removes the first of two rules without names that
// have one URL, or swaps them: each keeps what waits for it, in order and with its
// own headers.
func TestReloadMovesRulesOfOneURL(t *testing.T) {
	rule := func(topic string) Rule {
		return Rule{Event: OnMessagePublish, Topic: topic, URL: "http://rules/", Headers: []Header{{Name: "For", Value: Secret(topic)}}}
	}
	config := func(topics ...string) *Config {
		e := Endpoint{Name: "all", URL: "http://all/"}
		for _, topic := range topics {
			e.Events = append(e.Events, rule(topic))
		}
		return &Config{Endpoints: []Endpoint{e}}
	}
	for _, tt := range []struct {
		name string
		then [][]string
	}{
		{"first removed", [][]string{{"b"}}},
		{"swapped", [][]string{{"b", "a"}}},
		{"one put between", [][]string{{"a", "c", "b"}}},
		{"back behind another one", [][]string{{}, {"c", "a", "b"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				down, got := outage(t, func(r *http.Request) string { return r.Header.Get("For") })
				h := new(Hook)
				if err := h.Init(&Options{Config: config("a", "b"), Transport: down, DrainTimeout: time.Hour}); err != nil {
					t.Fatal(err)
				}
				publish := func(topic, payload string) {
					ev := publishOf("c", payload)
					ev.topic = topic
					h.emit(ev)
				}
				publish("a", "a1")
				publish("b", "b1")
				publish("b", "b2")
				time.Sleep(time.Second)
				for _, rules := range tt.then {
					mustReload(t, h, config(rules...))
					time.Sleep(time.Second)
				}
				publish("b", "b3")
				time.Sleep(time.Second)
				down.end()
				time.Sleep(time.Minute)
				_ = h.Stop()
				if !slices.Equal(got["a"], []string{"a1"}) || !slices.Equal(got["b"], []string{"b1", "b2", "b3"}) {
					t.Errorf("got %q", got)
				}
			})
		})
	}
}

// TestReloadsLeaveNoPools replaces the workers of an endpoint again and again: those
// that have ended are not kept.
func TestReloadsLeaveNoPools(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := new(Hook)
		transport := roundTripFunc(func(*http.Request) (*http.Response, error) { return answer(200) })
		if err := h.Init(&Options{Config: ruleAt("#", "http://0/"), Transport: transport}); err != nil {
			t.Fatal(err)
		}
		for i := range 5 {
			mustReload(t, h, ruleAt("#", fmt.Sprintf("http://%d/", i)))
			time.Sleep(time.Second)
		}
		var kept func(p *pool) int
		kept = func(p *pool) (n int) {
			for _, older := range p.older {
				n += 1 + kept(older)
			}
			return n
		}
		if n := kept(h.active.Load().all()[1].pool); n > 1 { // the last one was not known to have ended
			t.Errorf("%d pools are kept", n)
		}
		_ = h.Stop()
	})
}

// TestRemovedEndpointsAreSmall goes through many endpoints, as a program does that
// has one for each of its customers: their counters stay, their memory does not.
func TestRemovedEndpointsAreSmall(t *testing.T) {
	got := newInbox()
	url := got.serve(t, ok)
	config := func(name string) *Config {
		return &Config{Endpoints: []Endpoint{{URL: url, Name: name, Events: rulesFor(OnMessagePublish)}}}
	}
	h := runHook(t, &Options{Config: config("first"), DrainTimeout: time.Minute})
	const n, events = 10, 3000
	var sizes []float64
	for i := range n {
		name := fmt.Sprint("customer-", i)
		mustReload(t, h, config(name))
		for j := range events {
			h.emit(publishOf(fmt.Sprint("c", j%100), strings.Repeat("x", 500)))
		}
		awaitTrue(t, "all is delivered", func() bool { return h.Stats().Endpoints[name].Delivered == events })
		got.mu.Lock()
		got.payloads, got.ids = nil, make(map[string]int)
		got.mu.Unlock()
		if i > 0 {
			<-h.departureOf(fmt.Sprint("customer-", i-1)).ended
		}
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		sizes = append(sizes, float64(m.HeapAlloc)/(1<<20))
	}
	if grown := (sizes[n-1] - sizes[1]) / (n - 2); grown > 1 {
		t.Errorf("%.1f MiB stay of each: %.1f", grown, sizes)
	}
	for i := range n {
		if s := h.Stats().Endpoints[fmt.Sprint("customer-", i)]; s.Delivered != events {
			t.Errorf("%d: stats %+v", i, s)
		}
	}
}

// TestReloadKeepsCounters replaces a rule without a name again and again: what is
// counted under its number never falls.
func TestReloadKeepsCounters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config := func(i int) *Config {
			path := "up"
			if i == 0 {
				path = "down"
			}
			return &Config{Endpoints: []Endpoint{{Name: "all", URL: "http://all/", Events: []Rule{
				{Event: OnMessagePublish, Topic: fmt.Sprint("+/", i), URL: fmt.Sprintf("http://a/%s?%d", path, i)},
			}}}}
		}
		transport := roundTripFunc(func(r *http.Request) (*http.Response, error) {
			if r.URL.Path == "/down" {
				return answer(503)
			}
			return answer(200)
		})
		h := new(Hook)
		if err := h.Init(&Options{Config: config(0), Transport: transport, DrainTimeout: time.Minute}); err != nil {
			t.Fatal(err)
		}
		const n = 20
		for i := range uint64(n) {
			ev := publishOf("c", "x")
			ev.topic = fmt.Sprint("t/", i)
			h.emit(ev)
			s := h.Stats().Endpoints["all-1"]
			checkSum(t, s)
			if s.Offered != i+1 {
				t.Fatalf("after %d: %+v", i, s)
			}
			time.Sleep(time.Duration(i) * 10 * time.Second) // some have ended, some have not
			mustReload(t, h, config(int(i)+1))
		}
		time.Sleep(time.Hour)
		s := h.Stats().Endpoints["all-1"]
		checkSum(t, s)
		if s.Offered != n || s.Delivered != n-1 || s.Dropped["endpoint_removed"] != 1 || s.Attempts.Status2xx != n-1 || s.Durations.Count <= n-1 {
			t.Errorf("stats %+v", s)
		}
		if len(h.departures) > 0 {
			t.Errorf("%d departures are kept", len(h.departures))
		}
		_ = h.Stop()
	})
}

// TestReloadKeepsStats changes the spelling of an endpoint's name, and its events: it is
// counted under the first name, and what has been counted stays.
func TestReloadKeepsStats(t *testing.T) {
	h := runHook(t, &Options{Config: allPublishes("http://127.0.0.1:1/", nil), DrainTimeout: -1})
	mustReload(t, h, allPublishes("http://127.0.0.1:1/", func(e *Endpoint) { e.Name, e.Events = "DEFAULT", rulesFor(OnClientConnected) }))
	if s := h.Stats().Endpoints; len(s) != 1 || len(s["default"].Events) != 2 {
		t.Errorf("stats %+v, want both events of default", s)
	}
}

// TestReloadBeginsAnew brings back an endpoint that had ended: it is another one, which
// counts from the beginning.
func TestReloadBeginsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		transport := roundTripFunc(func(*http.Request) (*http.Response, error) { return answer(200) })
		h := runHook(t, &Options{Config: allPublishes("http://a/", nil), Transport: transport, DrainTimeout: -1})
		h.emit(publishOf("c", "x"))
		synctest.Wait()
		mustReload(t, h, allPublishes("http://a/", func(e *Endpoint) { e.Name = "other" }))
		synctest.Wait()
		mustReload(t, h, allPublishes("http://a/", nil))
		if s := h.Stats().Endpoints["default"]; s.Offered != 0 {
			t.Errorf("stats %+v", s)
		}
	})
}

// TestReloadRuleURL changes the URL of a rule without a name: what waits goes there.
func TestReloadRuleURL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config := func(token string) *Config {
			return &Config{Endpoints: []Endpoint{{Name: "all", URL: "http://all/", Events: []Rule{
				{Event: OnMessagePublish, URL: "http://a/?token=" + token},
			}}}}
		}
		transport := roundTripFunc(func(r *http.Request) (*http.Response, error) {
			if r.URL.RawQuery == "token=old" {
				return answer(401)
			}
			return answer(200)
		})
		h := new(Hook)
		if err := h.Init(&Options{Config: config("old"), Transport: transport}); err != nil {
			t.Fatal(err)
		}
		for i := range 10 {
			h.emit(publishOf(fmt.Sprint(i), "x"))
		}
		time.Sleep(time.Second)
		mustReload(t, h, config("new"))
		time.Sleep(time.Minute)
		if s := h.Stats().Endpoints["all-1"]; s.Offered != 10 || s.Delivered != 10 {
			t.Errorf("stats %+v", s)
		}
		_ = h.Stop()
	})
}

// TestReloadCopies has an endpoint that is a copy of a rule's, in Go.
func TestReloadCopies(t *testing.T) {
	cfg, err := (&Config{Endpoints: []Endpoint{{URL: "http://all/", Events: []Rule{{Event: OnMessagePublish, URL: "http://a/"}}}}}).resolve()
	if err != nil {
		t.Fatal(err)
	}
	other := cfg.Endpoints[1]
	other.Name = "copy"
	cfg.Endpoints = append(cfg.Endpoints, other)
	h := runHook(t, &Options{Config: cfg})
	mustReload(t, h, cfg)
	if len(h.departures) > 0 || len(h.active.Load().all()) != 3 {
		t.Errorf("%d endpoints, %d departures", len(h.active.Load().all()), len(h.departures))
	}
}

// ruleAt is a configuration of one rule with a URL of its own.
func ruleAt(topic, url string) *Config {
	return &Config{Endpoints: []Endpoint{{Name: "all", URL: "http://all/", Events: []Rule{
		{Event: OnMessagePublish, Topic: topic, URL: url},
	}}}}
}

// TestReloadBackInTime gives a rule without a name another selection and URL, and then
// its first URL again: the endpoint that departs goes on.
func TestReloadBackInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var up atomic.Bool
		transport := roundTripFunc(func(r *http.Request) (*http.Response, error) {
			if r.URL.Host == "a" && !up.Load() {
				return answer(503)
			}
			return answer(200)
		})
		h := new(Hook)
		if err := h.Init(&Options{Config: ruleAt("x/#", "http://a/"), Transport: transport, DrainTimeout: 10 * time.Second}); err != nil {
			t.Fatal(err)
		}
		ev := publishOf("c", "x")
		ev.topic = "x/1"
		h.emit(ev)
		time.Sleep(time.Second)
		mustReload(t, h, ruleAt("y/#", "http://b/"))
		time.Sleep(time.Second)
		mustReload(t, h, ruleAt("y/#", "http://a/")) // brings it back within the drain timeout
		time.Sleep(20 * time.Second)                 // over the drain timeout
		up.Store(true)
		time.Sleep(time.Minute)
		s := h.Stats().Endpoints["all-1"]
		if s.Delivered != 1 || len(s.Dropped) > 0 {
			t.Errorf("stats %+v", s)
		}
		_ = h.Stop()
	})
}

// TestReloadShortensProbe lowers max_backoff while a probe is out whose event has a
// longer one.
func TestReloadShortensProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mode atomic.Int32
		transport := roundTripFunc(func(r *http.Request) (*http.Response, error) {
			switch mode.Load() {
			case 1:
				time.Sleep(3 * time.Second)
				return answer(503)
			case 2:
				return answer(200)
			}
			return answer(503)
		})
		conf := func(most time.Duration) *Config {
			return &Config{Endpoints: []Endpoint{{URL: "http://a/", PoolSize: 1, Timeout: 20 * time.Second,
				Retry:   Retry{MinBackoff: most, MaxBackoff: most, MaxAge: -1},
				Breaker: Breaker{Failures: 1, Cooldown: 5 * time.Second},
				Events:  rulesFor(OnMessagePublish)}}}
		}
		h := new(Hook)
		if err := h.Init(&Options{Config: conf(time.Hour), Transport: transport, DrainTimeout: -1}); err != nil {
			t.Fatal(err)
		}
		h.emit(publishOf("a", "x"))
		time.Sleep(time.Second)
		mode.Store(1)
		time.Sleep(5 * time.Second) // the probe is out
		mustReload(t, h, conf(time.Second))
		time.Sleep(3 * time.Second)
		mode.Store(2)
		h.emit(publishOf("b", "x")) // the next probe, which closes the breaker
		time.Sleep(time.Minute)
		s := h.Stats().Endpoints["default"]
		if s.Delivered != 2 {
			t.Errorf("a minute after the endpoint is well, %d of 2 delivered, at max_backoff = 1s", s.Delivered)
		}
		_ = h.Stop()
	})
}

// TestReloadBringsBackADisabledEndpoint disables an endpoint, removes it, and has it back
// within the drain time: what waited is delivered.
func TestReloadBringsBackADisabledEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		status := 500
		transport := roundTripFunc(func(*http.Request) (*http.Response, error) { return answer(status) })
		enabled := allPublishes("http://a/", nil)
		h := runHook(t, &Options{Config: enabled, Transport: transport, DrainTimeout: 10 * time.Second})
		h.emit(publishOf("c", "x"))
		synctest.Wait()
		mustReload(t, h, allPublishes("http://a/", func(e *Endpoint) { e.Disabled = true }))
		mustReload(t, h, allPublishes("http://b/", func(e *Endpoint) { e.Name = "other" }))
		time.Sleep(time.Second)
		status = 200
		mustReload(t, h, enabled)
		time.Sleep(time.Minute)
		if s := h.Stats().Endpoints["default"]; s.Delivered != 1 {
			t.Errorf("stats %+v", s)
		}
	})
}
