package webhook

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// batchEndpoint is defaultEndpoint with batches.
func batchEndpoint(b Batch) Endpoint {
	c := Endpoint{URL: "http://127.0.0.1/", Batch: b}
	c.fill(func(field string, err error) { panic(field + " " + err.Error()) })
	return c
}

// batchOf returns the payloads in a body, and checks what holds for each batch.
func batchOf(t *testing.T, c *Endpoint, req *request) (payloads []string) {
	t.Helper()
	var items []struct{ Payload, ID string }
	if err := json.Unmarshal(req.body, &items); err != nil {
		t.Errorf("body %q: %v", req.body, err)
	}
	ids := sha256.New()
	for _, item := range items {
		payloads = append(payloads, item.Payload)
		ids.Write([]byte(item.ID))
		if len(item.ID) != idLen && !c.Batch.WithoutIDs {
			t.Errorf("id %q in body %q", item.ID, req.body)
		}
	}
	if want := "batch_" + hex.EncodeToString(ids.Sum(nil))[:32]; string(req.id) != want && !c.Batch.WithoutIDs {
		t.Errorf("webhook-id %q, want %q", req.id, want)
	}
	if len(items) == 0 || len(items) > c.Batch.MaxEvents {
		t.Errorf("%d events in a batch of at most %d", len(items), c.Batch.MaxEvents)
	}
	if len(items) > 1 && int64(len(req.body)) > c.Batch.MaxBytes {
		t.Errorf("a body of %d bytes, %d are allowed", len(req.body), c.Batch.MaxBytes)
	}
	return payloads
}

// A sent is a batch that arrived.
type sent struct {
	at       time.Duration
	payloads []string
}

// recordBatches answers batches by answer and records them.
func recordBatches(t *testing.T, c *Endpoint, answer func(payloads []string) outcome) (*endpoint, func() []sent) {
	var mu sync.Mutex
	var got []sent
	start := time.Now()
	e := startFake(*c, func(req *request, _ time.Time, _ <-chan struct{}) outcome {
		payloads := batchOf(t, c, req)
		mu.Lock()
		got = append(got, sent{time.Since(start), payloads})
		mu.Unlock()
		return answer(payloads)
	})
	return e, func() []sent {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(got)
	}
}

func accept([]string) outcome { return outcome{status: 200} }

func TestBatchGoesOutFullOrAfterLingering(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := batchEndpoint(Batch{MaxEvents: 4, Linger: 20 * time.Millisecond})
		e, got := recordBatches(t, &c, accept)
		offer := func(payloads ...string) {
			for i, p := range payloads {
				e.queue.offer(publishOf(fmt.Sprint("c", i), p), false)
			}
			synctest.Wait()
		}
		offer("a") // 0 ms
		time.Sleep(5 * time.Millisecond)
		offer("b") // 5 ms; both go at 20
		time.Sleep(25 * time.Millisecond)
		offer("c", "d", "e", "f", "g") // 30 ms: four at once, one at 50
		time.Sleep(100 * time.Millisecond)
		want := []sent{
			{20 * time.Millisecond, []string{"a", "b"}},
			{30 * time.Millisecond, []string{"c", "d", "e", "f"}},
			{50 * time.Millisecond, []string{"g"}},
		}
		if g := got(); fmt.Sprint(g) != fmt.Sprint(want) {
			t.Errorf("got %v, want %v", g, want)
		}
		e.stop(0)
	})
}

// TestBatchRestGoesOutToo: events that do not fit into one request go out by other
// connections if those are free.
func TestBatchRestGoesOutToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := batchEndpoint(Batch{MaxEvents: 100, MaxBytes: 2000, Linger: 20 * time.Millisecond})
		c.PoolSize = 3
		e, got := recordBatches(t, &c, func([]string) outcome {
			time.Sleep(time.Second)
			return outcome{status: 200}
		})
		synctest.Wait()                               // all workers are idle
		padding := "\n" + strings.Repeat("\x01", 200) // six times as long in a body
		for i, client := range []string{"a", "b", "c", "a", "b", "c"} {
			e.queue.offer(publishOf(client, fmt.Sprint(client, i, padding)), false)
		}
		time.Sleep(10 * time.Second)
		var order []string
		for _, s := range got() {
			order = append(order, fmt.Sprint(s.at, " ", s.payloads[0][:2]))
			if len(s.payloads) > 1 {
				t.Errorf("%q", s.payloads)
			}
		}
		slices.Sort(order)
		if got, want := fmt.Sprint(order), "[0s a0 0s b1 0s c2 1s a3 1s b4 1s c5]"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		s := e.queue.stats()
		checkSum(t, s)
		if s.Delivered != 6 || s.Retried != 0 {
			t.Errorf("%+v", s)
		}
		e.stop(0)
	})
}

// TestBatchRestDoesNotLinger: what did not fit into a batch that was due goes out
// at once, before what came later, or after the batch if it is of its lanes.
// TestBatchRestIsForWhoIsFreeNext checks that what does not fit into a batch does
// not wait for its end when another worker is done before.
func TestBatchRestIsForWhoIsFreeNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := batchEndpoint(Batch{MaxEvents: 100, MaxBytes: 8 << 10, Linger: time.Millisecond})
		c.PoolSize, c.Timeout = 2, time.Hour
		begin := time.Now()
		e := startFake(c, func(req *request, _ time.Time, _ <-chan struct{}) outcome {
			if waited := time.Since(begin); waited > 2*time.Second {
				t.Errorf("an attempt after %v", waited)
			}
			switch {
			case bytes.Contains(req.body, []byte(`"first"`)):
				time.Sleep(time.Second)
			case bytes.Contains(req.body, []byte(`"hangs"`)):
				time.Sleep(time.Minute)
			}
			return outcome{status: 200}
		})
		synctest.Wait()
		e.queue.offer(publishOf("first", "x"), false)
		time.Sleep(100 * time.Millisecond)
		for _, client := range []string{"hangs", "a", "b", "c", "d", "e", "f", "g"} {
			e.queue.offer(publishOf(client, strings.Repeat(`"`, 900)), false) // the body is twice as long as it is in the queue
		}
		time.Sleep(2 * time.Minute)
		if s := e.queue.stats(); s.Delivered != 9 {
			t.Errorf("stats %+v", s)
		}
		e.stop(0)
	})
}

func TestBatchRestDoesNotLinger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := batchEndpoint(Batch{MaxEvents: 6, MaxBytes: 2000, Linger: time.Hour})
		c.PoolSize = 2
		e, got := recordBatches(t, &c, func([]string) outcome {
			time.Sleep(time.Second)
			return outcome{status: 200}
		})
		synctest.Wait()
		long, short := "\n"+strings.Repeat("\x01", 200), "\n" // of the long ones one fits
		for i, p := range []string{long, long, short, short, short, short} {
			e.queue.offer(publishOf(string("aabcde"[i]), fmt.Sprint(i, p)), false)
		}
		synctest.Wait()
		time.Sleep(10 * time.Second)
		var order []string
		for _, s := range got() {
			line := fmt.Sprint(s.at)
			for _, p := range s.payloads {
				line += " " + p[:1]
			}
			order = append(order, line)
		}
		slices.Sort(order)
		if got, want := fmt.Sprint(order), "[0s 0 0s 2 3 4 5 1s 1]"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		e.stop(0)
	})
}

func TestBatchOfOneLaneKeepsItsOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := batchEndpoint(Batch{MaxEvents: 10})
		fail := true
		e, got := recordBatches(t, &c, func([]string) outcome {
			if fail {
				fail = false
				return outcome{verdict: failed, status: 500}
			}
			return outcome{status: 200}
		})
		for i := range 25 {
			e.queue.offer(publishOf("c", fmt.Sprint(i)), false)
		}
		time.Sleep(time.Minute)
		var all []string
		for _, s := range got()[1:] {
			all = append(all, s.payloads...)
		}
		for i, p := range all {
			if p != fmt.Sprint(i) {
				t.Fatalf("got %v", got())
			}
		}
		if s := e.queue.stats(); s.Delivered != 25 || s.Retried != 10 || s.Attempts.Status2xx != 3 {
			t.Errorf("stats %+v, batches %v", s, got())
		}
		e.stop(0)
	})
}

func TestRefusedBatchIsSplit(t *testing.T) {
	for _, status := range []int{400, 413, 415, 422, 501} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := batchEndpoint(Batch{MaxEvents: 100})
				var delivered []string
				e, got := recordBatches(t, &c, func(payloads []string) outcome {
					if slices.ContainsFunc(payloads, func(p string) bool { return strings.HasPrefix(p, "bad") }) {
						return outcome{verdict: refused, status: status}
					}
					delivered = append(delivered, payloads...)
					return outcome{status: 200}
				})
				for i := range 100 {
					p := fmt.Sprintf("%03d", i)
					if i == 37 || i == 38 {
						p = "bad" + p
					}
					e.queue.offer(publishOf(fmt.Sprint("c", i%3), p), false)
				}
				time.Sleep(time.Second)
				s := e.queue.stats()
				checkSum(t, s)
				if s.Dead != 2 || s.Delivered != 98 || len(delivered) != 98 || s.Retried != 0 {
					t.Errorf("stats %+v", s)
				}
				n := len(got())
				if n > 30 {
					t.Errorf("%d attempts for two refused events of 100", n)
				}
				if a := s.Attempts; a.Status2xx+a.Status4xx+a.Status5xx != uint64(n) {
					t.Errorf("%d attempts, counted as %+v", n, a)
				}
				e.stop(0)
			})
		})
	}
}

// TestSplitWhereTheEndpointLimits has an endpoint that allows one request a second: a
// batch whose halves it turns away must not be sent whole for ever.
func TestSplitWhereTheEndpointLimits(t *testing.T) {
	for name, limited := range map[string]outcome{
		"Retry-After": {verdict: paused, status: 429, retryAfter: time.Second},
		"none":        {verdict: failed, status: 429},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := batchEndpoint(Batch{MaxEvents: 8})
				next := time.Now()
				e, _ := recordBatches(t, &c, func(payloads []string) outcome {
					if time.Now().Before(next) {
						return limited
					}
					next = time.Now().Add(time.Second)
					if slices.Contains(payloads, "5") {
						return outcome{verdict: refused, status: 400}
					}
					return outcome{status: 200}
				})
				for i := range 8 {
					e.queue.offer(publishOf("c", fmt.Sprint(i)), false)
				}
				time.Sleep(5*time.Minute - time.Second) // less than max_age
				if s := e.queue.stats(); s.Dead != 1 || s.Delivered != 7 {
					t.Errorf("stats %+v", s)
				}
				e.stop(0)
			})
		})
	}
}

func TestFailureWithinASplitKeepsOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := batchEndpoint(Batch{MaxEvents: 8})
		var delivered []string
		n := 0
		e, _ := recordBatches(t, &c, func(payloads []string) outcome {
			n++
			switch {
			case n == 1:
				return outcome{verdict: refused, status: 413}
			case n == 2:
				return outcome{verdict: failed, err: errors.New("reset")}
			}
			delivered = append(delivered, payloads...)
			return outcome{status: 200}
		})
		for i := range 8 {
			e.queue.offer(publishOf("c", fmt.Sprint(i)), false)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if got, want := strings.Join(delivered, ""), "01234567"; got != want {
			t.Errorf("delivered %s, want %s", got, want)
		}
		e.stop(0)
	})
}

func TestBatchBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := batchEndpoint(Batch{MaxEvents: 1000, MaxBytes: 2000, Linger: time.Second})
		e, got := recordBatches(t, &c, accept)
		for i := range 40 {
			e.queue.offer(publishOf(fmt.Sprint("c", i), strings.Repeat("x", 10*i)), false)
		}
		e.queue.offer(publishOf("large", strings.Repeat("y", 5000)), false)
		synctest.Wait()
		if len(got()) == 0 {
			t.Error("full batches wait for the lingering")
		}
		time.Sleep(10 * time.Second)
		for _, s := range got() {
			if n := len(s.payloads); n > 1 && slices.Contains(s.payloads, strings.Repeat("y", 5000)) {
				t.Errorf("the event that is too large for a batch is in one of %d", n)
			}
		}
		if s := e.queue.stats(); s.Delivered != 41 || s.Attempts.Status2xx > 20 {
			t.Errorf("stats %+v", s)
		}
		e.stop(0)
	})
}

func TestStopFlushesBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := batchEndpoint(Batch{Linger: time.Minute})
		e, got := recordBatches(t, &c, accept)
		e.queue.offer(publishOf("c", "x"), false)
		synctest.Wait()
		start := time.Now()
		e.stop(5 * time.Second)
		if took := time.Since(start); took != 0 || len(got()) != 1 {
			t.Errorf("stop took %v, sent %v", took, got())
		}
	})
}

func TestBatchesGrowWithLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := batchEndpoint(Batch{MaxEvents: 50})
		e, got := recordBatches(t, &c, accept)
		for i := range 10000 {
			e.queue.offer(publishOf(fmt.Sprint("c", i%500), "x"), false)
			if i%100 == 0 {
				synctest.Wait()
			}
		}
		time.Sleep(time.Second)
		if n := len(got()); n > 250 {
			t.Errorf("10000 events in %d batches of at most 50", n)
		}
		if s := e.queue.stats(); s.Delivered != 10000 {
			t.Errorf("stats %+v", s)
		}
		e.stop(0)
	})
}

func TestBatchWithoutIDs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := batchEndpoint(Batch{WithoutIDs: true})
		var body string
		e := startFake(c, func(req *request, _ time.Time, _ <-chan struct{}) outcome {
			body = string(req.body)
			return outcome{status: 200}
		})
		ev := publishOf("c", "x")
		e.queue.offer(ev, false)
		time.Sleep(time.Second)
		synctest.Wait()
		if want := "[" + string(appendBody(nil, ev, Plain)) + "]"; body != want {
			t.Errorf("body %s, want %s", body, want)
		}
		e.stop(0)
	})
}

// withHeaders is a rule that sends headers of its own.
var withHeaders = Rule{Event: OnMessagePublish, Topic: "h", Headers: []Header{{"X-Kind", "h"}}}

// TestBatchOrderAndCounters is TestOrderAndCounters with batches: random
// traffic, random answers, and what must always hold. Every other event of a client
// has other headers.
func TestBatchOrderAndCounters(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rnd := rand.New(rand.NewPCG(seed, 2))
				c := batchEndpoint(Batch{
					MaxEvents: 1 + rnd.IntN(30), MaxBytes: int64(500 + rnd.IntN(5000)),
					Linger: time.Duration(1+rnd.IntN(50)) * time.Millisecond,
				})
				c.Events = []Rule{{Event: OnMessagePublish}, withHeaders}
				c.PoolSize = 1 + rnd.IntN(8)
				c.Queue.Capacity = 50 + rnd.IntN(200)
				c.Queue.Overflow = []Overflow{DropOldest, DropNewest, Block}[rnd.IntN(3)]
				c.Retry.MaxAge = time.Duration(5+rnd.IntN(60)) * time.Second
				var mu sync.Mutex
				lastDone := make(map[string]int) // by client, the last delivered
				busy := make(map[string]bool)
				seen := 0
				e := startFake(c, func(req *request, _ time.Time, _ <-chan struct{}) outcome {
					last := make(map[string]int)
					bad := false
					mu.Lock()
					for _, p := range batchOf(t, &c, req) {
						var client string
						var n int
						if _, err := fmt.Sscanf(p, "%s %d", &client, &n); err != nil {
							t.Errorf("payload %q: %v", p, err)
						}
						if _, again := last[client]; !again && busy[client] {
							t.Errorf("two attempts in flight for %s", client)
						}
						busy[client] = true
						if n <= lastDone[client] || n <= last[client] {
							t.Errorf("%s: %d attempted after %d was delivered and %d before it", client, n, lastDone[client], last[client])
						}
						if (n%2 == 0) != (req.head != 0) {
							t.Errorf("%s: %d has the headers %d", client, n, req.head)
						}
						last[client] = n
						bad = bad || n%17 == 0
					}
					mu.Unlock()
					pick, nap := rand.IntN(10), time.Duration(rand.IntN(100))*time.Millisecond
					time.Sleep(nap)
					mu.Lock()
					defer mu.Unlock()
					for client := range last {
						busy[client] = false
					}
					switch {
					case pick == 0:
						return outcome{verdict: failed, status: 500}
					case pick == 1:
						return outcome{verdict: failed, err: errors.New("reset")}
					case pick == 2:
						return outcome{verdict: paused, status: 429, retryAfter: time.Second}
					case bad:
						return outcome{verdict: refused, status: 400}
					}
					for client, n := range last {
						lastDone[client] = n
					}
					seen += strings.Count(string(req.body), `"action"`)
					return outcome{status: 200}
				})
				next := make(map[string]int)
				for range 3000 {
					client := fmt.Sprint("c", rnd.IntN(40))
					next[client]++
					ev := publishOf(client, fmt.Sprintf("%s %d", client, next[client]))
					if next[client]%2 == 0 {
						ev.rule = withHeaders.key()
					}
					e.queue.offer(ev, rnd.IntN(2) == 0)
					checkSum(t, e.queue.stats())
					synctest.Wait() // the clock may have something due now
					checkQueue(t, e.queue)
					time.Sleep(time.Duration(rnd.IntN(30)) * time.Millisecond)
				}
				e.stop(5 * time.Second)
				s := e.queue.stats()
				checkSum(t, s)
				checkQueue(t, e.queue)
				if int(s.Delivered) != seen || s.Waiting != 0 || s.InFlight != 0 || s.Offered != 3000 {
					t.Errorf("%d delivered, stats %+v", seen, s)
				}
				if n := e.queue.byKey.used; n != 0 {
					t.Errorf("%d lanes left behind", n)
				}
				if b := e.queue.batching; b.ready != 0 || b.claims != 0 {
					t.Errorf("%d ready, %d claims left behind", b.ready, b.claims)
				}
			})
		})
	}
}

// TestBatchesOfTwoKinds has clients of which every other one sends with other headers:
// there are as many batches as kinds of headers.
func TestBatchesOfTwoKinds(t *testing.T) {
	for _, workers := range []int{1, 32} {
		synctest.Test(t, func(t *testing.T) {
			c := batchEndpoint(Batch{MaxEvents: 100})
			c.Events, c.PoolSize = []Rule{{Event: OnMessagePublish}, withHeaders}, workers
			e, got := recordBatches(t, &c, accept)
			for i := range 100 {
				ev := publishOf(fmt.Sprint("c", i), "x")
				if i%2 == 0 {
					ev.rule = withHeaders.key()
				}
				e.queue.offer(ev, false)
			}
			time.Sleep(time.Second)
			if s := e.queue.stats(); len(got()) != 2 || s.Delivered != 100 {
				t.Errorf("%d workers: %d requests, stats %+v", workers, len(got()), s)
			}
			e.stop(0)
		})
	}
}

// TestBatchLeavesRoom has a queue that is smaller than a batch: what lingers must not
// cost events, nor keep a publish waiting.
func TestBatchLeavesRoom(t *testing.T) {
	for _, q := range []Queue{{Capacity: 5}, {Capacity: 5, Overflow: Block}, {MaxBytes: 2000, Capacity: -1}} {
		synctest.Test(t, func(t *testing.T) {
			c := Endpoint{URL: "http://127.0.0.1/", Batch: Batch{MaxEvents: 100, Linger: time.Minute}, Queue: q}
			c.fill(func(field string, err error) { panic(field + " " + err.Error()) })
			e, _ := recordBatches(t, &c, accept)
			for i := range 100 {
				e.queue.offer(publishOf(fmt.Sprint("c", i), "x"), true)
				synctest.Wait()
			}
			if s := e.queue.stats(); len(s.Dropped) > 0 || s.Delivered < 80 {
				t.Errorf("%+v: stats %+v", q, s)
			}
			e.stop(time.Minute)
		})
	}
}

// TestBatchesBesideAHungClient has a queue that is full of events which cannot go out:
// those of others linger as ever.
func TestBatchesBesideAHungClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := batchEndpoint(Batch{MaxEvents: 100, Linger: 100 * time.Millisecond})
		c.Queue.Capacity, c.Timeout = 1000, time.Hour
		hangs := make(chan struct{})
		e, got := recordBatches(t, &c, func(payloads []string) outcome {
			if payloads[0] == "hung" {
				<-hangs
			}
			return outcome{status: 200}
		})
		for range 700 {
			e.queue.offer(publishOf("hung", "hung"), false)
		}
		const others = 10000
		for i := range others {
			e.queue.offer(publishOf(fmt.Sprint("c", i%100), "x"), false)
			time.Sleep(time.Millisecond)
		}
		if n := len(got()); n > 2*others/100 {
			t.Errorf("%d requests for %d events", n, others)
		}
		close(hangs)
		e.stop(time.Minute)
	})
}

// A fetchStore is a memory whose records have to be fetched, as those of a disk. That of
// the client c2 is damaged, unless failures is not 0: it fails so often.
type fetchStore struct {
	memory
	mu       sync.Mutex // fetch is called without the queue's lock
	records  map[uint64][]byte
	failures int
}

func (s *fetchStore) put(rec []byte) (uint64, dropReason) {
	ref, reason := s.memory.put(rec)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records[ref] = bytes.Clone(rec)
	if s.failures == 0 && bytes.Contains(rec, []byte("c2")) {
		s.records[ref][0] = recordVersion + 1
	}
	return ref, reason
}

func (s *fetchStore) load(uint64, int) []byte { return nil }

func (s *fetchStore) fetch(buf []byte, ref uint64) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failures > 0 && bytes.Contains(s.records[ref], []byte("c2")) {
		s.failures--
		return buf, errors.New("input/output error")
	}
	return append(buf[:0], s.records[ref]...), nil
}

// TestBatchUnreadable has a record that cannot be read between others, in a batch that
// their headers split.
func TestBatchUnreadable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := batchEndpoint(Batch{MaxEvents: 100})
		c.Events, c.PoolSize = []Rule{{Event: OnMessagePublish}, withHeaders}, 1
		e, got := recordBatches(t, &c, accept)
		e.queue.mu.Lock()
		e.queue.store = &fetchStore{records: make(map[uint64][]byte)}
		e.queue.mu.Unlock()
		for i := range 3 {
			ev := publishOf(fmt.Sprint("c", i), fmt.Sprint(i))
			if i > 0 {
				ev.rule = withHeaders.key()
			}
			e.queue.offer(ev, true)
		}
		time.Sleep(time.Second)
		if s := e.queue.stats(); s.Delivered != 2 || s.Dropped["corrupt"] != 1 {
			t.Errorf("got %v, stats %+v", got(), s)
		}
		e.stop(0)
	})
}

// TestUnreadableAlone has the only worker find a record that cannot be read, for good
// or for now, in front of others: it goes on with those.
func TestUnreadableAlone(t *testing.T) {
	for _, most := range []int{1, 100} {
		for _, failures := range []int{0, 3} {
			t.Run(fmt.Sprintf("batches of %d, %d failures", most, failures), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := defaultEndpoint()
					c.PoolSize, c.Batch = 1, Batch{MaxEvents: most, MaxBytes: 1 << 20, Linger: -1}
					e := startFake(c, func(*request, time.Time, <-chan struct{}) outcome { return outcome{status: 200} })
					var log logLines
					synctest.Wait() // the clock has looked at the pool for the first time
					e.queue.mu.Lock()
					e.pool.log = log.logger()
					e.queue.store = &fetchStore{records: make(map[uint64][]byte), failures: failures}
					e.queue.mu.Unlock()
					e.queue.offer(publishOf("c2", "x"), true)
					synctest.Wait()
					for _, client := range []string{"c2", "c1", "c3"} {
						e.queue.offer(publishOf(client, "x"), true)
					}
					time.Sleep(time.Minute)
					s := e.queue.stats()
					checkSum(t, s)
					corrupt := 0
					if failures == 0 {
						corrupt = 2
					}
					if s.Delivered != uint64(4-corrupt) || s.Dropped["corrupt"] != uint64(corrupt) {
						t.Errorf("stats %+v", s)
					}
					if n := strings.Count(log.String(), "events cannot be read from the queue"); n != 1 {
						t.Errorf("told %d times, want once:\n%s", n, log.String())
					}
					e.stop(0)
				})
			})
		}
	}
}

// TestBatchBacksOffTogether fails a batch whose events have been tried more or less
// often: they wait as long as the one that was tried most, and all for the same time.
func TestBatchBacksOffTogether(t *testing.T) {
	c := defaultEndpoint()
	p := &pool{config: &c}
	longest := time.Duration(0)
	for range 200 {
		jobs := []job{{tries: 0}, {tries: 5}, {tries: 1}}
		for i := range jobs {
			jobs[i].born = time.Now().UnixMilli()
		}
		p.judge(jobs, outcome{verdict: failed, status: 500})
		for _, j := range jobs {
			if j.result != jobs[0].result {
				t.Fatalf("got %+v and %+v", jobs[0].result, j.result)
			}
		}
		longest = max(longest, jobs[0].result.backoff)
	}
	if longest < c.Retry.MaxBackoff/2 {
		t.Errorf("at most %v in 200 times", longest)
	}
}

func TestBatchSettings(t *testing.T) {
	for text, want := range map[string]Batch{
		``:                             {},
		`batch {}`:                     {MaxEvents: 100, MaxBytes: 256 << 10, Linger: 5 * time.Millisecond},
		`batch { ids = true }`:         {MaxEvents: 100, MaxBytes: 256 << 10, Linger: 5 * time.Millisecond},
		`batch { ids = false }`:        {MaxEvents: 100, MaxBytes: 256 << 10, Linger: 5 * time.Millisecond, WithoutIDs: true},
		`batch.max_events = 10`:        {MaxEvents: 10, MaxBytes: 256 << 10, Linger: 5 * time.Millisecond},
		`batch { linger = -1 }`:        {MaxEvents: 100, MaxBytes: 256 << 10, Linger: -1},
		`batch { linger = "1s" }`:      {MaxEvents: 100, MaxBytes: 256 << 10, Linger: time.Second},
		`batch { max_bytes = "1MiB" }`: {MaxEvents: 100, MaxBytes: 1 << 20, Linger: 5 * time.Millisecond},
	} {
		t.Run(text, func(t *testing.T) {
			c, err := Parse([]byte("webhook {\nurl = \"http://h/\"\nevents = [{ event = \"on_message_publish\" }]\n"+text+"\n}\n"), "f.hcl")
			if err != nil {
				t.Fatal(err)
			}
			if got := c.Endpoints[0].Batch; got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
	for _, text := range []string{`batch { max_events = 0 }`, `batch { max_bytes = 0 }`, `batch { linger = 0 }`, `batch { size = 1 }`, `batch = 5`, `compression = "zip"`} {
		if _, err := Parse([]byte("webhook {\nurl = \"http://h/\"\nevents = [{ event = \"on_message_publish\" }]\n"+text+"\n}\n"), "f.hcl"); err == nil {
			t.Errorf("%s: no error", text)
		}
	}
}

// TestSplitBatchIsOneWorker checks that a worker counts once however many
// attempts it makes of what it took: a reload counts on that.
func TestSplitBatchIsOneWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := batchEndpoint(Batch{MaxEvents: 8})
		var e *endpoint
		busy := func(want int) {
			t.Helper()
			e.queue.mu.Lock()
			defer e.queue.mu.Unlock()
			if e.queue.busy != want {
				t.Errorf("%d workers are busy, want %d", e.queue.busy, want)
			}
		}
		e, _ = recordBatches(t, &c, func(payloads []string) outcome {
			busy(1)
			if slices.Contains(payloads, "bad") {
				return outcome{verdict: refused, status: 400}
			}
			return outcome{status: 200}
		})
		for _, p := range []string{"0", "1", "bad", "3", "4", "damaged", "6", "7"} {
			ev := publishOf("c", p)
			if p != "damaged" {
				e.queue.offer(ev, false)
				continue
			}
			ref, _ := e.queue.offer(ev, false)
			rec := e.queue.store.load(ref, recordSize(ev))
			clear(rec)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		busy(0)
		if s := e.queue.stats(); s.Delivered != 6 || s.Dead != 1 || s.Dropped["corrupt"] != 1 {
			t.Errorf("stats %+v", s)
		}
		e.stop(0)
	})
}

// TestSplitFreesLanes has events that come while a batch is out: when its first
// part is over they are a full batch, which does not wait for the second.
func TestSplitFreesLanes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := batchEndpoint(Batch{MaxEvents: 2, Linger: time.Hour})
		c.PoolSize = 2
		e, got := recordBatches(t, &c, func(payloads []string) outcome {
			time.Sleep(time.Second)
			switch {
			case payloads[0] == "bad":
				return outcome{verdict: refused, status: 400}
			case payloads[0] == "slow":
				time.Sleep(time.Minute)
			}
			return outcome{status: 200}
		})
		e.queue.offer(publishOf("a", "bad"), false)
		e.queue.offer(publishOf("b", "slow"), false)
		synctest.Wait() // the batch is out
		e.queue.offer(publishOf("c", "1"), false)
		e.queue.offer(publishOf("a", "2"), false)
		time.Sleep(10 * time.Second)
		both := func(s sent) bool {
			return s.at == 2*time.Second && slices.Equal(s.payloads, []string{"1", "2"})
		}
		if !slices.ContainsFunc(got(), both) { // beside the other part of the first batch
			t.Errorf("at the end %v", got())
		}
		checkQueue(t, e.queue)
		e.stop(time.Hour)
	})
}

// TestOpenBreakerEndsASplit checks that what is left of a batch when the breaker
// opens waits for a probe like everything else, however long it was out, and that
// what was refused together then goes out one by one.
func TestOpenBreakerEndsASplit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := batchEndpoint(Batch{MaxEvents: 8})
		var e *endpoint
		e, got := recordBatches(t, &c, func(payloads []string) outcome {
			if len(payloads) == 1 {
				return outcome{status: 200}
			}
			e.queue.mu.Lock()
			for range c.Breaker.Failures { // of others
				e.queue.gate.failed(c.Breaker, false)
			}
			e.queue.mu.Unlock()
			time.Sleep(c.Breaker.Cooldown)
			return outcome{verdict: refused, status: 413}
		})
		for i := range 8 {
			e.queue.offer(publishOf("c", fmt.Sprint(i)), false)
		}
		time.Sleep(c.Breaker.Cooldown + time.Second)
		synctest.Wait()
		var rest []string
		g := got()
		for _, s := range g[1:] {
			rest = append(rest, fmt.Sprint(s.payloads))
		}
		if want := "[0] [1] [2] [3] [4] [5] [6] [7]"; strings.Join(rest, " ") != want {
			t.Errorf("sent %v, want the batch and %s", g, want)
		}
		e.stop(0)
	})
}

// TestReloadEndsASplit has a reload change the URL while a batch is out that is refused:
// its parts go to the new one.
func TestReloadEndsASplit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var hosts []string
		transport := roundTripFunc(func(r *http.Request) (*http.Response, error) {
			mu.Lock()
			hosts = append(hosts, r.URL.Host)
			mu.Unlock()
			if r.URL.Host == "old" {
				time.Sleep(time.Second)
				return answer(413)
			}
			return answer(200)
		})
		config := func(url string) *Config {
			return &Config{Endpoints: []Endpoint{{Name: "a", URL: url, Batch: Batch{MaxEvents: 8}, Events: rulesFor(OnMessagePublish)}}}
		}
		h := runHook(t, &Options{Config: config("http://old/"), Transport: transport})
		for i := range 8 {
			h.emit(publishOf(fmt.Sprint("c", i), "x"))
		}
		time.Sleep(time.Second / 2)
		if err := h.Reload(config("http://new/")); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		if s := h.Stats().Endpoints["a"]; s.Delivered != 8 {
			t.Errorf("stats %+v", s)
		}
		_ = h.Stop()
		mu.Lock()
		defer mu.Unlock()
		if hosts[0] != "old" || slices.Contains(hosts[1:], "old") {
			t.Errorf("sent to %q", hosts)
		}
	})
}

// TestNothingLingersInAFullQueue has most of a queue wait behind a slow attempt.
func TestNothingLingersInAFullQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := batchEndpoint(Batch{MaxEvents: 100, Linger: 10 * time.Second})
		c.PoolSize, c.Queue.Capacity, c.Queue.Overflow = 2, 20, Block
		e, _ := recordBatches(t, &c, func(payloads []string) outcome {
			if slices.Contains(payloads, "slow") {
				time.Sleep(20 * time.Second)
			}
			return outcome{status: 200}
		})
		for range 10 {
			e.queue.offer(publishOf("slow", "slow"), true)
		}
		synctest.Wait() // they are in flight, as half of what may wait
		for range 11 {
			e.queue.offer(publishOf("slow", "x"), true)
		}
		begin := time.Now()
		for i := range 20 {
			e.queue.offer(publishOf(fmt.Sprint("c", i), "x"), true)
		}
		if waited := time.Since(begin); waited > 0 {
			t.Errorf("publishes waited for %v beside a worker that is free", waited)
		}
		e.stop(time.Minute)
	})
}

// TestRestLingersByItsOldest leaves two events beside a full batch, of which the older
// one comes last, because its lane was busy.
func TestRestLingersByItsOldest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := batchEndpoint(Batch{MaxEvents: 3, Linger: time.Second})
		c.PoolSize = 1
		e, got := recordBatches(t, &c, func(payloads []string) outcome {
			if slices.Contains(payloads, "slow") {
				time.Sleep(3 * time.Second)
			}
			return outcome{status: 200}
		})
		for _, client := range []string{"a", "p", "q"} {
			e.queue.offer(publishOf(client, "slow"), false)
		}
		synctest.Wait()
		e.queue.offer(publishOf("a", "old"), false)
		time.Sleep(2900 * time.Millisecond)
		for _, client := range []string{"v", "w", "x", "y"} {
			e.queue.offer(publishOf(client, "new"), false)
		}
		time.Sleep(200 * time.Millisecond)
		if n := len(got()); n != 3 {
			t.Errorf("%d batches: an event that waits for 3 s lingers for another one's second", n)
		}
		e.stop(time.Minute)
	})
}

// TestRestOfSeveralBatchesLingers frees the lanes of two batches and a bit at once: the
// bit lingers, though others are woken for what is full.
func TestRestOfSeveralBatchesLingers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := batchEndpoint(Batch{MaxEvents: 10, Linger: time.Second})
		c.PoolSize = 4
		e, got := recordBatches(t, &c, func([]string) outcome {
			time.Sleep(200 * time.Millisecond)
			return outcome{status: 200}
		})
		offer := func(n int) {
			for i := range n {
				e.queue.offer(publishOf(fmt.Sprint("c", i%10), "x"), false)
			}
			time.Sleep(150 * time.Millisecond)
		}
		offer(10)
		offer(25)
		var sizes []int
		for _, s := range got() {
			sizes = append(sizes, len(s.payloads))
		}
		if want := []int{10, 10, 10}; !slices.Equal(sizes, want) {
			t.Errorf("batches of %v events, want %v: the rest is young", sizes, want)
		}
		e.stop(time.Minute)
	})
}

// TestProbesDoNotLinger has a full batch fail before its events have lingered.
func TestProbesDoNotLinger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := batchEndpoint(Batch{MaxEvents: 3, Linger: time.Minute})
		c.Breaker = Breaker{Failures: 1, Cooldown: time.Second}
		c.Retry.MinBackoff, c.Retry.MaxBackoff = 30*time.Second, 30*time.Second
		e, got := recordBatches(t, &c, func([]string) outcome { return outcome{verdict: failed, status: 500} })
		for i := range 3 {
			e.queue.offer(publishOf(fmt.Sprint("c", i), "x"), false)
		}
		time.Sleep(10*time.Second + time.Second/2)
		if n := len(got()) - 1; n != 10 {
			t.Errorf("%d probes in 10 s at a cooldown of 1 s", n)
		}
		e.stop(0)
	})
}

// TestDropLeavesABatchInBackoff drops the first event of a batch that waits to
// be tried again: the others go on waiting, and what was not in it goes with them.
func TestDropLeavesABatchInBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := batchEndpoint(Batch{MaxEvents: 3})
		c.Queue.Capacity = 3
		c.Retry.MinBackoff, c.Retry.MaxBackoff = 10*time.Second, 10*time.Second
		e, got := recordBatches(t, &c, func(payloads []string) outcome {
			if payloads[0] == "0" {
				return outcome{verdict: failed, status: 500}
			}
			return outcome{status: 200}
		})
		for i := range 3 {
			e.queue.offer(publishOf("c", fmt.Sprint(i)), false)
		}
		time.Sleep(time.Second)
		e.queue.offer(publishOf("c", "3"), false)
		time.Sleep(time.Minute)
		// The first batch goes out when the queue is nearly full, with what is there
		// when its worker comes to it.
		if want := (sent{10 * time.Second, []string{"1", "2", "3"}}); len(got()) != 2 || fmt.Sprint(got()[1]) != fmt.Sprint(want) {
			t.Errorf("sent %v, want %v after the first batch", got(), want)
		}
		e.stop(0)
	})
}

// TestBatchAfterTheClockWasSetBack has an event that happened later than now,
// which no lingering waits for.
func TestBatchAfterTheClockWasSetBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := batchEndpoint(Batch{Linger: 20 * time.Millisecond})
		e, got := recordBatches(t, &c, accept)
		ev := publishOf("c", "x")
		ev.time += time.Hour.Milliseconds()
		e.queue.offer(ev, false)
		time.Sleep(time.Second)
		if g := got(); len(g) != 1 || g[0].at > 20*time.Millisecond {
			t.Errorf("sent %v, want the event after 20 ms at most", g)
		}
		e.stop(0)
	})
}

// TestProbeOfABatch checks that an open breaker is probed with one event, however many
// wait: if the endpoint refuses that one, it is the end of no other.
func TestProbeOfABatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := batchEndpoint(Batch{MaxEvents: 8})
		c.Breaker.Failures, c.Retry.MaxBackoff = 1, c.Retry.MinBackoff
		first := true
		e, got := recordBatches(t, &c, func([]string) outcome {
			if first {
				first = false
				return outcome{verdict: failed, status: 500}
			}
			return outcome{status: 200}
		})
		for i := range 8 {
			e.queue.offer(publishOf(fmt.Sprint("c", i), fmt.Sprint(i)), false)
		}
		time.Sleep(time.Minute)
		var sizes []int
		for _, s := range got() {
			sizes = append(sizes, len(s.payloads))
		}
		if want := []int{8, 1, 7}; !slices.Equal(sizes, want) {
			t.Errorf("sent %v, want a batch, a probe and the rest: %v events", got(), want)
		}
		e.stop(0)
	})
}
