package webhook

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// TestBlockWakesAllThatFit has many publishes wait for one large event to
// leave: all of them come in then, not only the first.
func TestBlockWakesAllThatFit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := defaultEndpoint()
		c.PoolSize, c.Queue.Overflow, c.Queue.MaxBytes = 1, Block, 4096
		e := startFake(c, func(*request, time.Time, <-chan struct{}) outcome {
			time.Sleep(300 * time.Millisecond)
			return outcome{status: 200}
		})
		e.queue.offer(publishOf("first", "x"), false) // in flight
		synctest.Wait()
		e.queue.offer(publishOf("large", string(bytes.Repeat([]byte{'x'}, 4000))), false) // fills the queue
		var wg sync.WaitGroup
		t0 := time.Now()
		for range 10 {
			wg.Go(func() {
				if _, taken := e.queue.offer(publishOf("small", "x"), true); !taken {
					t.Error("dropped although there was room")
				}
				if d := time.Since(t0); d != 300*time.Millisecond {
					t.Errorf("came in after %v, want 300ms", d)
				}
			})
		}
		wg.Wait()
		e.stop(time.Minute)
		s := e.queue.stats()
		checkSum(t, s)
		if s.Delivered != 12 {
			t.Errorf("stats %+v", s)
		}
	})
}

// TestBlockWaitsForAllAtOnce has publishes wait for an endpoint that is down: another
// one, which keeps up with them now and then, loses nothing by that, and has the
// events of a client in their order.
func TestBlockWaitsForAllAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		got := make(map[string][]string) // by client
		transport := roundTripFunc(func(r *http.Request) (*http.Response, error) {
			if r.URL.Host == "down" {
				return answer(503)
			}
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			time.Sleep(10 * time.Millisecond)
			mu.Lock()
			defer mu.Unlock()
			client, n, _ := strings.Cut(payloadOf(body), " ")
			got[client] = append(got[client], n)
			return answer(200)
		})
		full := Queue{Capacity: 5, Overflow: Block, BlockTimeout: time.Second}
		var c Config
		for _, name := range []string{"down", "well"} {
			c.Endpoints = append(c.Endpoints, Endpoint{Name: name, URL: "http://" + name, PoolSize: 1, Events: rulesFor(OnMessagePublish), Queue: full})
		}
		h := new(Hook)
		if err := h.Init(&Options{Config: &c, Transport: transport, DrainTimeout: 5 * time.Second}); err != nil {
			t.Fatal(err)
		}
		const clients, events = 20, 20
		var want []string
		for i := range events {
			want = append(want, fmt.Sprint(i))
		}
		var wg sync.WaitGroup
		for i := range clients {
			wg.Go(func() {
				cl := &mqtt.Client{ID: fmt.Sprint(i)}
				for _, n := range want {
					h.OnPublished(cl, packets.Packet{TopicName: "t", Payload: []byte(cl.ID + " " + n)})
					time.Sleep(300 * time.Millisecond)
				}
			})
		}
		wg.Wait()
		_ = h.Stop()
		for i := range clients {
			if s := got[fmt.Sprint(i)]; !slices.Equal(s, want) {
				t.Errorf("client %d: got %q", i, s)
			}
		}
	})
}

// TestBlockIsNotOvertaken checks that a publish which there would be room for stays
// behind one that waits, which may be of the same client.
func TestBlockIsNotOvertaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := defaultEndpoint()
		c.PoolSize, c.Queue.Overflow, c.Queue.MaxBytes = 1, Block, 4096
		release := make(chan struct{})
		var got []string
		e := startFake(c, func(req *request, _ time.Time, _ <-chan struct{}) outcome {
			got = append(got, payloadOf(req.body)[:1])
			<-release
			return outcome{status: 200}
		})
		large := strings.Repeat("x", 2500)
		for _, payload := range []string{"0", "0" + large} { // one in flight, one that waits
			e.queue.offer(publishOf("other", payload), false)
			synctest.Wait()
		}
		var wg sync.WaitGroup
		for _, payload := range []string{"1" + large, "2"} {
			wg.Go(func() { e.queue.offer(publishOf("c", payload), true) })
			synctest.Wait()
		}
		close(release)
		wg.Wait()
		e.stop(time.Minute)
		if want := []string{"0", "0", "1", "2"}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// TestBlockIsOneEndpointsOwn checks that an event which waits for room in one queue
// is in those of other endpoints at once, wherever they are in the configuration.
func TestBlockIsOneEndpointsOwn(t *testing.T) {
	for _, first := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			begin := time.Now()
			var mu sync.Mutex
			got := make(map[string]time.Duration)
			transport := roundTripFunc(func(r *http.Request) (*http.Response, error) {
				if r.URL.Host == "hangs" {
					<-r.Context().Done()
					return nil, r.Context().Err()
				}
				body, err := io.ReadAll(r.Body)
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				got[r.URL.Host+payloadOf(body)] = time.Since(begin)
				mu.Unlock()
				return answer(200)
			})
			full := Queue{Overflow: Block, Capacity: 1, BlockTimeout: time.Second}
			hangs := Endpoint{Name: "hangs", URL: "http://hangs/", PoolSize: 1, Timeout: time.Hour, Events: rulesFor(OnMessagePublish), Queue: full}
			endpoints := []Endpoint{
				{Name: "a", URL: "http://a/", Events: rulesFor(OnMessagePublish)},
				{Name: "b", URL: "http://b/", Events: rulesFor(OnMessagePublish), Queue: full},
			}
			if first {
				endpoints = append([]Endpoint{hangs}, endpoints...)
			} else {
				endpoints = append(endpoints, hangs)
			}
			h := new(Hook)
			if err := h.Init(&Options{Transport: transport, DrainTimeout: -1, Config: &Config{Endpoints: endpoints}}); err != nil {
				t.Fatal(err)
			}
			for i := range 3 { // one in flight, one that waits, and one that there is no room for
				h.OnPublished(&mqtt.Client{ID: "c"}, packets.Packet{TopicName: "t", Payload: []byte{'0' + byte(i)}})
				synctest.Wait()
			}
			for _, want := range []string{"a2", "b2"} {
				if at, ok := got[want]; at > 0 || !ok {
					t.Errorf("first %v: %s came after %v (%v)", first, want, at, ok)
				}
			}
			if n := h.Stats().Endpoints["hangs"].Dropped["queue_full"]; n != 1 {
				t.Errorf("%d dropped, want 1", n)
			}
			_ = h.Stop()
		})
	}
}

// TestBlockComesInInOrder has a publish that needs much room wait before those
// that need little: it keeps its place until its time is over.
func TestBlockComesInInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := defaultEndpoint()
		c.PoolSize, c.Queue.Overflow, c.Queue.MaxBytes = 1, Block, 4096
		release := make(chan struct{})
		e := startFake(c, func(*request, time.Time, <-chan struct{}) outcome {
			<-release
			return outcome{status: 200}
		})
		e.queue.offer(publishOf("c", "x"), false)
		synctest.Wait()
		half := string(bytes.Repeat([]byte{'x'}, 1950))
		e.queue.offer(publishOf("c", half), false)
		e.queue.offer(publishOf("c", half), false)
		var wg sync.WaitGroup
		took := make([]time.Duration, 2)
		t0 := time.Now()
		for i, payload := range []string{half + half, "x"} {
			wg.Go(func() {
				e.queue.offer(publishOf("late", payload), true)
				took[i] = time.Since(t0)
			})
			synctest.Wait()
			checkSum(t, e.queue.stats()) // what is blocked is in no counter yet
		}
		time.Sleep(100 * time.Millisecond)
		release <- struct{}{} // one of the halves goes into flight: room for the small one only
		wg.Wait()
		if took[0] != time.Second || took[1] != time.Second {
			t.Errorf("the large one came in or was dropped after %v, want 1s; the small one behind it after %v, want 1s", took[0], took[1])
		}
		if s := e.queue.stats(); s.Dropped["queue_full"] != 1 {
			t.Errorf("stats %+v", s)
		}
		close(release)
		e.stop(time.Minute)
		checkSum(t, e.queue.stats())
	})
}

// TestBlockTimeoutIsOne has a message wait for several endpoints that are full
// and for another one's disk: together no longer than the block timeout.
func TestBlockTimeoutIsOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const block = 300 * time.Millisecond
		dir := t.TempDir()
		endpoint := func(name string, q Queue) Endpoint {
			q.Overflow, q.BlockTimeout = Block, block
			return Endpoint{Name: name, URL: "http://127.0.0.1:1/", Events: []Rule{{Event: OnMessagePublish}}, Queue: q}
		}
		h := new(Hook)
		if err := h.Init(&Options{Transport: unreachable, DrainTimeout: -1, Config: &Config{Endpoints: []Endpoint{
			endpoint("full", Queue{Type: DiskQueue, Dir: dir, Sync: SyncAlways, MaxBytes: 1 << 20}),
			endpoint("slow", Queue{Type: DiskQueue, Dir: dir, Sync: SyncAlways}),
			endpoint("one", Queue{Capacity: 1}),
			endpoint("two", Queue{Capacity: 1}),
		}}}); err != nil {
			t.Fatal(err)
		}
		defer h.Stop()
		for _, e := range h.active.Load().endpoints {
			e.queue.mu.Lock()
			e.queue.gate.pause(time.Hour) // what comes waits
			e.queue.mu.Unlock()
			if e.disk != nil {
				e.disk.await = func(ctx context.Context, _ uint64) error { <-ctx.Done(); return ctx.Err() }
			}
		}
		pk := packets.Packet{
			FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: 1},
			TopicName:   "t", Payload: bytes.Repeat([]byte{'x'}, 600_000),
		}
		took := func(what string, f func()) {
			t.Helper()
			begin := time.Now()
			f()
			if d := time.Since(begin); d != block {
				t.Errorf("%s took %v, block timeout %v", what, d, block)
			}
		}
		cl := hotClients(1)[0]
		took("the disk", func() { pk, _ = h.OnPublish(cl, pk) })
		h.OnPublished(cl, pk)
		took("a full queue and the disk", func() { pk, _ = h.OnPublish(cl, pk) })
		took("two full queues", func() { h.OnPublished(cl, pk) })
		for name, want := range map[string]EndpointStats{"full": {SyncLate: 1, Dropped: map[string]uint64{"queue_full": 1}}, "slow": {SyncLate: 2}} {
			if s := h.Stats().Endpoints[name]; s.SyncLate != want.SyncLate || s.Dropped["queue_full"] != want.Dropped["queue_full"] {
				t.Errorf("%s: stats %+v", name, s)
			}
		}
	})
}

// TestBlockTimeoutBehindAnother has a publish that has waited for another queue already
// come behind one that may wait for longer: its time is over first.
func TestBlockTimeoutBehindAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := defaultEndpoint()
		c.PoolSize, c.Queue = 1, Queue{Capacity: 1, MaxBytes: -1, Overflow: Block, BlockTimeout: time.Second}
		e := startFake(c, hang)
		e.queue.offer(publishOf("first", "x"), false) // in flight
		synctest.Wait()
		e.queue.offer(publishOf("second", "x"), false) // fills the queue
		var waits sync.WaitGroup
		waits.Go(func() { e.queue.offer(publishOf("third", "x"), true) })
		synctest.Wait()
		t0 := time.Now()
		_, is := e.queue.offerWith(publishOf("fourth", "x"), &patience{waits: true, since: t0.Add(-time.Second / 2)})
		if took := time.Since(t0); is != notTaken || took != time.Second/2 {
			t.Errorf("taken %t after %v", is == taken, took)
		}
		waits.Wait()
		s := e.queue.stats()
		checkSum(t, s)
		checkQueue(t, e.queue)
		if s.Waiting != 1 || s.Dropped["queue_full"] != 2 {
			t.Errorf("stats %+v", s)
		}
		e.stop(0)
	})
}

// TestReloadEndsWaiting changes the settings of a queue for whose room a publish
// waits: they are those of that publish, too.
func TestReloadEndsWaiting(t *testing.T) {
	for name, change := range map[string]func(e *Endpoint){
		"drop oldest":     func(e *Endpoint) { e.Queue.Overflow = DropOldest },
		"drop newest":     func(e *Endpoint) { e.Queue.Overflow = DropNewest },
		"shorter timeout": func(e *Endpoint) { e.Queue.BlockTimeout = time.Minute },
		"disabled":        func(e *Endpoint) { e.Disabled = true },
		"more room":       func(e *Endpoint) { e.Queue.Capacity = 2 },
		"longer timeout":  func(e *Endpoint) { e.Queue.BlockTimeout = time.Hour },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				config := func(change func(e *Endpoint)) *Config {
					e := Endpoint{
						Name: "one", URL: "http://127.0.0.1:1/", Events: rulesFor(OnMessagePublish),
						Queue: Queue{Capacity: 1, Overflow: Block, BlockTimeout: 30 * time.Minute},
						Retry: Retry{MinBackoff: 2 * time.Hour, MaxBackoff: 2 * time.Hour, MaxAge: -1}, Breaker: Breaker{Failures: -1},
					}
					change(&e)
					return &Config{Endpoints: []Endpoint{e}}
				}
				h := new(Hook)
				if err := h.Init(&Options{Transport: unreachable, DrainTimeout: -1, Config: config(func(*Endpoint) {})}); err != nil {
					t.Fatal(err)
				}
				defer h.Stop()
				cl := hotClients(1)[0]
				publish := func() {
					h.OnPublished(cl, packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish}, TopicName: "t"})
				}
				publish()
				time.Sleep(time.Minute) // then it waits for its second attempt
				begin := time.Now()
				var took atomic.Int64 // 0 while it waits
				go func() {
					publish()
					took.Store(int64(time.Since(begin)))
				}()
				time.Sleep(10 * time.Minute)
				if err := h.Reload(config(change)); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				if name == "longer timeout" {
					time.Sleep(50*time.Minute - time.Second)
					synctest.Wait()
					if took.Load() != 0 {
						t.Errorf("it took %v", time.Duration(took.Load()))
					}
					time.Sleep(2 * time.Second)
					synctest.Wait()
					if got := time.Duration(took.Load()); got != time.Hour {
						t.Errorf("it took %v, want 1h", got)
					}
				} else if got := time.Duration(took.Load()); got != 10*time.Minute {
					t.Errorf("it took %v, want 10m", got)
				}
			})
		})
	}
}

// TestReloadMakesRoomForAllThatWait has publishes that wait for room, and a reload
// that gives them some, and a timeout that is over for all of them: none is dropped.
func TestReloadMakesRoomForAllThatWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const publishes = 50
		config := func(capacity int, timeout time.Duration) *Config {
			return allPublishes("http://127.0.0.1:1/", func(e *Endpoint) {
				e.PoolSize, e.Queue = 1, Queue{Capacity: capacity, Overflow: Block, BlockTimeout: timeout}
				e.Retry = Retry{MinBackoff: 2 * time.Hour, MaxBackoff: 2 * time.Hour, MaxAge: -1}
			})
		}
		h := runHook(t, &Options{DrainTimeout: -1, Transport: unreachable, Config: config(1, time.Hour)})
		h.emit(publishOf("c", "first"))
		synctest.Wait()
		cl := hotClients(1)[0]
		for range publishes {
			go h.OnPublished(cl, packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish}, TopicName: "t"})
		}
		time.Sleep(10 * time.Minute)
		if err := h.Reload(config(2*publishes, time.Minute)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if s := h.Stats().Endpoints["default"]; s.Waiting != publishes+1 || len(s.Dropped) > 0 {
			t.Errorf("%d wait, dropped %v; want %d, none", s.Waiting, s.Dropped, publishes+1)
		}
	})
}

// TestBlockSparesTheProgram has a queue that is full, and publishes that wait for
// nothing: those of the program itself, and wills.
func TestBlockSparesTheProgram(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := runHook(t, &Options{DrainTimeout: -1, Transport: unreachable, Config: allPublishes("http://127.0.0.1:1/", func(e *Endpoint) {
			e.PoolSize, e.Queue = 1, Queue{Capacity: 1, Overflow: Block, BlockTimeout: time.Hour}
		})})
		for i := range 2 {
			h.emit(publishOf("c", fmt.Sprint(i)))
			synctest.Wait()
		}
		server := mqtt.New(&mqtt.Options{Logger: discardLogger()})
		pk := packets.Packet{TopicName: "a", FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: 1}}
		begin := time.Now()
		h.OnPublished(server.NewClient(nil, "local", "inline", true), pk)
		h.OnWillSent(server.NewClient(nil, "tcp", "dead", false), pk)
		if took, s := time.Since(begin), h.Stats().Endpoints["default"]; took > 0 || s.Dropped["queue_full"] != 2 {
			t.Errorf("took %v, stats %+v, want two dropped at once", took, s)
		}
	})
}
