//go:build unix

package examples_test

import (
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

// A broker stops while it waits for a file that does not answer.
func TestBrokerStopsWhileItReloads(t *testing.T) {
	e := newEndpoint(t)
	config := configure(t, e.URL, "on_message_publish")
	broker, _ := listen(t, "broker", "-config", config)
	if err := os.Remove(config); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(config, 0o600); err != nil {
		t.Fatal(err)
	}
	broker.signal(syscall.SIGHUP)
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if hangs, err := os.OpenFile(config, os.O_WRONLY|syscall.O_NONBLOCK, 0); err == nil { // somebody reads
			defer hangs.Close()
			break
		}
		if time.Now().After(end) {
			t.Fatal("nobody reads the file")
		}
	}
	broker.end()
}
