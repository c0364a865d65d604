package webhook

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

// TestEngineMissing says what to import.
func TestEngineMissing(t *testing.T) {
	cfg := &Config{Endpoints: []Endpoint{{URL: "http://127.0.0.1:1/", Stream: Stream{URL: "nats://127.0.0.1:1"}}}}
	const want = `import _ "github.com/mochi-hooks/webhook/jetstream"`
	if err := new(Hook).Init(&Options{Config: cfg}); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("Init: got %v, want %s", err, want)
	}
	if err := Deliver(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("Deliver: got %v, want %s", err, want)
	}
}

// TestPartition keeps lanes where they are: brokers and workers of all versions
// have to agree.
func TestPartition(t *testing.T) {
	for _, tt := range []struct {
		name string
		ev   event
		want int
	}{
		{"publisher", event{kind: kindPublish, from: "sensor-1", client: "x"}, 15},
		{"client", event{kind: kindConnected, client: "sensor-1"}, 15},
		{"receiver", event{kind: kindDelivered, from: "x", client: "sensor-1"}, 15},
		{"topic", event{kind: kindPublish, lane: laneTopic, from: "inline", topic: "sensor-1"}, 4},
		{"connection", event{kind: kindConnack, lane: laneConn, conn: 7, client: "sensor-1"}, 54},
		{"no name", event{kind: kindPublish}, 31},
	} {
		if got := tt.ev.partition(64, true); got != tt.want {
			t.Errorf("%s: got %d, want %d", tt.name, got, tt.want)
		}
	}
	seen := make(map[int]int)
	ev := event{kind: kindPublish, from: "sensor-1"}
	for range 6400 {
		seen[ev.partition(64, false)]++
	}
	for n := range 64 {
		if seen[n] < 20 {
			t.Errorf("without order, partition %d of 64 has %d events of 6400", n, seen[n])
		}
	}
}

// TestSending: how long the receiver may take, how much of it and how often, says
// nothing about the stream.
func TestSending(t *testing.T) {
	config := func(e Endpoint) Endpoint {
		e.URL, e.Stream = "http://127.0.0.1/", Stream{URL: "nats://n"}
		c, err := (&Config{Endpoints: []Endpoint{e}}).resolve()
		if err != nil {
			t.Fatal(err)
		}
		return *c.Endpoints[0].sending()
	}
	plain := config(Endpoint{})
	for name, e := range map[string]Endpoint{
		"a short timeout": {Timeout: time.Millisecond},
		"a long timeout":  {Timeout: time.Hour},
		"batches":         {Batch: Batch{MaxEvents: 10}},
		"compression":     {Compression: Gzip},
		"a rate limit":    {RateLimit: RateLimit{PerSecond: 1}},
		"a breaker":       {Breaker: Breaker{Failures: 1, Cooldown: time.Hour}},
		"a backoff":       {Retry: Retry{MinBackoff: time.Minute, MaxBackoff: time.Hour}},
		"a small pool":    {PoolSize: 1},
	} {
		if got := config(e); !reflect.DeepEqual(got, plain) {
			t.Errorf("%s: got %+v, want %+v", name, got, plain)
		}
	}
	if plain.Timeout != forwardTimeout || plain.PoolSize != forwarders {
		t.Errorf("%d publishes at a time, each has %v; want %d and %v", plain.PoolSize, plain.Timeout, forwarders, forwardTimeout)
	}
}
