package prometheus

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/mochi-hooks/webhook"
)

type source webhook.Stats

func (s source) Stats() webhook.Stats { return webhook.Stats(s) }

// full has another value for everything there is to count.
func full() source {
	return source{Endpoints: map[string]webhook.EndpointStats{"orders": {
		Offered: 100, Recovered: 7, Delivered: 80, Dead: 3, Dropped: map[string]uint64{"queue_full": 4, "corrupt": 1}, Forwarded: 5,
		Waiting: 11, WaitingBytes: 2140, InFlight: 3,
		Attempts: webhook.Attempts{Status2xx: 80, Status3xx: 1, Status4xx: 2, Status5xx: 41, Error: 6}, Retried: 48, SyncLate: 9, LostLetters: 2,
		Breaker: "open", OldestWaitingMS: 1250,
		Durations: webhook.Durations{
			Buckets: []webhook.DurationBucket{{AtMost: time.Millisecond, Count: 20}, {AtMost: 2500 * time.Millisecond, Count: 120}},
			Count:   124, Sum: 61500 * time.Millisecond,
		},
		Events: map[webhook.EventName]webhook.EventCounts{
			webhook.OnMessagePublish:  {Offered: 90, Delivered: 72, Dead: 3, Dropped: 4, Forwarded: 5},
			webhook.OnClientConnected: {Offered: 10, Delivered: 8},
			"":                        {Dropped: 1},
		},
	}}}
}

func TestCollector(t *testing.T) {
	const want = `
# HELP mochi_webhook_attempt_duration_seconds How long attempts that got an HTTP status took, and a broker's publishes into a stream.
# TYPE mochi_webhook_attempt_duration_seconds histogram
mochi_webhook_attempt_duration_seconds_bucket{endpoint="orders",le="0.001"} 20
mochi_webhook_attempt_duration_seconds_bucket{endpoint="orders",le="2.5"} 120
mochi_webhook_attempt_duration_seconds_bucket{endpoint="orders",le="+Inf"} 124
mochi_webhook_attempt_duration_seconds_sum{endpoint="orders"} 61.5
mochi_webhook_attempt_duration_seconds_count{endpoint="orders"} 124
# HELP mochi_webhook_attempts_total Attempts by the class of their HTTP status, error for those without; a broker's publishes into a stream count as 2xx or error.
# TYPE mochi_webhook_attempts_total counter
mochi_webhook_attempts_total{code="2xx",endpoint="orders"} 80
mochi_webhook_attempts_total{code="3xx",endpoint="orders"} 1
mochi_webhook_attempts_total{code="4xx",endpoint="orders"} 2
mochi_webhook_attempts_total{code="5xx",endpoint="orders"} 41
mochi_webhook_attempts_total{code="error",endpoint="orders"} 6
# HELP mochi_webhook_breaker_open 1 while the endpoint has failed so often that it is only probed, else 0.
# TYPE mochi_webhook_breaker_open gauge
mochi_webhook_breaker_open{endpoint="orders"} 1
# HELP mochi_webhook_events_total Events that have ended: delivered (answered with 2xx), dead (refused or given up), dropped, or forwarded to other workers.
# TYPE mochi_webhook_events_total counter
mochi_webhook_events_total{endpoint="orders",event="on_client_connected",outcome="dead"} 0
mochi_webhook_events_total{endpoint="orders",event="on_client_connected",outcome="delivered"} 8
mochi_webhook_events_total{endpoint="orders",event="on_client_connected",outcome="dropped"} 0
mochi_webhook_events_total{endpoint="orders",event="on_client_connected",outcome="forwarded"} 0
mochi_webhook_events_total{endpoint="orders",event="on_message_publish",outcome="dead"} 3
mochi_webhook_events_total{endpoint="orders",event="on_message_publish",outcome="delivered"} 72
mochi_webhook_events_total{endpoint="orders",event="on_message_publish",outcome="dropped"} 4
mochi_webhook_events_total{endpoint="orders",event="on_message_publish",outcome="forwarded"} 5
mochi_webhook_events_total{endpoint="orders",event="unknown",outcome="dead"} 0
mochi_webhook_events_total{endpoint="orders",event="unknown",outcome="delivered"} 0
mochi_webhook_events_total{endpoint="orders",event="unknown",outcome="dropped"} 1
mochi_webhook_events_total{endpoint="orders",event="unknown",outcome="forwarded"} 0
# HELP mochi_webhook_in_flight_events Events of attempts that are under way, and those that are just being written as dead letters.
# TYPE mochi_webhook_in_flight_events gauge
mochi_webhook_in_flight_events{endpoint="orders"} 3
# HELP mochi_webhook_lost_letters_total Dead events that are not in the dead letter file: it did not take them, or their record is damaged.
# TYPE mochi_webhook_lost_letters_total counter
mochi_webhook_lost_letters_total{endpoint="orders"} 2
# HELP mochi_webhook_offered_total Events that a rule of the endpoint selected.
# TYPE mochi_webhook_offered_total counter
mochi_webhook_offered_total{endpoint="orders",event="on_client_connected"} 10
mochi_webhook_offered_total{endpoint="orders",event="on_message_publish"} 90
mochi_webhook_offered_total{endpoint="orders",event="unknown"} 0
# HELP mochi_webhook_oldest_event_age_seconds Age of the oldest waiting event, 0 if none waits or the endpoint was removed.
# TYPE mochi_webhook_oldest_event_age_seconds gauge
mochi_webhook_oldest_event_age_seconds{endpoint="orders"} 1.25
# HELP mochi_webhook_queue_bytes Bytes that waiting events take in memory or on disk.
# TYPE mochi_webhook_queue_bytes gauge
mochi_webhook_queue_bytes{endpoint="orders"} 2140
# HELP mochi_webhook_queue_events Events that wait, those in backoff included.
# TYPE mochi_webhook_queue_events gauge
mochi_webhook_queue_events{endpoint="orders"} 11
# HELP mochi_webhook_recovered_total Events that the start found in the durable queue.
# TYPE mochi_webhook_recovered_total counter
mochi_webhook_recovered_total{endpoint="orders"} 7
# HELP mochi_webhook_retries_total Events that went back to wait for another attempt, each time; a batch is as many as it has.
# TYPE mochi_webhook_retries_total counter
mochi_webhook_retries_total{endpoint="orders"} 48
# HELP mochi_webhook_sync_late_total Publishes that were acknowledged before their event was on disk.
# TYPE mochi_webhook_sync_late_total counter
mochi_webhook_sync_late_total{endpoint="orders"} 9
`
	var drops strings.Builder
	drops.WriteString("# HELP mochi_webhook_dropped_total Events that were dropped, by reason.\n# TYPE mochi_webhook_dropped_total counter\n")
	counts := map[string]int{"queue_full": 4, "corrupt": 1}
	for _, reason := range webhook.DropReasons() {
		fmt.Fprintf(&drops, "mochi_webhook_dropped_total{endpoint=\"orders\",reason=%q} %d\n", reason, counts[reason])
	}
	if err := testutil.CollectAndCompare(NewCollector(full()), strings.NewReader(want+drops.String())); err != nil {
		t.Error(err)
	}
}

func TestLint(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(NewCollector(full()))
	problems, err := testutil.GatherAndLint(registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// A hook may be registered at any time, and two beside each other.
func TestRegister(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	for _, broker := range []string{"a", "b"} {
		prometheus.WrapRegistererWith(prometheus.Labels{"broker": broker}, registry).MustRegister(NewCollector(new(webhook.Hook)))
	}
	if n, err := testutil.GatherAndCount(registry); n != 0 || err != nil {
		t.Errorf("before Init: got %d metrics, %v; want none", n, err)
	}

	hook := new(webhook.Hook)
	registry = prometheus.NewPedanticRegistry()
	registry.MustRegister(NewCollector(hook))
	err := hook.Init(&webhook.Options{DrainTimeout: -1, Config: &webhook.Config{Endpoints: []webhook.Endpoint{
		{Name: "one", URL: "http://127.0.0.1:1/", Events: []webhook.Rule{{Event: webhook.OnMessageAcked}}},
		{Name: "two", URL: "http://127.0.0.1:1/"},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	defer hook.Stop()
	for name, want := range map[string]int{
		"mochi_webhook_events_total":             4, // one event of endpoint one
		"mochi_webhook_offered_total":            1,
		"mochi_webhook_dropped_total":            2 * len(webhook.DropReasons()),
		"mochi_webhook_attempts_total":           2 * 5,
		"mochi_webhook_attempt_duration_seconds": 2,
		"mochi_webhook_queue_events":             2,
	} {
		if n, err := testutil.GatherAndCount(registry, name); n != want || err != nil {
			t.Errorf("%s: got %d, %v; want %d", name, n, err, want)
		}
	}
}

var fqName = regexp.MustCompile(`fqName: "([^"]*)"`)

// metricNames are the names of all metrics.
func metricNames(t *testing.T) (names []string) {
	t.Helper()
	ch := make(chan *prometheus.Desc, 100)
	NewCollector(full()).Describe(ch)
	close(ch)
	for d := range ch {
		m := fqName.FindStringSubmatch(d.String())
		if m == nil {
			t.Fatalf("no name in %s", d)
		}
		names = append(names, m[1])
	}
	return names
}
