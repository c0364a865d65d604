//go:build unix

package examples_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
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
