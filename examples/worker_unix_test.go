//go:build unix

package examples_test

import (
	"syscall"
	"testing"
	"time"
)

// TestWorkerPaused stops a worker for so long that it loses what it has, and
// lets it go on.
func TestWorkerPaused(t *testing.T) {
	t.Parallel() // it mostly waits
	const clients, each = 20, 150
	receiver := newLanes(t, 20*time.Millisecond)
	config := streamConfig(t, receiver.URL, startNATS(t))
	_, address := listen(t, "broker", "-config", config)
	paused := start(t, "worker", "-config", config)
	paused.stdout.waitLine(t, "delivering from MQTT_WEBHOOKS")
	other := start(t, "worker", "-config", config)
	other.stdout.waitLine(t, "delivering from MQTT_WEBHOOKS")
	flood(t, address, clients, each)
	receiver.awaitWork(clients * each / 4)
	paused.signal(syscall.SIGSTOP)
	receiver.await(t, clients*each)
	paused.signal(syscall.SIGCONT)
	paused.stderr.waitLine(t, "partitions lost")
	receiver.mu.Lock()
	again := receiver.again
	receiver.mu.Unlock()
	if again > clients {
		t.Errorf("%d messages came again, more than one for each client", again)
	}
	paused.end()
	other.signal(syscall.SIGHUP) // as to the broker beside it
	if got := other.wait(); got != 0 {
		t.Errorf("exit status after SIGHUP: got %d, want 0", got)
	}
	other.stderr.waitLine(t, "stopping")
}
