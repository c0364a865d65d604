package webhook

import (
	"encoding/json"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestDurations(t *testing.T) {
	var h histogram
	var all []time.Duration
	for _, bound := range roundBounds {
		all = append(all, bound-1, bound, bound+1)
	}
	all = append(all, 0, time.Hour)
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		all = append(all, time.Duration(rnd.Int64N(int64(time.Minute))))
	}
	var sum time.Duration
	for _, d := range all {
		h.add(d)
		sum += d
	}
	got := h.durations()
	if got.Count != uint64(len(all)) || got.Sum != sum {
		t.Errorf("got %d attempts of %v together, want %d of %v", got.Count, got.Sum, len(all), sum)
	}
	for i, b := range got.Buckets {
		var want uint64
		for _, d := range all {
			if d <= b.AtMost {
				want++
			}
		}
		if b.Count != want {
			t.Errorf("bucket %v: got %d, want %d", b.AtMost, b.Count, want)
		}
		if i > 0 && b.AtMost <= got.Buckets[i-1].AtMost {
			t.Errorf("bucket %v comes after %v", b.AtMost, got.Buckets[i-1].AtMost)
		}
	}
}

func TestPercentiles(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	var h histogram
	var all []time.Duration
	for range 10_000 {
		d := time.Duration(rnd.ExpFloat64() * float64(20*time.Millisecond))
		h.add(d)
		all = append(all, d)
	}
	slices.Sort(all)
	for _, q := range []float64{0.5, 0.9, 0.99} {
		exact := all[int(q*float64(len(all)))]
		got := h.quantile(q)
		if got < exact-time.Microsecond || got > exact+exact/16+time.Microsecond {
			t.Errorf("quantile %v: got %v, want %v or up to a sixteenth more", q, got, exact)
		}
	}
	if got, want := h.quantile(1), all[len(all)-1]; got != want {
		t.Errorf("maximum: got %v, want %v", got, want)
	}
}

// Events are counted under their own name, whatever becomes of them, in a
// queue of each kind.
func TestEventCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := defaultEndpoint()
		c.Events = []Rule{{Event: OnMessagePublish}, {Event: OnClientConnack}, {Event: OnSessionTerminated}}
		c.Queue.Capacity = 2
		c.PoolSize = 1
		answers := make(chan outcome)
		e := startFake(c, func(_ *request, _ time.Time, stopped <-chan struct{}) outcome {
			select {
			case out := <-answers:
				return out
			case <-stopped:
				return canceledOutcome()
			}
		})
		of := func(k kind, client string) *event {
			ev := publishOf(client, "")
			ev.kind, ev.client = k, client
			return ev
		}
		offer := func(k kind, client string) {
			e.queue.offer(of(k, client), false)
			synctest.Wait()
		}
		offer(kindPublish, "a")
		answers <- outcome{verdict: delivered, status: 204}
		offer(kindConnack, "a")
		answers <- outcome{verdict: refused, status: 400}
		offer(kindAcked, "a") // no rule names it, but it was offered all the same
		answers <- outcome{verdict: delivered, status: 200}
		synctest.Wait()

		offer(kindPublish, "b") // in flight
		offer(kindConnack, "c")
		offer(kindConnack, "d")
		offer(kindPublish, "e") // the connack of c gives way
		e.queue.reject(kindAcked, dropUnknownTopic)
		e.stop(0) // three that wait or are in flight
		s := e.queue.stats()
		checkSum(t, s)
		want := map[EventName]EventCounts{
			OnMessagePublish:    {Offered: 3, Delivered: 1, Dropped: 2},
			OnClientConnack:     {Offered: 3, Dead: 1, Dropped: 2},
			OnMessageAcked:      {Offered: 2, Delivered: 1, Dropped: 1},
			OnSessionTerminated: {},
		}
		if !maps.Equal(s.Events, want) {
			t.Errorf("got %+v\nwant %+v\nin %+v", s.Events, want, s)
		}
	})
}

// The kind of an entry and its flags share a byte.
func TestEntryKind(t *testing.T) {
	for k := kindConnect; k < kindEnd; k++ {
		e := entry{flags: entryFlags(k) << entryKind}
		for _, flag := range []entryFlags{entryInFlight, entryPassed, entryRefused} {
			e.flags |= flag
		}
		if got := e.kind(); got != k {
			t.Errorf("kind %d with all flags: got %d", k, got)
		}
		e.flags &^= entryInFlight | entryPassed | entryRefused
		if got := e.kind(); got != k {
			t.Errorf("kind %d with no flag left: got %d", k, got)
		}
	}
}

// The JSON is what other programs read: it has these keys and no others.
func TestStatsJSON(t *testing.T) {
	q := newQueue(limits{})
	text, err := json.Marshal(Stats{Endpoints: map[string]EndpointStats{"default": q.stats()}})
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"endpoints":{"default":{"offered":0,"recovered":0,"delivered":0,"dead":0,"dropped":{},"forwarded":0,` +
		`"waiting":0,"waiting_bytes":0,"in_flight":0,"attempts":{"2xx":0,"3xx":0,"4xx":0,"5xx":0,"error":0},"retried":0,` +
		`"breaker":"closed","oldest_waiting_ms":0,"latency_ms":{"p50":0,"p90":0,"p99":0,"max":0}}}}`
	if string(text) != want {
		t.Errorf("got  %s\nwant %s", text, want)
	}
}

func TestDropReasons(t *testing.T) {
	reasons := DropReasons()
	if len(reasons) != int(dropReasons)-1 || slices.Contains(reasons, "") {
		t.Errorf("got %q, want a name for each of %d reasons", reasons, dropReasons-1)
	}
	reasons[0] = "changed"
	if strings.Join(DropReasons(), " ") == strings.Join(reasons, " ") {
		t.Error("the caller's slice is the package's own")
	}
}
