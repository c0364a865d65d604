package webhook

import (
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// hotHook is a hook with one endpoint whose workers are all busy: nothing is
// taken out of its queue, so that a callback's cost is that of enqueuing.
func hotHook(tb testing.TB, filters ...string) (*Hook, *endpoint) {
	c := defaultEndpoint()
	c.URL = "http://127.0.0.1:1/"
	c.Queue.Capacity, c.Queue.MaxBytes = -1, -1
	for _, f := range filters {
		c.Events = append(c.Events, Rule{Event: OnMessagePublish, Topic: f})
	}
	e, err := newEndpoint(&c, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		tb.Fatal(err)
	}
	h := new(Hook)
	h.active.Store(&active{rules: newRules([]Endpoint{c}), endpoints: []*endpoint{e}, wants: e.wants})
	h.watch(h.active.Load().rules.wanted)
	return h, e
}

// hotClients are clients as the broker has them.
func hotClients(n int) []*mqtt.Client {
	server := mqtt.New(&mqtt.Options{Logger: slog.New(slog.DiscardHandler)})
	clients := make([]*mqtt.Client, n)
	for i := range clients {
		clients[i] = server.NewClient(nil, "tcp", fmt.Sprintf("client-%05d", i), false)
		clients[i].Properties.Username = []byte("device")
	}
	return clients
}

// hotPacket is a publish with a payload of 64 bytes.
func hotPacket() packets.Packet {
	return packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: 1},
		TopicName:   "site/1/device/12/temperature",
		Payload:     []byte(strings.Repeat("x", 64)),
	}
}

// hotFilters are n filters below one root that match no hotPacket.
func hotFilters(n int) []string {
	filters := make([]string, n)
	for i := range filters {
		filters[i] = fmt.Sprintf("site/%d/+/%d/#", i%100, i+1000)
	}
	return filters
}

func BenchmarkPublishNoMatch(b *testing.B) {
	cl, pk := hotClients(1)[0], hotPacket()
	for _, rules := range []int{1, 1000, 100000} {
		b.Run(fmt.Sprintf("rules=%d", rules), func(b *testing.B) {
			h, _ := hotHook(b, hotFilters(rules)...)
			b.ReportAllocs()
			for b.Loop() {
				h.OnPublished(cl, pk)
			}
		})
	}
}

// hotRound is how many events a benchmark lets wait before it empties the
// queue, which is not measured.
const hotRound = 4000

// settleAll delivers everything that waits, as workers would.
func settleAll(q *queue) {
	w := &worker{pool: new(pool), wake: make(chan struct{}, 1)}
	for q.ready.head != 0 {
		q.take(w)
		q.leave(w)
		q.finish(w.jobs, result{fate: fateDelivered})
	}
}

func BenchmarkPublishMatch(b *testing.B) {
	for _, bench := range []struct{ clients, goroutines int }{{1, 1}, {10000, 1}, {10000, 8}} {
		b.Run(fmt.Sprintf("clients=%d/goroutines=%d", bench.clients, bench.goroutines), func(b *testing.B) {
			h, e := hotHook(b, "site/+/device/#")
			clients, pk := hotClients(bench.clients), hotPacket()
			publish := func(from, n int) {
				for i := range n {
					h.OnPublished(clients[(from+i)%len(clients)], pk)
				}
			}
			publish(0, hotRound)
			settleAll(e.queue)
			b.ReportAllocs()
			b.ResetTimer()
			var took time.Duration // StopTimer stops the world
			for done := 0; done < b.N; done += hotRound {
				share := min(hotRound, b.N-done) / bench.goroutines
				start := time.Now()
				if bench.goroutines == 1 {
					publish(done, share)
				} else {
					var wg sync.WaitGroup
					for g := range bench.goroutines {
						wg.Go(func() { publish(done+g*len(clients)/bench.goroutines, share) })
					}
					wg.Wait()
				}
				took += time.Since(start)
				settleAll(e.queue)
			}
			b.ReportMetric(float64(took.Nanoseconds())/float64(b.N), "ns/op")
		})
	}
}

// BenchmarkPublishFull is a publish that matches while the queue is full, so that
// each drops the oldest event: the cost of an endpoint that hangs.
func BenchmarkPublishFull(b *testing.B) {
	h, e := hotHook(b, "site/+/device/#")
	e.queue.limits.queue.Capacity = 100000
	clients, pk := hotClients(50), hotPacket()
	publish := func(n int) {
		for i := range n {
			h.OnPublished(clients[i%len(clients)], pk)
		}
	}
	publish(e.queue.limits.queue.Capacity)
	b.ReportAllocs()
	b.ResetTimer()
	publish(b.N)
}

// hotAllocs is how many allocations a publish may cost: a fraction of one, as
// memory for waiting events comes in chunks.
const hotAllocs = 0.05

// TestHotPathAllocations holds the callbacks to their bars: the broker's
// goroutines leave nothing for the collector.
func TestHotPathAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("not with the race detector")
	}
	clients, pk := hotClients(100), hotPacket()
	for name, filters := range map[string][]string{
		"no match":         {"other/#"},
		"no match of 1000": hotFilters(1000),
		"match":            {"site/+/device/#"},
	} {
		t.Run(name, func(t *testing.T) {
			h, e := hotHook(t, filters...)
			round := func() {
				for _, cl := range clients {
					h.OnPublished(cl, pk)
				}
			}
			for range 100 { // warm: memory, maps and scratch
				round()
			}
			settleAll(e.queue)
			got := testing.AllocsPerRun(100, round) / float64(len(clients))
			if got > hotAllocs {
				t.Errorf("%.3f allocations for a publish, want at most %v", got, hotAllocs)
			}
		})
	}
}

// TestMemoryPerEvent measures what waiting events take, all included.
func TestMemoryPerEvent(t *testing.T) {
	clients := hotClients(10000)
	for _, test := range []struct{ payload, events, most int }{
		{64, 100000, 200},
		{1000, 10000, 1400}, // beyond the largest slot; each in a lane of its own
	} {
		h, e := hotHook(t, "site/+/device/#")
		pk := hotPacket()
		pk.Payload = make([]byte, test.payload)
		before := heapInUse()
		for i := range test.events {
			h.OnPublished(clients[i%len(clients)], pk)
		}
		got := int(heapInUse()-before) / test.events
		t.Logf("%d bytes of heap, %d counted", got, int(e.queue.stats().WaitingBytes)/test.events)
		if got > test.most {
			t.Errorf("a waiting event with a payload of %d bytes takes %d bytes, want at most %d", test.payload, got, test.most)
		}
		runtime.KeepAlive(h)
	}
	runtime.KeepAlive(clients)
}

func heapInUse() int64 {
	runtime.GC()
	runtime.GC() // what the first one's finalizers and pools let go
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
