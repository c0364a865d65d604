//go:build unix

package examples_test

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// A broker without a file, or with one that can be read only once, goes on when
// it is told to reload.
func TestBrokerHangup(t *testing.T) {
	e := newEndpoint(t)
	close(e.answer)
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = os.WriteFile(pipe, []byte(`webhook { url = "`+e.URL+`", events = [{ event = "on_message_publish" }] }`), 0) // as soon as it is read
	}()
	piped, address := listen(t, "broker", "-config", pipe)
	piped.signal(syscall.SIGHUP)
	publish(t, address, "a", "1")
	e.next(t)
	piped.end()

	go func() {
		_ = os.WriteFile(pipe, []byte(`webhook { url = 5 }`), 0)
	}()
	wrong := start(t, "broker", "-check", "-config", pipe)
	wrong.stderr.waitLine(t, "Wrong type")
	if got := wrong.wait(); got != 1 {
		t.Errorf("exit status: got %d, want 1", got)
	}

	without, _ := listen(t, "broker")
	without.signal(syscall.SIGHUP)
	without.stderr.waitLine(t, "nothing to reload")
	without.end()
}

// A broker stops while a reload waits for a disk that does not answer.
func TestBrokerStopsWhileItReloads(t *testing.T) {
	config := configure(t, "http://127.0.0.1:1/", "on_message_publish")
	broker, _ := listen(t, "broker", "-config", config)
	hanging, hangs := hangingQueue(t)
	if err := os.Rename(hanging, config); err != nil {
		t.Fatal(err)
	}
	broker.signal(syscall.SIGHUP)
	hangs()
	broker.end()
}

// A second signal ends a broker that waits for such a disk itself.
func TestBrokerSecondSignalWhileDiskHangs(t *testing.T) {
	t.Run("start", func(t *testing.T) {
		hanging, hangs := hangingQueue(t)
		broker := start(t, "broker", "-listen", "127.0.0.1:0", "-config", hanging)
		hangs()
		broker.kill()
	})
	t.Run("redeliver", func(t *testing.T) {
		letters := filepath.Join(t.TempDir(), "dead.jsonl")
		if err := syscall.Mkfifo(letters, 0o600); err != nil {
			t.Fatal(err)
		}
		broker := start(t, "broker", "-config", configure(t, "http://127.0.0.1:1/", "on_message_publish"), "-redeliver", letters)
		time.Sleep(200 * time.Millisecond) // until it waits: who asks the pipe whether it is read from wakes the reader
		broker.kill()
	})
}

// hangingQueue writes a configuration with a queue that cannot be opened: the marks
// of a segment are a pipe that nobody writes to. The function waits until somebody
// has begun to.
func hangingQueue(t *testing.T) (config string, hangs func()) {
	t.Helper()
	queues := t.TempDir()
	segment := filepath.Join(queues, "slow", "0000000001-00-0000000000000001")
	if err := os.Mkdir(filepath.Dir(segment), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(segment+".log", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(segment+".done", 0o600); err != nil {
		t.Fatal(err)
	}
	config = write(t, fmt.Sprintf("webhook %q {\n  url = %q\n  queue { type = \"disk\", dir = %q }\n}\n", "slow", "http://127.0.0.1:1/", queues))
	return config, func() {
		t.Helper()
		for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
			if _, err := os.Stat(filepath.Join(queues, "slow", "spool.lock")); err == nil {
				return
			}
			if time.Now().After(end) {
				t.Fatal("nobody opens the queue")
			}
		}
	}
}
