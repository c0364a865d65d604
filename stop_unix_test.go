//go:build unix

package webhook

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestStopWithHangingDeadLetters has a dead letter file that takes nothing, as
// a disk that hangs does: a pipe that nobody reads.
func TestStopWithHangingDeadLetters(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Skip(err)
	}
	h := startHook(t, Options{DrainTimeout: 100 * time.Millisecond, Transport: roundTripFunc(func(r *http.Request) (*http.Response, error) {
		<-r.Context().Done()
		return nil, r.Context().Err()
	})}, func(e *Endpoint) { e.DeadLetter.File = path })
	for i := range 1000 {
		h.emit(publishOf(fmt.Sprint(i), strings.Repeat("x", 1000)))
	}
	begin := time.Now()
	_ = h.Stop()
	if took := time.Since(begin); took > 1100*time.Millisecond {
		t.Errorf("Stop took %v, want at most 1.1s", took)
	}
	statsOf(t, h)
	pipe, err := os.Open(path) // let go
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	_ = pipe.SetReadDeadline(time.Now().Add(time.Second))
	_, _ = io.Copy(io.Discard, pipe)
	statsOf(t, h)
}
