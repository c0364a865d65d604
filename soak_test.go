package webhook

import (
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"testing"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
)

var soakTime = flag.Duration("soak", 3*time.Second, "how long TestSoak publishes at full speed")

// TestSoak publishes at full speed from clients that come and go: what is
// delivered, and who is gone, leaves nothing behind. It compares the heap at the
// end with that after a sixth of the time.
func TestSoak(t *testing.T) {
	receiver := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer receiver.Close()
	h := new(Hook)
	h.SetOpts(slog.New(slog.DiscardHandler), nil)
	err := h.Init(&Options{DrainTimeout: time.Minute, Config: &Config{Endpoints: []Endpoint{{
		URL: receiver.URL, Events: []Rule{{Event: OnMessagePublish}},
		Queue: Queue{Capacity: 1000, Overflow: Block, BlockTimeout: time.Hour},
	}}}})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Stop()
	capabilities := mqtt.NewDefaultServerCapabilities()
	capabilities.MaximumClientWritesPending = 1 // which is most of what a client takes
	server := mqtt.New(&mqtt.Options{Logger: slog.New(slog.DiscardHandler), Capabilities: capabilities})
	pk := hotPacket()
	clients := make([]*mqtt.Client, 1000)
	n, born := 0, 0
	publishFor := func(d time.Duration) {
		for end := time.Now().Add(d); time.Now().Before(end); n++ {
			at := n % len(clients)
			if clients[at] == nil || n%7 == 0 {
				born++
				clients[at] = server.NewClient(nil, "tcp", fmt.Sprintf("client-%d", born), false)
			}
			h.OnPublished(clients[at], pk)
		}
	}
	for publishFor(*soakTime / 6); n < 10*len(clients); publishFor(*soakTime / 6) { // a machine may stand still
	}
	before := heapInUse()
	publishFor(*soakTime - *soakTime/6)
	after := heapInUse()
	t.Logf("%d events of %d clients; heap %d KiB, then %d KiB", n, born, before>>10, after>>10)
	if after > before+before/4+1<<20 {
		t.Errorf("the heap has grown from %d KiB to %d KiB", before>>10, after>>10)
	}
	runtime.KeepAlive(clients)
}
