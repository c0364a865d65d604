package webhook

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"
)

// TestStageIsSeen offers events of several clients while no worker waits: whoever
// looks sees them, in the order in which they came, however many are still staged.
func TestStageIsSeen(t *testing.T) {
	c := defaultEndpoint()
	q := newQueue(limitsOf(&c))
	q.mu.visit()                 // nobody waits for events: from now on they are staged
	most, used, looks := 0, 0, 0 // looks at a moment when something was staged
	for n := 1; n <= 3000; n++ {
		ev := publishOf(fmt.Sprint("client", n*n%37), fmt.Sprint(n))
		ev.stamped = int64(n / 2) // now and then at the same moment, which tells nothing
		q.offer(ev, false)
		staged, stages := 0, 0
		for i := range q.stages.all {
			n := len(q.stages.all[i].filling.tickets)
			staged, most, stages = staged+n, max(most, n), stages+min(n, 1)
		}
		used = max(used, stages)
		if n%777 == 0 {
			looks += min(staged, 1) // the last event may have made its stage full
			if s := q.stats(); s.Offered != uint64(n) || s.Waiting != n {
				t.Fatalf("after %d events, %d of them staged: %+v", n, staged, s)
			}
		}
	}
	if looks == 0 {
		t.Error("nothing was ever staged when somebody looked")
	}
	if most != q.stages.most-1 || used < 2 {
		t.Errorf("at most %d events were on a stage, want %d, and %d stages were in use, want more than one", most, q.stages.most-1, used)
	}
	last := make(map[string]int)
	for i, j := range q.takeWaiting(3001) {
		var ev event
		err := decodeRecord(j.rec, &ev)
		n, _ := strconv.Atoi(string(ev.payload))
		if at := i + 1; err != nil || n/2 != at/2 {
			t.Fatalf("event %d is %q, %v", at, ev.payload, err)
		}
		if n <= last[ev.from] {
			t.Fatalf("event %d of %s came after %d", n, ev.from, last[ev.from])
		}
		last[ev.from] = n
	}
}

// TestStageInOrder offers events of many clients one after the other while
// somebody looks all the time: they come into the queue in their order.
func TestStageInOrder(t *testing.T) {
	const events = 50000
	c := defaultEndpoint()
	c.Queue.Capacity = -1
	q := newQueue(limitsOf(&c))
	q.mu.visit()
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				q.mu.visit()
			}
		}
	})
	for n := range events {
		q.offer(publishOf(fmt.Sprint("client", n%37), fmt.Sprint(n)), false)
	}
	close(done)
	wg.Wait()
	for i, j := range q.takeWaiting(events + 1) {
		var ev event
		if err := decodeRecord(j.rec, &ev); err != nil || string(ev.payload) != fmt.Sprint(i) {
			t.Fatalf("event %d is %q, %v", i, ev.payload, err)
		}
	}
}

// TestStageMemory is about what stages keep after a burst: nothing else bounds it.
func TestStageMemory(t *testing.T) {
	c := defaultEndpoint()
	c.Queue.Capacity = 10
	q := newQueue(limitsOf(&c))
	q.mu.visit()
	for n := range 20000 {
		q.offer(publishOf(fmt.Sprint("client", n%997), strings.Repeat("x", n%900)), false)
	}
	kept := 0
	for i := range q.stages.all {
		g := &q.stages.all[i]
		for _, s := range []staged{g.filling, g.spare} {
			kept += cap(s.records) + cap(s.tickets)*int(unsafe.Sizeof(ticket{}))
		}
	}
	if most := 2 * (len(q.stages.all)*2*mostRecords + 2*mostStaged*int(unsafe.Sizeof(ticket{}))); kept > most {
		t.Errorf("%d bytes kept, want at most %d", kept, most)
	}
}

// TestStageWakes offers events one by one, each at about the moment when the last
// worker goes to sleep: none stays on the stage until somebody comes by.
func TestStageWakes(t *testing.T) {
	const events = 20000
	done := make(chan struct{}, 1)
	c := defaultEndpoint()
	c.PoolSize = 1
	e := startFake(c, func(*request, time.Time, <-chan struct{}) outcome {
		done <- struct{}{}
		return outcome{status: 200}
	})
	defer e.stop(time.Second)
	stuck := time.NewTimer(time.Minute)
	defer stuck.Stop()
	for n := range events {
		for begin := time.Now(); time.Since(begin) < time.Duration(n%100)*100*time.Nanosecond; { // a little later each time
		}
		stuck.Reset(time.Minute)
		e.queue.offer(publishOf("c", "x"), false)
		select {
		case <-done:
		case <-stuck.C:
			t.Fatalf("event %d of %d was not delivered", n, events)
		}
	}
}

// TestStageConcurrently offers events from many goroutines while workers take
// them and others look: nothing is lost or out of order, and the counters add up
// whenever somebody looks.
func TestStageConcurrently(t *testing.T) {
	const clients, each = 8, 5000
	var mu sync.Mutex
	next := make(map[string]int)
	c := defaultEndpoint()
	c.PoolSize = 4
	c.Queue.Capacity = -1
	e := startFake(c, func(req *request, _ time.Time, _ <-chan struct{}) outcome {
		client, n := "", 0
		_, _ = fmt.Sscanf(payloadOf(req.body), "%s %d", &client, &n)
		mu.Lock()
		defer mu.Unlock()
		if next[client] != n {
			t.Errorf("%s: event %d, want %d", client, n, next[client])
		}
		next[client]++
		return outcome{status: 200}
	})
	var offering sync.WaitGroup
	for i := range clients {
		offering.Go(func() {
			client := fmt.Sprint("c", i)
			for n := range each {
				e.queue.offer(publishOf(client, fmt.Sprint(client, " ", n)), false)
			}
		})
	}
	looking := make(chan struct{})
	go func() { // ends when all is offered
		defer close(looking)
		for e.queue.stats().Offered < clients*each {
			checkSum(t, e.queue.stats())
		}
	}()
	offering.Wait()
	<-looking
	e.stop(time.Minute)
	if s := e.queue.stats(); s.Delivered != clients*each || s.Waiting+s.InFlight != 0 {
		t.Errorf("%+v", s)
	}
}
