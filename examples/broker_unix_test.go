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

// A broker stops while a reload waits for a disk that does not answer: the marks of a
// queue's segment are a pipe that nobody writes to.
func TestBrokerStopsWhileItReloads(t *testing.T) {
	e := newEndpoint(t)
	config := configure(t, e.URL, "on_message_publish")
	broker, _ := listen(t, "broker", "-config", config)
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
	text := fmt.Sprintf("webhook %q {\n  url = %q\n  queue { type = \"disk\", dir = %q }\n}\n", "slow", e.URL, queues)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	broker.signal(syscall.SIGHUP)
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if hangs, err := os.OpenFile(segment+".done", os.O_WRONLY|syscall.O_NONBLOCK, 0); err == nil { // somebody reads
			defer hangs.Close()
			break
		}
		if time.Now().After(end) {
			t.Fatal("nobody reads the file")
		}
	}
	broker.end()
}
