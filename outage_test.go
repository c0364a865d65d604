package webhook

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// fixedOverhead is the memory that a full queue may take beside what its bounds
// allow: lanes and their index, chunks that are not full, buffers of workers.
const fixedOverhead = 8 << 20

// TestOutageMemory keeps an endpoint down for ten minutes while 20,000 clients
// publish at full speed: a queue takes no more memory than it may, and what it
// has kept arrives when the endpoint is back.
func TestOutageMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const outage, perSecond, clients = 10 * time.Minute, 1000, 20000
		c := defaultEndpoint()
		c.Queue.Capacity = -1 // so that the bytes are the bound
		var down atomic.Bool
		down.Store(true)
		heap := func() int64 {
			var m runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&m)
			return int64(m.HeapAlloc)
		}
		before := heap()
		e := startFake(c, func(*request, time.Time, <-chan struct{}) outcome {
			if down.Load() {
				return outcome{verdict: failed, err: errors.New("connection refused")}
			}
			return outcome{status: 200}
		})
		names := make([]string, clients)
		for i := range names {
			names[i] = fmt.Sprint("client-", i)
		}
		payload := strings.Repeat("x", 150)
		var most int64
		n := 0
		for begin := time.Now(); time.Since(begin) < outage; {
			for range perSecond {
				e.queue.offer(publishOf(names[n%clients], payload), false)
				n++
			}
			time.Sleep(time.Second)
			if n%(60*perSecond) == 0 {
				most = max(most, heap()-before)
			}
		}
		synctest.Wait() // a probe is due at the same moment
		s := e.queue.stats()
		checkSum(t, s)
		// What comes back from an attempt finds its place taken.
		inFlight := int64(c.PoolSize) << 10
		if s.WaitingBytes > c.Queue.MaxBytes+inFlight || s.WaitingBytes < c.Queue.MaxBytes*9/10 {
			t.Errorf("%d bytes wait, the bound is %d", s.WaitingBytes, c.Queue.MaxBytes)
		}
		if limit := c.Queue.MaxBytes + fixedOverhead; most > limit {
			t.Errorf("the queue took %d bytes of memory, want at most %d", most, limit)
		}
		t.Logf("%d events offered, %d wait; memory at most %d KiB, bound %d KiB", n, s.Waiting, most>>10, c.Queue.MaxBytes>>10)
		down.Store(false)
		kept := uint64(s.Waiting)
		time.Sleep(time.Minute)
		s = e.queue.stats()
		checkSum(t, s)
		if s.Delivered != kept || s.Waiting != 0 || s.Dead != 0 {
			t.Errorf("%d waited, stats %+v", kept, s)
		}
		e.stop(0)
		if n := e.queue.byKey.used; n != 0 {
			t.Errorf("%d lanes are left", n)
		}
	})
}
