// Package prometheus exports the counters of a webhook hook to Prometheus:
//
//	hook := new(webhook.Hook)
//	prometheus.MustRegister(whprometheus.NewCollector(hook))
//
// The README of the module has a table of the metrics, whose names begin with
// mochi_webhook_. The folder of the package also has a Grafana dashboard
// (dashboard.json) and alert rules (alerts.yml) over them.
package prometheus

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/mochi-hooks/webhook"
)

// A Source has the counters: a [webhook.Hook], for example.
type Source interface {
	Stats() webhook.Stats
}

// NewCollector returns a collector of the metrics of all endpoints of source.
// It may be registered before the hook is initialised. Each scrape takes one
// snapshot, in which the metrics of an endpoint agree with each other. Several
// hooks in one process need a label each that tells them apart, with
// [prometheus.WrapRegistererWith].
//
// All labels are from closed sets: endpoint is a name in the configuration,
// event one of the twelve events, "unknown" for a damaged record of a durable
// queue; outcome is "delivered", "dead", "dropped" or "forwarded", reason one
// of [webhook.DropReasons], and code the class of an HTTP status, such as
// "2xx", or "error" for an attempt that got none.
func NewCollector(source Source) prometheus.Collector {
	return collector{source}
}

type collector struct{ source Source }

var descs []*prometheus.Desc

// metric describes a metric that has the label endpoint and the given ones.
func metric(name, help string, labels ...string) *prometheus.Desc {
	d := prometheus.NewDesc("mochi_webhook_"+name, help, append([]string{"endpoint"}, labels...), nil)
	descs = append(descs, d)
	return d
}

var (
	offered = metric("offered_total",
		"Events that a rule of the endpoint selected.", "event")
	recovered = metric("recovered_total",
		"Events that the start found in the durable queue.")
	events = metric("events_total",
		"Events that have ended: delivered (answered with 2xx), dead (refused or given up), dropped, or forwarded to other workers.", "event", "outcome")
	dropped = metric("dropped_total",
		"Events that were dropped, by reason.", "reason")
	attempts = metric("attempts_total",
		"Attempts by the class of their HTTP status, error for those without; a broker's publishes into a stream count as 2xx or error.", "code")
	retries = metric("retries_total",
		"Events that went back to wait for another attempt, each time; a batch is as many as it has.")
	duration = metric("attempt_duration_seconds",
		"How long attempts that got an HTTP status took, and a broker's publishes into a stream.")
	lostLetters = metric("lost_letters_total",
		"Dead events that are not in the dead letter file: it did not take them, or their record is damaged.")
	syncLate = metric("sync_late_total",
		"Publishes that were acknowledged before their event was on disk.")
	queueEvents = metric("queue_events",
		"Events that wait, those in backoff included.")
	queueBytes = metric("queue_bytes",
		"Bytes that waiting events take in memory or on disk.")
	inFlight = metric("in_flight_events",
		"Events of attempts that are under way, and those that are just being written as dead letters.")
	oldest = metric("oldest_event_age_seconds",
		"Age of the oldest waiting event, 0 if none waits or the endpoint was removed.")
	breaker = metric("breaker_open",
		"1 while the endpoint has failed so often that it is only probed, else 0.")
)

func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range descs {
		ch <- d
	}
}

func (c collector) Collect(ch chan<- prometheus.Metric) {
	for name, s := range c.source.Stats().Endpoints {
		collect(ch, name, &s)
	}
}

// collect sends the metrics of one endpoint. Those that are 0 are sent too, so
// that the first time that something happens is an increase.
func collect(ch chan<- prometheus.Metric, endpoint string, s *webhook.EndpointStats) {
	send := func(d *prometheus.Desc, t prometheus.ValueType, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, t, value, append([]string{endpoint}, labels...)...)
	}
	count := func(d *prometheus.Desc, n uint64, labels ...string) {
		send(d, prometheus.CounterValue, float64(n), labels...)
	}
	gauge := func(d *prometheus.Desc, value float64) {
		send(d, prometheus.GaugeValue, value)
	}

	for name, n := range s.Events {
		event := string(name)
		if event == "" {
			event = "unknown"
		}
		count(offered, n.Offered, event)
		count(events, n.Delivered, event, "delivered")
		count(events, n.Dead, event, "dead")
		count(events, n.Dropped, event, "dropped")
		count(events, n.Forwarded, event, "forwarded")
	}
	for _, reason := range webhook.DropReasons() {
		count(dropped, s.Dropped[reason], reason)
	}
	count(recovered, s.Recovered)
	count(retries, s.Retried)
	count(syncLate, s.SyncLate)
	count(lostLetters, s.LostLetters)

	count(attempts, s.Attempts.Status2xx, "2xx")
	count(attempts, s.Attempts.Status3xx, "3xx")
	count(attempts, s.Attempts.Status4xx, "4xx")
	count(attempts, s.Attempts.Status5xx, "5xx")
	count(attempts, s.Attempts.Error, "error")
	buckets := make(map[float64]uint64, len(s.Durations.Buckets))
	for _, b := range s.Durations.Buckets {
		buckets[b.AtMost.Seconds()] = b.Count
	}
	ch <- prometheus.MustNewConstHistogram(duration, s.Durations.Count, s.Durations.Sum.Seconds(), buckets, endpoint)

	gauge(queueEvents, float64(s.Waiting))
	gauge(queueBytes, float64(s.WaitingBytes))
	gauge(inFlight, float64(s.InFlight))
	gauge(oldest, float64(s.OldestWaitingMS)/1000)
	open := 0.0
	if s.Breaker == "open" {
		open = 1
	}
	gauge(breaker, open)
}
