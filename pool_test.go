package webhook

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A fakePoster answers attempts by a function instead of a network.
type fakePoster struct {
	answer func(req *request, deadline time.Time, canceled <-chan struct{}) outcome
	stop   chan struct{}
	once   sync.Once
	closed atomic.Bool // while idle, since the last attempt
}

func (p *fakePoster) post(req *request, now, deadline time.Time) outcome {
	p.closed.Store(false)
	select {
	case <-p.stop:
		return outcome{verdict: canceled}
	default:
		return p.answer(req, deadline, p.stop)
	}
}
func (p *fakePoster) cancel()    { p.once.Do(func() { close(p.stop) }) }
func (p *fakePoster) closeIdle() { p.closed.Store(true) }

// hang waits until the attempt's deadline or its cancellation.
func hang(_ *request, deadline time.Time, canceled <-chan struct{}) outcome {
	select {
	case <-canceled:
		return outcome{verdict: canceled_}
	case <-time.After(time.Until(deadline)):
		return outcome{verdict: failed, err: errors.New("timeout")}
	}
}

const canceled_ = canceled // for where a channel has the name

// defaultEndpoint is a configuration with all defaults.
func defaultEndpoint() Endpoint {
	c, err := (&Config{Endpoints: []Endpoint{{URL: "http://127.0.0.1/"}}}).resolve()
	if err != nil {
		panic(err)
	}
	return c.Endpoints[0]
}

// startFake starts an endpoint whose attempts are answered by answer.
func startFake(c Endpoint, answer func(req *request, deadline time.Time, canceled <-chan struct{}) outcome) *endpoint {
	e := &endpoint{config: &c, log: slog.New(slog.DiscardHandler), queue: newQueue(limitsOf(&c))}
	e.pool = newPool(e.queue, &c, e.log, func() poster {
		return &fakePoster{answer: answer, stop: make(chan struct{})}
	})
	e.clock = &clock{queue: e.queue, pool: e.pool, stop: make(chan struct{})}
	e.start()
	return e
}

// offer is offerWith of an event that comes now, and may wait or not.
func (q *queue) offer(ev *event, wait bool) (uint64, bool) {
	var p *patience
	if wait {
		p = &patience{waits: true}
	}
	ref, is := q.offerWith(ev, p)
	return ref, is == taken
}

// publishOf is a message_publish event of a client.
func publishOf(client, payload string) *event {
	ms := time.Now().UnixMilli()
	return &event{
		kind: kindPublish, id: newEventID(ms), time: ms, stamped: stamps.Add(1),
		from: client, topic: "t", payload: []byte(payload),
	}
}

// stamps stands for the clock that puts events in order.
var stamps atomic.Int64

// payloadOf returns the payload in a body that has a plain one.
func payloadOf(body []byte) string {
	_, rest, _ := strings.Cut(string(body), `"payload":"`)
	text, _, _ := strings.Cut(rest, `"`)
	return text
}

// checkSum fails the test unless the counters add up.
func checkSum(t *testing.T, s EndpointStats) {
	t.Helper()
	var dropped uint64
	for _, n := range s.Dropped {
		dropped += n
	}
	in := s.Offered + s.Recovered
	out := s.Delivered + s.Dead + dropped + s.Forwarded + uint64(s.Waiting) + uint64(s.InFlight)
	if in != out {
		t.Errorf("counters do not add up: %d in, %d out: %+v", in, out, s)
	}
	var byEvent uint64
	for _, n := range s.Events {
		byEvent += n.Dropped
	}
	if byEvent != dropped {
		t.Errorf("%d drops by event, %d by reason: %+v", byEvent, dropped, s)
	}
}

func TestLanesDoNotWaitForEachOther(t *testing.T) {
	start := func(hung string) map[string]time.Duration {
		var mu sync.Mutex
		begun := make(map[string]time.Duration)
		synctest.Test(t, func(t *testing.T) {
			t0 := time.Now()
			e := startFake(defaultEndpoint(), func(req *request, deadline time.Time, canceled <-chan struct{}) outcome {
				p := payloadOf(req.body)
				mu.Lock()
				if _, ok := begun[p]; !ok {
					begun[p] = time.Since(t0)
				}
				mu.Unlock()
				if hung != "" && strings.HasPrefix(p, hung) {
					return hang(req, deadline, canceled)
				}
				time.Sleep(20 * time.Millisecond)
				return outcome{status: 200}
			})
			for n := range 200 {
				for c := range 10 {
					e.queue.offer(publishOf(fmt.Sprint("c", c), fmt.Sprintf("c%d-%d", c, n)), false)
				}
				time.Sleep(13 * time.Millisecond)
			}
			time.Sleep(10 * time.Second)
			e.stop(0)
		})
		return begun
	}
	free, hung := start(""), start("c3-")
	for p, at := range free {
		if got := hung[p]; got != at && !strings.HasPrefix(p, "c3-") {
			t.Errorf("attempt for %s began at %v with c3 hung, at %v without", p, got, at)
		}
	}
	if len(free) != 2000 {
		t.Errorf("%d events were attempted, want 2000", len(free))
	}
}

// TestOrderAndCounters sends random traffic through an endpoint that answers at
// random, and checks after each step what must always hold.
func TestOrderAndCounters(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rnd := rand.New(rand.NewPCG(seed, 1))
				c := defaultEndpoint()
				c.PoolSize = 1 + rnd.IntN(8)
				c.Queue.Capacity = 50 + rnd.IntN(200)
				c.Queue.Overflow = []Overflow{DropOldest, DropNewest, Block}[rnd.IntN(3)]
				c.Retry.MaxAge = time.Duration(5+rnd.IntN(60)) * time.Second
				var mu sync.Mutex
				lastDone := make(map[string]int) // by client, the last delivered
				busy := make(map[string]bool)
				seen := 0
				e := startFake(c, func(req *request, deadline time.Time, canceled <-chan struct{}) outcome {
					var client string
					var n int
					if _, err := fmt.Sscanf(payloadOf(req.body), "%s %d", &client, &n); err != nil {
						t.Errorf("body %q: %v", req.body, err)
					}
					mu.Lock()
					if busy[client] {
						t.Errorf("two attempts in flight for %s", client)
					}
					busy[client] = true
					if n <= lastDone[client] {
						t.Errorf("%s: %d attempted after %d was delivered", client, n, lastDone[client])
					}
					pick, nap := rand.IntN(10), time.Duration(rand.IntN(100))*time.Millisecond
					mu.Unlock()
					time.Sleep(nap)
					mu.Lock()
					defer mu.Unlock()
					busy[client] = false
					switch pick {
					case 0:
						return outcome{verdict: failed, status: 500}
					case 1:
						return outcome{verdict: failed, err: errors.New("reset")}
					case 2:
						return outcome{verdict: refused, status: 400}
					case 3:
						return outcome{verdict: paused, status: 429, retryAfter: time.Second}
					case 4:
						return outcome{verdict: misconfigured, status: 401}
					}
					lastDone[client] = n
					seen++
					return outcome{status: 200}
				})
				next := make(map[string]int)
				for range 3000 {
					client := fmt.Sprint("c", rnd.IntN(40))
					next[client]++
					e.queue.offer(publishOf(client, fmt.Sprintf("%s %d", client, next[client])), rnd.IntN(2) == 0)
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
			})
		})
	}
}

// checkQueue fails the test unless the queue's lists agree with each other.
func checkQueue(t *testing.T, q *queue) {
	t.Helper()
	q.mu.Lock()
	defer q.mu.Unlock()
	waiting, inFlight, bytes := 0, 0, int64(0)
	for at := q.age.head; at != 0; at = q.entries.at(at).newer {
		if e := q.entries.at(at); e.flags&entryInFlight != 0 {
			inFlight++
		} else {
			waiting++
			bytes += q.store.cost(int(e.size))
		}
	}
	if waiting != q.waiting || inFlight != q.inFlight || bytes != q.waitingBytes {
		t.Fatalf("age list has %d waiting (%d bytes), %d in flight; counters say %d (%d), %d",
			waiting, bytes, inFlight, q.waiting, q.waitingBytes, q.inFlight)
	}
	inLanes := 0
	for _, s := range q.byKey.slots {
		if s.at == 0 {
			continue
		}
		l := q.lanes.at(s.at)
		if uint32(l.key) != s.tag || q.byKey.find(&q.lanes, l.key) != s.at || l.head == 0 && l.inFlight == 0 && l.state != laneBusy {
			t.Fatalf("lane %d: %+v", s.at, *l)
		}
		for e := l.head; e != 0; e = q.entries.at(e).next {
			inLanes++
			if q.entries.at(e).next == 0 && e != l.tail {
				t.Fatalf("lane %d ends at %d, tail is %d", s.at, e, l.tail)
			}
		}
	}
	if inLanes != waiting {
		t.Fatalf("%d entries in lanes, %d wait", inLanes, waiting)
	}
	first := uint32(0)
	for at := q.age.head; at != 0 && first == 0; at = q.entries.at(at).newer {
		if q.entries.at(at).flags&entryInFlight == 0 {
			first = at
		}
	}
	if got := q.age.oldestWaiting(&q.entries); got != first {
		t.Fatalf("oldest waiting is %d, the list says %d", got, first)
	}
	ready := 0
	for at := q.ready.head; at != 0; at = q.lanes.at(at).next {
		for e := q.lanes.at(at).head; e != 0; e = q.entries.at(e).next {
			ready++
		}
	}
	if ready != q.batching.ready {
		t.Fatalf("%d entries in ready lanes, %d counted", ready, q.batching.ready)
	}
	if len(q.idle) > 0 && q.ready.head != 0 && q.admits() && q.due() {
		t.Fatalf("%d workers idle while lanes are ready", len(q.idle))
	}
}

func TestDropOldestSparesWhatIsInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := defaultEndpoint()
		c.PoolSize, c.Queue.Capacity = 1, 3
		var got []string
		release := make(chan struct{})
		e := startFake(c, func(req *request, _ time.Time, _ <-chan struct{}) outcome {
			<-release
			got = append(got, payloadOf(req.body))
			return outcome{status: 200}
		})
		for i := range 6 {
			e.queue.offer(publishOf(fmt.Sprint("c", i%2), fmt.Sprint(i)), false)
			synctest.Wait()
		}
		s := e.queue.stats()
		if s.InFlight != 1 || s.Waiting != 3 || s.Dropped["queue_full"] != 2 {
			t.Errorf("stats %+v", s)
		}
		close(release)
		e.stop(time.Second)
		if want := []string{"0", "3", "4", "5"}; !slices.Equal(got, want) && !slices.Equal(got, []string{"0", "4", "3", "5"}) {
			t.Errorf("delivered %v, want %v", got, want)
		}
	})
}

// enterLocked is offer for who holds the queue's lock, so that nobody runs meanwhile.
func (q *queue) enterLocked(ev *event) {
	rec := appendRecord(nil, ev)
	var t ticket
	t.set(ev, ev.laneKey(q.seed), len(rec))
	q.enter(&t, rec)
}

// TestDroppedFromUnderAWorker: a worker that was woken for an event which an overflow
// drops before the worker has it takes what is ready instead.
func TestDroppedFromUnderAWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := defaultEndpoint()
		c.PoolSize, c.Queue.Capacity = 1, 2
		var got []string
		e := startFake(c, func(req *request, _ time.Time, _ <-chan struct{}) outcome {
			got = append(got, payloadOf(req.body))
			return outcome{status: 200}
		})
		synctest.Wait()   // the worker is idle
		e.queue.mu.Lock() // so that it does not run between the offers
		for i := range 3 {
			e.queue.enterLocked(publishOf(fmt.Sprint("c", i), fmt.Sprint(i)))
		}
		e.queue.mu.Unlock()
		synctest.Wait()
		checkQueue(t, e.queue)
		if want := []string{"1", "2"}; !slices.Equal(got, want) {
			t.Errorf("delivered %v at once, want %v", got, want)
		}
		e.stop(time.Second)
	})
}

// TestRetiredWithADroppedEvent is that with a worker that a reload retires: a lane
// without events is not ready.
func TestRetiredWithADroppedEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := startFake(defaultEndpoint(), func(*request, time.Time, <-chan struct{}) outcome { return outcome{status: 200} })
		synctest.Wait()
		e.queue.mu.Lock()
		e.queue.enterLocked(publishOf("c", "x"))
		e.queue.dropOldest(dropQueueFull)
		e.queue.retire(e.pool)
		e.queue.mu.Unlock()
		synctest.Wait()
		if at := e.queue.ready.head; at != 0 || e.queue.busy != 0 {
			t.Errorf("lane %d is ready, %d workers are busy", at, e.queue.busy)
		}
		e.stop(0)
	})
}

// A fullStore has no room.
type fullStore struct {
	*memory
	beside int64 // what it takes beside the records
}

func (fullStore) put([]byte) (uint64, dropReason) { return 0, dropQueueFull }
func (s fullStore) overhead() int64               { return s.beside }

// TestDropOldestOfLittle: when a disk has no room although little waits, it is behind
// with removing what is done, and the event that comes is dropped instead of others.
func TestDropOldestOfLittle(t *testing.T) {
	for beside, want := range map[int64]int{0: 3, 40 << 10: 2} {
		c := defaultEndpoint()
		c.Queue.MaxBytes = 80 << 10
		q := newQueue(limitsOf(&c))
		for i := range 3 {
			q.offer(publishOf("c", fmt.Sprint(i)), true)
		}
		q.store = fullStore{q.store.(*memory), beside}
		q.offer(publishOf("c", "x"), true)
		s := q.stats()
		checkSum(t, s)
		if s.Waiting != want || s.Dropped["queue_full"] != uint64(4-want) {
			t.Errorf("%d bytes beside the records: %d wait, want %d; stats %+v", beside, s.Waiting, want, s)
		}
	}
}

// TestDroppedInVain: what waited behind an event that was dropped in its backoff goes
// out, also where that did not make room enough.
func TestDroppedInVain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := defaultEndpoint()
		c.PoolSize, c.Queue.MaxBytes, c.Breaker.Failures = 1, 400, -1
		c.Retry = Retry{MinBackoff: time.Hour, MaxBackoff: time.Hour, MaxAge: -1, MaxAttempts: -1}
		var got []string
		e := startFake(c, func(req *request, _ time.Time, _ <-chan struct{}) outcome {
			got = append(got, payloadOf(req.body))
			if len(got) == 1 {
				return outcome{verdict: failed, status: 500}
			}
			return outcome{status: 200}
		})
		for i := range 3 {
			e.queue.offer(publishOf("c", fmt.Sprint(i)), true)
		}
		synctest.Wait() // the first is in backoff
		e.queue.mu.Lock()
		e.queue.unlogged++ // the clock has been told of other drops
		e.queue.store = fullStore{memory: e.queue.store.(*memory)}
		e.queue.mu.Unlock()
		e.queue.offer(publishOf("d", "x"), true)
		synctest.Wait()
		if want := []string{"0", "1", "2"}; !slices.Equal(got, want) {
			t.Errorf("got %v at once, want %v", got, want)
		}
		e.stop(0)
	})
}

func TestBlockWaitsForRoomAndNoLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := defaultEndpoint()
		c.PoolSize, c.Queue.Capacity, c.Queue.Overflow = 1, 1, Block
		e := startFake(c, func(_ *request, _ time.Time, _ <-chan struct{}) outcome {
			time.Sleep(1500 * time.Millisecond)
			return outcome{status: 200}
		})
		took := func(wait bool) time.Duration {
			t0 := time.Now()
			e.queue.offer(publishOf("c", "x"), wait)
			return time.Since(t0)
		}
		took(true)
		synctest.Wait()
		took(true)
		if d := took(false); d != 0 {
			t.Errorf("an offer that must not wait took %v", d)
		}
		if d := took(true); d != time.Second {
			t.Errorf("an offer that finds no room took %v, want the block timeout", d)
		}
		if d := took(true); d != 500*time.Millisecond {
			t.Errorf("an offer that finds room after 500ms took %v", d)
		}
		if s := e.queue.stats(); s.Dropped["queue_full"] != 2 {
			t.Errorf("stats %+v", s)
		}
		stopped := make(chan struct{})
		go func() { e.stop(10 * time.Second); close(stopped) }()
		synctest.Wait()
		if d := took(true); d != 0 || e.queue.stats().Dropped["stopped"] != 1 {
			t.Errorf("an offer after stop took %v: %+v", d, e.queue.stats())
		}
		<-stopped
	})
}

func TestQuietSystemSurvivesOutage(t *testing.T) {
	for _, out := range []outcome{
		{verdict: failed, err: errors.New("connection refused")},
		{verdict: failed, status: 503},
		{verdict: misconfigured, status: 401},
		{verdict: misconfigured, status: 404},
		{verdict: paused, status: 429, retryAfter: 10 * time.Second},
	} {
		t.Run(fmt.Sprint(out.verdict, out.status), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				t0 := time.Now()
				e := startFake(defaultEndpoint(), func(*request, time.Time, <-chan struct{}) outcome {
					if time.Since(t0) < 4*time.Minute {
						return out
					}
					return outcome{status: 200}
				})
				for range 30 {
					e.queue.offer(publishOf("c", "x"), false)
					time.Sleep(10 * time.Second)
				}
				e.stop(time.Minute)
				if s := e.queue.stats(); s.Delivered != 30 {
					t.Errorf("stats %+v", s)
				}
			})
		})
	}
}

func TestBreakerProbesOncePerCooldown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var attempts []time.Duration
		var up atomic.Bool
		var mu sync.Mutex
		t0 := time.Now()
		e := startFake(defaultEndpoint(), func(*request, time.Time, <-chan struct{}) outcome {
			mu.Lock()
			defer mu.Unlock()
			attempts = append(attempts, time.Since(t0))
			if up.Load() {
				return outcome{status: 200}
			}
			return outcome{verdict: failed, status: 500}
		})
		for i := range 1000 {
			e.queue.offer(publishOf(fmt.Sprint("c", i), "x"), false)
		}
		synctest.Wait()
		mu.Lock()
		first := len(attempts)
		mu.Unlock()
		if first < 10 || first > 10+32 {
			t.Errorf("%d attempts before the breaker opened, want 10, or with those in flight up to 42", first)
		}
		if s := e.queue.stats(); s.Breaker != "open" {
			t.Errorf("breaker is %s", s.Breaker)
		}
		time.Sleep(21 * time.Second)
		mu.Lock()
		probes := len(attempts) - first
		mu.Unlock()
		if probes != 4 {
			t.Errorf("%d probes in 21 s at a cooldown of 5 s: %v", probes, attempts[first:])
		}
		up.Store(true)
		time.Sleep(time.Minute)
		s := e.queue.stats()
		if s.Breaker != "closed" || s.Delivered != 1000 {
			t.Errorf("stats %+v", s)
		}
		e.stop(0)
	})
}

// TestPausedProbesOncePerCooldown: a probe that is answered with a shorter pause than
// the cooldown does not bring the next one forward.
func TestPausedProbesOncePerCooldown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int64
		c := defaultEndpoint()
		c.Breaker = Breaker{Failures: 1, Cooldown: time.Minute}
		e := startFake(c, func(*request, time.Time, <-chan struct{}) outcome {
			if n.Add(1) == 1 {
				return outcome{verdict: failed, status: 500}
			}
			return outcome{verdict: paused, status: 503, retryAfter: time.Second}
		})
		e.queue.offer(publishOf("a", "x"), false)
		time.Sleep(130 * time.Second)
		if n.Load() != 3 {
			t.Errorf("%d attempts in 130 s, want the first one and two probes", n.Load())
		}
		e.stop(0)
	})
}

// TestBreakerProbesInBackoff has one lane alone, whose backoff is longer than
// the cooldown: what is probed is the endpoint.
func TestBreakerProbesInBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config := defaultEndpoint()
		config.Breaker = Breaker{Failures: 2, Cooldown: time.Second}
		config.Retry.MinBackoff, config.Retry.MaxBackoff = time.Hour, time.Hour
		config.Retry.MaxAge, config.Retry.MaxAttempts = -1, 3
		var up atomic.Bool
		var attempts atomic.Int64
		e := startFake(config, func(*request, time.Time, <-chan struct{}) outcome {
			attempts.Add(1)
			if up.Load() {
				return outcome{status: 200}
			}
			return outcome{verdict: failed, status: 500}
		})
		for _, client := range []string{"a", "b"} {
			e.queue.offer(publishOf(client, "x"), false)
		}
		synctest.Wait()
		if s := e.queue.stats(); s.Breaker != "open" || attempts.Load() != 2 {
			t.Fatalf("%d attempts, stats %+v", attempts.Load(), s)
		}
		time.Sleep(10*time.Second + time.Second/2)
		if n := attempts.Load() - 2; n != 10 {
			t.Errorf("%d probes in 10 s at a cooldown of 1 s", n)
		}
		up.Store(true)
		time.Sleep(time.Second)
		if s := e.queue.stats(); s.Breaker != "closed" || s.Delivered != 1 {
			t.Errorf("stats %+v", s)
		}
		time.Sleep(time.Minute)
		if n := e.queue.stats().Delivered; n != 1 {
			t.Errorf("%d delivered: a backoff ended without a probe", n)
		}
		e.stop(0)
	})
}

// TestUnreadableProbe probes with an event that cannot be read for now: the next
// probe is as far away as after any other.
func TestUnreadableProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config := defaultEndpoint()
		config.Breaker = Breaker{Failures: 2, Cooldown: time.Second}
		config.Retry.MinBackoff, config.Retry.MaxBackoff = time.Hour, time.Hour
		config.Retry.MaxAge = -1
		e := startFake(config, func(*request, time.Time, <-chan struct{}) outcome {
			return outcome{verdict: failed, status: 500}
		})
		for _, client := range []string{"a", "b"} {
			e.queue.offer(publishOf(client, "x"), false)
		}
		synctest.Wait()
		e.queue.mu.Lock()
		e.queue.store = goneStore{e.queue.store.(*memory)}
		e.queue.mu.Unlock()
		before := e.queue.stats().Retried
		time.Sleep(10*time.Second + time.Second/2)
		if n := e.queue.stats().Retried - before; n > 10 {
			t.Errorf("read %d times in 10 s at a cooldown of 1 s", n)
		}
		e.stop(0)
	})
}

// TestProbeThatIsNone has the event of a probe end before the probe is sent, because
// it is too old or was dropped: the next one is a cooldown away, or due at once.
func TestProbeThatIsNone(t *testing.T) {
	tests := []struct {
		name   string
		end    func(q *queue)
		atOnce int64 // probes
	}{
		{"too old", func(q *queue) {
			old := publishOf("b", "old") // as one that waited for room
			old.time -= 2 * time.Hour.Milliseconds()
			q.enterLocked(old)
		}, 0},
		{"dropped", func(q *queue) {
			q.unlogged++ // the clock has been told of others
			q.gate.probeNow()
			q.enterLocked(publishOf("b", "dropped"))
			lane := q.byKey.find(&q.lanes, publishOf("b", "").laneKey(q.seed))
			at := q.lanes.at(lane).head
			q.takeHead(lane)
			q.drop(kindPublish, dropQueueFull)
			q.remove(at)
		}, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				config := defaultEndpoint()
				config.Breaker = Breaker{Failures: 1, Cooldown: time.Second}
				config.Retry = Retry{MinBackoff: time.Hour, MaxBackoff: time.Hour, MaxAge: time.Hour, MaxAttempts: -1}
				var attempts atomic.Int64
				e := startFake(config, func(*request, time.Time, <-chan struct{}) outcome {
					attempts.Add(1)
					return outcome{verdict: failed, status: 500}
				})
				e.queue.offer(publishOf("a", "x"), false)
				time.Sleep(500 * time.Millisecond)
				e.queue.mu.Lock()
				tt.end(e.queue)
				e.queue.mu.Unlock()
				synctest.Wait()
				if n := attempts.Load() - 1; n != tt.atOnce {
					t.Errorf("%d probes at once, want %d", n, tt.atOnce)
				}
				time.Sleep(10 * time.Second)
				if n := attempts.Load(); n < 10 || n > 12 {
					t.Errorf("%d attempts in 10.5 s at a cooldown of 1 s", n)
				}
				e.stop(0)
			})
		})
	}
}

func TestRetryAfterPausesTheEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var attempts []time.Duration
		t0 := time.Now()
		e := startFake(defaultEndpoint(), func(*request, time.Time, <-chan struct{}) outcome {
			mu.Lock()
			defer mu.Unlock()
			attempts = append(attempts, time.Since(t0))
			if len(attempts) == 1 {
				return outcome{verdict: paused, status: 429, retryAfter: time.Hour} // capped
			}
			return outcome{status: 200}
		})
		e.queue.offer(publishOf("a", "x"), false)
		synctest.Wait()
		time.Sleep(4 * time.Minute)
		for i := range 10 {
			e.queue.offer(publishOf(fmt.Sprint("c", i), "x"), false)
		}
		time.Sleep(2 * time.Minute)
		mu.Lock()
		defer mu.Unlock()
		for _, at := range attempts[1:] {
			if at < 5*time.Minute {
				t.Errorf("an attempt at %v, within the pause", at)
			}
		}
		// The first event was five minutes old when the pause ended.
		if s := e.queue.stats(); s.Delivered+s.Dead != 11 || s.Retried != 1 {
			t.Errorf("stats %+v", s)
		}
		e.stop(0)
	})
}

func TestMaxAgeAndMaxAttempts(t *testing.T) {
	t.Run("age", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := defaultEndpoint()
			c.Retry.MaxAge = 10 * time.Second
			e := startFake(c, hang)
			for i := range 500 {
				e.queue.offer(publishOf(fmt.Sprint("c", i%50), "x"), false)
			}
			time.Sleep(9 * time.Second)
			if s := e.queue.stats(); s.Dead != 0 {
				t.Errorf("given up too early: %+v", s)
			}
			time.Sleep(time.Second + time.Millisecond)
			synctest.Wait()
			if s := e.queue.stats(); s.Waiting != 0 {
				t.Errorf("still waiting past max_age: %+v", s)
			}
			time.Sleep(10 * time.Second)
			s := e.queue.stats()
			checkSum(t, s)
			if s.Dead != 500 {
				t.Errorf("stats %+v", s)
			}
			e.stop(0)
		})
	})
	t.Run("ahead of the clock", func(t *testing.T) { // as another machine's may be
		synctest.Test(t, func(t *testing.T) {
			c := defaultEndpoint()
			c.Retry.MaxAge = math.MaxInt64
			e := startFake(c, func(*request, time.Time, <-chan struct{}) outcome { return outcome{verdict: failed, status: 500} })
			ev := publishOf("c", "x")
			ev.time = time.Now().Add(10 * time.Second).UnixMilli()
			e.queue.offer(ev, false)
			time.Sleep(time.Minute)
			if s := e.queue.stats(); s.Waiting != 1 {
				t.Errorf("stats %+v", s)
			}
			e.stop(0)
		})
	})
	t.Run("attempts", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := defaultEndpoint()
			c.Retry.MaxAttempts = 3
			n := 0
			e := startFake(c, func(*request, time.Time, <-chan struct{}) outcome {
				switch n++; n { // these do not count, not even as the last
				case 3:
					return outcome{verdict: failed, err: errors.New("reset")}
				case 4:
					return outcome{verdict: paused, status: 429, retryAfter: time.Second}
				}
				return outcome{verdict: failed, status: 500}
			})
			e.queue.offer(publishOf("c", "x"), false)
			time.Sleep(4 * time.Minute)
			s := e.queue.stats()
			if s.Dead != 1 || n != 5 {
				t.Errorf("%d attempts, stats %+v", n, s)
			}
			e.stop(0)
		})
	})
}

// TestNothingIsSentPastMaxAge checks that attempts end at max_age also where the
// clock does not find the events in the order of their age.
func TestNothingIsSentPastMaxAge(t *testing.T) {
	const maxAge = 5 * time.Second
	tests := []struct {
		name   string
		change func(c *Endpoint)
		post   outcome
	}{
		{"held by a worker that splits", func(c *Endpoint) {
			c.Batch = Batch{MaxEvents: 100, MaxBytes: 256 << 10, Linger: time.Millisecond}
		}, outcome{verdict: refused, status: 413}},
		{"waited for room", func(c *Endpoint) {
			c.Queue.Capacity, c.Queue.Overflow, c.Queue.BlockTimeout = 1, Block, time.Hour
		}, outcome{status: 200}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := defaultEndpoint()
				c.PoolSize, c.Retry.MaxAge = 1, maxAge
				tt.change(&c)
				begin := time.Now()
				e := startFake(c, func(*request, time.Time, <-chan struct{}) outcome {
					if age := time.Since(begin); age >= maxAge {
						t.Errorf("an attempt at the age of %v", age)
					}
					time.Sleep(2 * time.Second)
					return tt.post
				})
				synctest.Wait()
				for i := range 16 {
					go e.queue.offer(publishOf(fmt.Sprint("c", i), "x"), true)
				}
				time.Sleep(time.Minute)
				s := e.queue.stats()
				checkSum(t, s)
				if s.Waiting+s.InFlight != 0 || s.Dead == 0 {
					t.Errorf("stats %+v", s)
				}
				e.stop(0)
			})
		})
	}
}

func TestStopWithinDrainTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := startFake(defaultEndpoint(), hang)
		for i := range 100 {
			e.queue.offer(publishOf(fmt.Sprint("c", i), "x"), false)
		}
		synctest.Wait()
		t0 := time.Now()
		e.stop(3 * time.Second)
		if d := time.Since(t0); d < 3*time.Second || d > 4*time.Second {
			t.Errorf("stop took %v", d)
		}
		s := e.queue.stats()
		checkSum(t, s)
		if s.Dropped["shutdown"] != 100 {
			t.Errorf("stats %+v", s)
		}
	})
}

// TestTooLarge: an event may be just as large as the limits say.
func TestTooLarge(t *testing.T) {
	const length = 1000
	cost := new(memory).cost(recordSize(publishOf("c", strings.Repeat("x", length))))
	for name, change := range map[string]func(c *Endpoint){
		"max_payload": func(c *Endpoint) { c.Body.MaxPayload = length },
		"max_bytes":   func(c *Endpoint) { c.Queue.MaxBytes = cost },
	} {
		t.Run(name, func(t *testing.T) {
			c := defaultEndpoint()
			change(&c)
			q := newQueue(limitsOf(&c))
			for i, taken := range []bool{true, false} {
				q.offer(publishOf("c", strings.Repeat("x", length+i*maxSlot)), true)
				if s := q.stats(); s.Waiting != 1 || (s.Dropped["too_large"] == 0) != taken {
					t.Errorf("%d bytes: want it taken %t, stats %+v", length+i*maxSlot, taken, s)
				}
			}
		})
	}
}

// TestRefusedConnectionsFillATenth: events of refused connections get a tenth of a
// queue, and of a small one, whose tenth is less than an event, room for one.
func TestRefusedConnectionsFillATenth(t *testing.T) {
	for name, test := range map[string]struct {
		queue Queue
		want  int
	}{
		"events":     {Queue{Capacity: 100, MaxBytes: -1}, 10},
		"few events": {Queue{Capacity: 5, MaxBytes: -1}, 1},
		"few bytes":  {Queue{Capacity: 100, MaxBytes: 1500}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := defaultEndpoint()
				c.PoolSize, c.Queue = 1, test.queue
				e := startFake(c, hang)
				e.queue.offer(publishOf("c", "x"), false)
				synctest.Wait()
				for i := range 50 {
					ev := publishOf("c", strings.Repeat("x", 200))
					ev.kind, ev.lane, ev.conn, ev.client = kindConnack, laneConn, uint64(i), "victim"
					e.queue.offer(ev, false)
				}
				if s := e.queue.stats(); s.Waiting != test.want || s.Dropped["refused_quota"] != uint64(50-test.want) {
					t.Errorf("%d wait, want %d; stats %+v", s.Waiting, test.want, s)
				}
				e.queue.offer(publishOf("d", "x"), false)
				if s := e.queue.stats(); s.Waiting != test.want+1 {
					t.Errorf("no room for another event: %+v", s)
				}
				e.stop(0)
			})
		})
	}
}

// TestIdleConnections counts the connections that are kept when there is little to do: the
// last one that was used is used again, the others are closed after a while.
func TestIdleConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := defaultEndpoint()
		c.PoolSize = 4
		e := startFake(c, func(*request, time.Time, <-chan struct{}) outcome {
			time.Sleep(time.Millisecond)
			return outcome{status: 200}
		})
		closed := func(want int) {
			t.Helper()
			n := 0
			for _, w := range e.pool.workers {
				n += int(b2u(w.poster.(*fakePoster).closed.Load()))
			}
			if n != want {
				t.Errorf("%d connections are closed, want %d", n, want)
			}
		}
		for i := range c.PoolSize {
			e.queue.offer(publishOf(fmt.Sprint("c", i), "x"), false)
		}
		time.Sleep(idleTimeout - time.Second)
		closed(0)
		e.queue.offer(publishOf("c", "x"), false)
		time.Sleep(2 * time.Second)
		closed(3)
		time.Sleep(idleTimeout)
		closed(4)
		e.stop(0)
	})
}

// TestLargeEventLeavesNothing: what a worker keeps from one attempt to the next counts
// under no limit.
func TestLargeEventLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := defaultEndpoint()
		c.PoolSize = 1
		e := startFake(c, func(*request, time.Time, <-chan struct{}) outcome { return outcome{status: 200} })
		e.queue.mu.Lock()
		e.queue.store = &fetchStore{records: make(map[uint64][]byte)}
		e.queue.mu.Unlock()
		w := e.pool.workers[0]
		for _, size := range []int{100, 1 << 20, 100} {
			e.queue.offer(publishOf("c", strings.Repeat("x", size)), true)
			synctest.Wait()
			for name, n := range map[string]int{"body": cap(w.req.body), "record": cap(w.fetched)} {
				if n > largestKept || size < largestKept && n == 0 {
					t.Errorf("after %d bytes: %d kept of the %s", size, n, name)
				}
			}
			if w.ev.payload != nil || w.jobs[0].rec != nil {
				t.Errorf("after %d bytes: the event is kept", size)
			}
		}
		e.stop(0)
	})
}

func TestBackoffRange(t *testing.T) {
	r := Retry{MinBackoff: 500 * time.Millisecond, MaxBackoff: 30 * time.Second}
	for n, top := range map[int]time.Duration{
		1: 1500 * time.Millisecond, 2: 4500 * time.Millisecond, 3: 13500 * time.Millisecond,
		4: 30 * time.Second, 5: 30 * time.Second, 255: 30 * time.Second,
	} {
		lowest, highest := time.Hour, time.Duration(0)
		for range 10000 {
			d := r.next(n)
			lowest, highest = min(lowest, d), max(highest, d)
		}
		if lowest < r.MinBackoff || highest > top || highest < top*9/10 || lowest > r.MinBackoff+top/10 {
			t.Errorf("after %d failures: %v to %v, want %v to %v", n, lowest, highest, r.MinBackoff, top)
		}
	}
	huge := Retry{MinBackoff: time.Hour, MaxBackoff: 1<<63 - 1}
	for n := range 300 {
		if d := huge.next(n); d < time.Hour {
			t.Fatalf("after %d failures: %v", n, d)
		}
	}
}

// TestDropOldestBoundsWhatComesBack fills the queue while attempts are under way
// that fail: what comes back counts as waiting, and is the oldest.
func TestDropOldestBoundsWhatComesBack(t *testing.T) {
	for _, policy := range []Overflow{DropOldest, DropNewest} {
		t.Run(string(policy), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := defaultEndpoint()
				c.PoolSize, c.Queue.Capacity, c.Queue.Overflow = 4, 3, policy
				e := startFake(c, func(*request, time.Time, <-chan struct{}) outcome {
					time.Sleep(time.Millisecond)
					return outcome{verdict: failed, status: 500}
				})
				defer e.stop(0)
				for i := range 7 {
					e.queue.offer(publishOf(fmt.Sprint("c", i), "x"), false)
					synctest.Wait()
				}
				time.Sleep(2 * time.Millisecond)
				synctest.Wait()
				checkQueue(t, e.queue)
				s := e.queue.stats()
				checkSum(t, s)
				if waiting := s.Waiting + s.InFlight; policy == DropOldest && s.Waiting > 3 || policy == DropNewest && waiting != 7 {
					t.Errorf("%+v", s)
				}
			})
		})
	}
}

// TestPausedProbe: a probe ahead of its event's backoff costs no attempt, whatever is
// answered.
func TestPausedProbe(t *testing.T) {
	for _, pause := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var n atomic.Int64
			transport := roundTripFunc(func(r *http.Request) (*http.Response, error) {
				if n.Add(1) == 2 && pause {
					return respond(429, http.NoBody, http.Header{"Retry-After": {"1"}}), nil
				}
				return answer(503)
			})
			h := new(Hook)
			if err := h.Init(&Options{Config: &Config{Endpoints: []Endpoint{{URL: "http://a/", PoolSize: 2,
				Retry:   Retry{MaxAge: -1, MinBackoff: time.Hour, MaxBackoff: time.Hour, MaxAttempts: 2},
				Breaker: Breaker{Failures: 1, Cooldown: time.Second}, Events: rulesFor(OnMessagePublish)}}},
				Transport: transport, DrainTimeout: -1}); err != nil {
				t.Fatal(err)
			}
			h.emit(publishOf("a", "x"))
			time.Sleep(10 * time.Second)
			s := h.Stats().Endpoints["default"]
			if s.Dead != 0 || n.Load() < 8 {
				t.Errorf("pause %t: %d requests, stats %+v", pause, n.Load(), s)
			}
			_ = h.Stop()
		})
	}
}

// TestBreakerIsTold: the log says once that the breaker opens, and once that it closes.
func TestBreakerIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log logLines
		var up atomic.Bool
		transport := roundTripFunc(func(*http.Request) (*http.Response, error) {
			if up.Load() {
				return answer(200)
			}
			return answer(503)
		})
		h := new(Hook)
		h.Log = log.logger()
		if err := h.Init(&Options{Config: &Config{Endpoints: []Endpoint{{URL: "http://a/",
			Retry: Retry{MaxAge: -1}, Events: rulesFor(OnMessagePublish)}}}, Transport: transport}); err != nil {
			t.Fatal(err)
		}
		for i := range 100 {
			h.emit(publishOf(fmt.Sprint("c", i), "x"))
		}
		const opens, closes = `level=WARN msg="endpoint failing, breaker open" endpoint=default status=503 `, `level=INFO msg="endpoint recovered" endpoint=default`
		told := func(want int, text string) {
			t.Helper()
			if n := strings.Count(log.String(), text); n != want {
				t.Errorf("told %d times, want %d: %s\n%s", n, want, text, log.String())
			}
		}
		time.Sleep(time.Hour)
		told(1, opens)
		told(0, closes)
		up.Store(true)
		time.Sleep(time.Minute)
		told(1, opens)
		told(1, closes)
		_ = h.Stop()
	})
}

// TestBreakerToldLate opens the breaker again soon after it was told closed: that is
// told when it is time.
func TestBreakerToldLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log logLines
		var n atomic.Int64
		transport := roundTripFunc(func(r *http.Request) (*http.Response, error) {
			if n.Add(1) == 2 { // the second one is slow, and well
				time.Sleep(time.Second)
				return answer(200)
			}
			time.Sleep(10 * time.Millisecond)
			return answer(503)
		})
		h := new(Hook)
		h.Log = log.logger()
		if err := h.Init(&Options{Config: &Config{Endpoints: []Endpoint{{URL: "http://a/", PoolSize: 2,
			Retry:   Retry{MaxAge: -1},
			Breaker: Breaker{Failures: 1, Cooldown: time.Minute}, Events: rulesFor(OnMessagePublish)}}},
			Transport: transport, DrainTimeout: -1}); err != nil {
			t.Fatal(err)
		}
		h.emit(publishOf("a", "x"))
		h.emit(publishOf("b", "x"))
		time.Sleep(59 * time.Second)
		if !strings.HasSuffix(strings.TrimSpace(log.String()), "cooldown=1m0s") {
			t.Errorf("the breaker is open, and the log is:\n%s", log.String())
		}
		_ = h.Stop()
	})
}
