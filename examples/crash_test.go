package examples_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/paho"
)

var crashRounds = flag.Int("crash.rounds", 4, "how often TestBrokerKilled kills a broker")

// TestBrokerKilled kills a broker under load, again and again, and lets the last
// one deliver: every message that a publisher got an acknowledgement for, of QoS
// 1 or 2, arrives, those of a publisher in their order, and one that arrives
// twice has the same id both times.
func TestBrokerKilled(t *testing.T) {
	var mu sync.Mutex
	ids := make(map[string]map[string]bool) // by payload
	repeated := 0
	accepted := make(map[string]bool)
	last := make(map[int][2]int) // by publisher, the round and the number of the last that was accepted for the first time
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var event struct{ Payload string }
		body, _ := io.ReadAll(r.Body)
		if err := json.Unmarshal(body, &event); err != nil {
			return // cut off by the kill
		}
		mu.Lock()
		defer mu.Unlock()
		if ids[event.Payload] == nil {
			ids[event.Payload] = make(map[string]bool)
		} else {
			repeated++
		}
		ids[event.Payload][r.Header.Get("webhook-id")] = true
		if rand.IntN(4) == 0 {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		if accepted[event.Payload] {
			return
		}
		accepted[event.Payload] = true
		var round, p, n int
		if _, err := fmt.Sscanf(event.Payload, "%d-%d-%d", &round, &p, &n); err != nil {
			t.Error(err)
		}
		if at := [2]int{round, n}; notAfter(at, last[p]) {
			t.Errorf("publisher %d: %v came after %v", p, at, last[p])
		} else {
			last[p] = at
		}
	}))
	defer receiver.Close()
	config := write(t, fmt.Sprintf("webhook {\n  url = %q\n  events = [{ event = \"on_message_publish\" }]\n"+
		"  retry { min_backoff = \"1ms\", max_backoff = \"50ms\" }\n  breaker { failures = -1 }\n"+
		"  queue { type = \"disk\", dir = %q, sync = \"always\", block_timeout = \"60s\" }\n}\n",
		receiver.URL, filepath.Join(t.TempDir(), "queue")))

	acked := make(map[string]bool)
	const publishers = 8
	for round := range *crashRounds {
		broker, address := listen(t, "broker", "-config", config)
		var wg sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		for p := range publishers {
			client, err := connect(t, address, fmt.Sprint("p", p), "", "")
			if err != nil {
				t.Fatal(err)
			}
			wg.Go(func() {
				for n := 1; ; n++ {
					payload := fmt.Sprintf("%d-%d-%d", round, p, n)
					_, err := client.Publish(ctx, &paho.Publish{Topic: "t", QoS: byte(1 + p%2), Payload: []byte(payload)})
					if err != nil {
						return // the broker is gone
					}
					mu.Lock()
					acked[payload] = true
					mu.Unlock()
				}
			})
		}
		time.Sleep(time.Duration(50+rand.IntN(400)) * time.Millisecond) // any moment
		broker.signal(syscall.SIGKILL)
		broker.wait()
		cancel() // the client does not notice
		wg.Wait()
	}
	broker, _ := listen(t, "broker", "-config", config, "-drain", "30s")
	broker.end()

	lost := 0
	for payload := range acked {
		if len(ids[payload]) == 0 {
			if lost++; lost <= 10 {
				t.Errorf("%s was acknowledged and never arrived", payload)
			}
		}
	}
	for payload, of := range ids {
		if len(of) > 1 {
			t.Errorf("%s has %d ids", payload, len(of))
		}
	}
	t.Logf("%d rounds: %d acknowledged, %d arrived, %d of them again, %d lost", *crashRounds, len(acked), len(ids), repeated, lost)
	if len(acked) == 0 {
		t.Error("nothing was acknowledged")
	}
}

// notAfter reports whether a pair comes before another one, or is the same.
func notAfter(a, b [2]int) bool { return slices.Compare(a[:], b[:]) <= 0 }
