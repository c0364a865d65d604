package examples_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// get returns the status and the body of a page of the broker.
func get(t *testing.T, url string) (int, string) {
	t.Helper()
	reply, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer reply.Body.Close()
	body, err := io.ReadAll(reply.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply.StatusCode, string(body)
}

// urlOf returns where the broker says that it serves a page.
func urlOf(t *testing.T, broker *process, page string) string {
	t.Helper()
	_, url, _ := strings.Cut(broker.stderr.waitLine(t, `msg="serving `+page+`"`), "url=")
	return url
}

func TestBrokerMetrics(t *testing.T) {
	e := newEndpoint(t)
	close(e.answer)
	broker, address := listen(t, "broker", "-metrics", "127.0.0.1:0", "-config", configure(t, e.URL, "on_message_publish"))
	publish(t, address, "a", "1", "2")
	e.next(t)
	e.next(t)
	url := urlOf(t, broker, "metrics")
	status, text := get(t, url)
	for _, want := range []string{
		`mochi_webhook_offered_total{endpoint="default",event="on_message_publish"} 2`,
		`mochi_webhook_breaker_open{endpoint="default"} 0`,
		`mochi_webhook_dropped_total{endpoint="default",reason="queue_full"} 0`,
		`mochi_webhook_attempt_duration_seconds_bucket{endpoint="default",le="0.1"} `,
		"go_goroutines ",
		"process_start_time_seconds ",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("want %s in\n%s", want, text)
		}
	}
	if status != http.StatusOK {
		t.Errorf("status: got %d, want 200", status)
	}
	if status, _ := get(t, strings.TrimSuffix(url, "/metrics")+"/stats"); status != http.StatusNotFound {
		t.Errorf("/stats without -stats: got %d, want 404", status)
	}
	broker.end()
}

// One address serves both, or one each.
func TestBrokerMetricsAndStats(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "localhost:0"} {
		broker, _ := listen(t, "broker", "-metrics", "127.0.0.1:0", "-stats", address)
		stats, metrics := urlOf(t, broker, "stats"), urlOf(t, broker, "metrics")
		same := strings.TrimSuffix(stats, "/stats") == strings.TrimSuffix(metrics, "/metrics")
		if want := address == "127.0.0.1:0"; same != want {
			t.Errorf("-stats %s beside -metrics 127.0.0.1:0: got %s and %s", address, stats, metrics)
		}
		for _, url := range []string{stats, metrics} {
			if status, text := get(t, url); status != http.StatusOK {
				t.Errorf("%s: got %d, want 200:\n%s", url, status, text)
			}
		}
		broker.end()
		if log := broker.stderr.String(); strings.Contains(log, "level=ERROR") {
			t.Errorf("a clean stop:\n%s", log)
		}
	}
}

func TestBrokerHealth(t *testing.T) {
	t.Run("without config", func(t *testing.T) {
		broker, _ := listen(t, "broker", "-stats", "127.0.0.1:0")
		url := strings.TrimSuffix(urlOf(t, broker, "stats"), "/stats") + "/health"
		if status, text := get(t, url); status != http.StatusOK || text != "ok\n" {
			t.Errorf("got %d %q, want 200 ok", status, text)
		}
		broker.end()
	})
	t.Run("failing endpoint", func(t *testing.T) {
		receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusUnauthorized)
		}))
		t.Cleanup(receiver.Close)
		config := write(t, `webhook { url = "`+receiver.URL+`", breaker.failures = 1, events = [{ event = "on_message_publish" }] }`)
		broker, address := listen(t, "broker", "-metrics", "127.0.0.1:0", "-drain", "0", "-config", config)
		url := strings.TrimSuffix(urlOf(t, broker, "metrics"), "/metrics") + "/health"
		if status, text := get(t, url); status != http.StatusOK || text != "ok\n" {
			t.Errorf("before any event: got %d %q, want 200 ok", status, text)
		}
		publish(t, address, "a", "1")
		broker.stderr.waitLine(t, "breaker open")
		if status, text := get(t, url); status != http.StatusServiceUnavailable || !strings.Contains(text, `endpoint "default": breaker open: status 401`) {
			t.Errorf("with an open breaker: got %d %q, want 503 that names the endpoint", status, text)
		}
		broker.end()
	})
}
