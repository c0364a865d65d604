package webhook

import (
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

// TestForwardTimeout: how long the receiver may take says nothing about the stream.
func TestForwardTimeout(t *testing.T) {
	for _, timeout := range []time.Duration{time.Millisecond, time.Hour} {
		c := Endpoint{Timeout: timeout, Stream: Stream{URL: "nats://n"}}
		if got := c.sending().Timeout; got != forwardTimeout {
			t.Errorf("%v: a publish has %v, want %v", timeout, got, forwardTimeout)
		}
	}
}
