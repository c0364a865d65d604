package webhook

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestReloadChaos changes an endpoint in every way that a reload can while
// events come and attempts fail: what has to hold of order, of counters and of
// the queue holds at every step, and every event ends.
func TestReloadChaos(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) { reloadChaos(t, seed, dir) })
		})
	}
}

func reloadChaos(t *testing.T, seed uint64, dir string) {
	rnd, answers := rand.New(rand.NewPCG(seed, 3)), rand.New(rand.NewPCG(seed, 4)) // answers is under mu
	var mu sync.Mutex
	last := make(map[string]int) // by client, the last that has ended
	busy := make(map[string]bool)
	seen := make(map[string]bool)
	transport := roundTripFunc(func(r *http.Request) (*http.Response, error) {
		body, _ := io.ReadAll(r.Body)
		if len(body) > 0 && body[0] != '[' {
			body = append(append([]byte{'['}, body...), ']')
		}
		var items []struct{ Payload string }
		if err := json.Unmarshal(body, &items); err != nil {
			t.Errorf("body %q: %v", body, err)
		}
		highest := make(map[string]int)
		bad := false
		mu.Lock()
		for _, item := range items {
			var c string
			var n int
			if _, err := fmt.Sscanf(item.Payload, "%s %d", &c, &n); err != nil {
				t.Errorf("payload %q: %v", item.Payload, err)
			}
			if highest[c] == 0 && busy[c] {
				t.Errorf("two attempts in flight for %s", c)
			}
			if n <= last[c] || n <= highest[c] {
				t.Errorf("%s: %d attempted after %d had ended and %d before it", c, n, last[c], highest[c])
			}
			busy[c], highest[c] = true, n
			bad = bad || n%19 == 0
		}
		pick, nap := answers.IntN(12), time.Duration(answers.IntN(200))*time.Millisecond
		mu.Unlock()
		time.Sleep(nap)
		mu.Lock()
		defer mu.Unlock()
		for c := range highest {
			busy[c] = false
		}
		switch {
		case pick == 0:
			return answer(500)
		case pick == 1:
			return nil, errors.New("reset")
		case pick == 2:
			return respond(429, http.NoBody, http.Header{"Retry-After": {"1"}}), nil
		case bad:
			if len(items) == 1 {
				last[items[0].Payload[:2]] = highest[items[0].Payload[:2]]
			}
			return answer(400)
		}
		for _, item := range items {
			if seen[item.Payload] {
				t.Errorf("%q came twice", item.Payload)
			}
			seen[item.Payload] = true
		}
		for c, n := range highest {
			last[c] = n
		}
		return answer(200)
	})
	endpoint := func() Endpoint {
		e := Endpoint{
			URL: fmt.Sprint("http://127.0.0.1/", rnd.IntN(2)), PoolSize: 1 + rnd.IntN(6),
			Events:  []Rule{{Event: OnMessagePublish}},
			Retry:   Retry{MinBackoff: time.Duration(1+rnd.IntN(500)) * time.Millisecond, MaxBackoff: time.Second, MaxAge: -1},
			Breaker: Breaker{Failures: 1 + rnd.IntN(5), Cooldown: time.Duration(1+rnd.IntN(2000)) * time.Millisecond},
			Queue: Queue{
				Capacity: 20 + rnd.IntN(300), MaxBytes: -1, BlockTimeout: 100 * time.Millisecond,
				Overflow: []Overflow{DropOldest, DropNewest, Block}[rnd.IntN(3)],
			},
			Disabled: rnd.IntN(8) == 0,
		}
		if rnd.IntN(2) == 0 {
			e.Batch = Batch{MaxEvents: 1 + rnd.IntN(20), MaxBytes: int64(200 + rnd.IntN(2000)), Linger: time.Duration(1+rnd.IntN(300)) * time.Millisecond}
		}
		if rnd.IntN(3) == 0 {
			e.DeadLetter.File = filepath.Join(dir, fmt.Sprint("dead", rnd.IntN(2)))
		}
		if rnd.IntN(4) == 0 {
			e.Name = "DEFAULT"
		}
		return e
	}
	other := Endpoint{Name: "other", URL: "http://127.0.0.1/other", Events: []Rule{{Event: OnClientConnack}}}
	h := startHook(t, Options{Transport: transport, DrainTimeout: 2 * time.Second}, func(*Endpoint) {})
	queues := make(map[*queue]bool) // one more when the endpoint comes back after its end
	track := func() {
		for _, e := range h.active.Load().all() {
			if e.config.Name != other.Name {
				queues[e.queue] = true
			}
		}
	}
	next := make(map[string]int)
	for step := range 2000 {
		c := fmt.Sprint("c", rnd.IntN(10))
		next[c]++
		track()
		if a := h.active.Load(); len(a.endpoints) > 1 {
			var p *patience
			if rnd.IntN(2) == 0 {
				p = &patience{waits: true}
			}
			a.endpoints[0].offer(publishOf(c, fmt.Sprintf("%s %d", c, next[c])), 0, a, p)
		}
		if step%10 == 0 {
			cfg := &Config{Endpoints: []Endpoint{other}}
			if rnd.IntN(8) > 0 {
				cfg.Endpoints = append([]Endpoint{endpoint()}, other)
			}
			mustReload(t, h, cfg)
		}
		synctest.Wait()
		for q := range queues {
			checkSum(t, q.stats())
			checkQueue(t, q)
		}
		time.Sleep(time.Duration(rnd.IntN(60)) * time.Millisecond)
	}
	enabled := endpoint()
	enabled.Disabled = false
	mustReload(t, h, &Config{Endpoints: []Endpoint{enabled, other}})
	track()
	time.Sleep(time.Minute)
	if err := h.Stop(); err != nil {
		t.Error(err)
	}
	synctest.Wait()
	delivered := 0
	for q := range queues {
		s := q.stats()
		checkSum(t, s)
		checkQueue(t, q)
		delivered += int(s.Delivered)
		if s.Waiting != 0 || s.InFlight != 0 {
			t.Errorf("stats %+v", s)
		}
		if q.busy != 0 || q.byKey.used != 0 || q.batching.ready != 0 || q.batching.claims != 0 {
			t.Errorf("left behind: %d busy, %d lanes, %+v", q.busy, q.byKey.used, q.batching)
		}
	}
	if delivered != len(seen) {
		t.Errorf("%d delivered, %d seen", delivered, len(seen))
	}
}
