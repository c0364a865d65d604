package webhook

import (
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// numbered is hotHook whose bodies have the events' numbers.
func numbered(tb testing.TB, change func(*Endpoint)) (*Hook, *endpoint) {
	h := new(Hook)
	c := defaultEndpoint()
	c.URL = "http://127.0.0.1:1/"
	c.Queue.Capacity = -1
	c.Body.Fields = []Field{FieldSeq}
	c.Events = []Rule{{Event: OnMessagePublish}, {Event: OnMessageDelivered}}
	change(&c)
	e, err := newEndpoint(&c, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		tb.Fatal(err)
	}
	h.active.Store(&active{rules: newRules([]Endpoint{c}), endpoints: []*endpoint{e}, wants: e.wants})
	h.watch(h.active.Load().rules.wanted)
	return h, e
}

// TestSequence has events of one client from many goroutines: their numbers rise
// in the order in which they wait.
func TestSequence(t *testing.T) {
	for _, policy := range []Overflow{DropOldest, Block} {
		t.Run(string(policy), func(t *testing.T) {
			const goroutines, each = 8, 2000
			h, e := numbered(t, func(c *Endpoint) { c.Queue.Overflow = policy })
			client, pk := hotClients(1)[0], hotPacket()
			var wg sync.WaitGroup
			for i := range goroutines {
				wg.Go(func() {
					for range each {
						if i%2 == 0 {
							h.OnPublished(client, pk)
						} else {
							h.emit(&event{kind: kindDelivered, client: client.ID, topic: "t", from: "someone"})
						}
					}
				})
			}
			wg.Wait()
			last := uint64(0)
			jobs := e.queue.takeWaiting(goroutines * each)
			if len(jobs) != goroutines*each {
				t.Fatalf("%d events wait, want %d", len(jobs), goroutines*each)
			}
			for i, j := range jobs {
				var ev event
				if err := decodeRecord(j.rec, &ev); err != nil || ev.extra == nil {
					t.Fatalf("event %d: %+v, %v", i, ev, err)
				}
				if ev.extra.seq <= last {
					t.Fatalf("event %d has number %d after %d", i, ev.extra.seq, last)
				}
				last = ev.extra.seq
			}
		})
	}
}

// TestSequenceWhileOneWaits has a publish that waits for room: its client's other
// events do not wait for it.
func TestSequenceWhileOneWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, e := numbered(t, func(c *Endpoint) {
			c.Queue.Capacity, c.Queue.Overflow, c.Queue.BlockTimeout = 1, Block, time.Hour
		})
		client := hotClients(1)[0]
		h.OnPublished(client, hotPacket())
		go h.OnPublished(client, hotPacket())
		synctest.Wait()
		begin := time.Now()
		h.emit(&event{kind: kindDelivered, client: client.ID, topic: "t", from: "someone"})
		if took := time.Since(begin); took > 0 {
			t.Errorf("an event took %v", took)
		}
		time.Sleep(2 * time.Hour)
		if got := fmt.Sprint(e.queue.stats().Dropped); got != fmt.Sprint(map[string]uint64{"queue_full": 2}) {
			t.Errorf("dropped %s", got)
		}
	})
}
