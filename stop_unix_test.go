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

// stopInTime checks that Stop takes at most 1.1 s: in ticks, of which a machine
// that stands still loses one.
func stopInTime(t *testing.T, h *Hook) {
	t.Helper()
	stopped := make(chan struct{})
	go func() {
		_ = h.Stop()
		close(stopped)
	}()
	const tick = 10 * time.Millisecond
	for range 1100 * time.Millisecond / tick {
		select {
		case <-stopped:
			return
		case <-time.After(tick):
		}
	}
	t.Error("Stop takes longer than 1.1s")
	<-stopped
}

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
	stopInTime(t, h)
	statsOf(t, h)
	pipe, err := os.Open(path) // let go
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	_ = pipe.SetReadDeadline(time.Now().Add(rawTimeout))
	_, _ = io.Copy(io.Discard, pipe)
	statsOf(t, h)
}

// TestStopAfterReloadFromHangingDeadLetters stops the hook while a reload waits
// for a dead letter file that takes nothing.
func TestStopAfterReloadFromHangingDeadLetters(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Skip(err)
	}
	h := startHook(t, Options{DrainTimeout: 100 * time.Millisecond, Transport: roundTripFunc(func(*http.Request) (*http.Response, error) {
		return answer(400)
	})}, func(e *Endpoint) { e.DeadLetter.File = path })
	for i := range 200 {
		h.emit(publishOf(fmt.Sprint(i), strings.Repeat("x", 1000)))
	}
	for last := -1; ; { // until the pipe is full
		n := statsOf(t, h).InFlight
		if n > 0 && n == last {
			break
		}
		last = n
		time.Sleep(50 * time.Millisecond)
	}
	reloaded, before := make(chan error), h.active.Load()
	go func() { reloaded <- h.Reload(allPublishes("http://127.0.0.1:1/", nil)) }()
	awaitTrue(t, "the reload is in force", func() bool { return h.active.Load() != before })
	done := make(chan struct{})
	go func() {
		h.Stats()
		stopInTime(t, h)
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(rawTimeout):
		t.Error("Stats or Stop hangs")
	}
	pipe, err := os.Open(path) // let go
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	_ = pipe.SetReadDeadline(time.Now().Add(rawTimeout))
	_, _ = io.Copy(io.Discard, pipe)
	<-done
	if err := <-reloaded; err != nil {
		t.Error(err)
	}
	statsOf(t, h)
}

// TestDeadLettersToAPipe has a dead letter file that is none, like /dev/stderr:
// it is never full, so nothing moves it.
func TestDeadLettersToAPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Skip(err)
	}
	f := openTestLetters(t, DeadLetter{File: path, MaxBytes: 500, Keep: 1})
	for i := range 20 {
		if _, err := f.write(&deadLetter{ID: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().IsRegular() {
		t.Errorf("%s is %v, %v, want the pipe", path, info.Mode(), err)
	}
	if _, err := os.Stat(path + ".1"); err == nil {
		t.Error("the pipe was moved")
	}
}

// TestStopWithHangingDisk has a disk queue whose next segment is a pipe that nobody
// reads: what is to be in it is not said to stay on disk.
func TestStopWithHangingDisk(t *testing.T) {
	dir := t.TempDir()
	var log logLines
	cfg := diskConfig(dir, func(e *Endpoint) { e.Queue.MaxBytes = 1 << 20 })
	h := startDisk(t, cfg, Options{Transport: unreachable, DrainTimeout: -1}, log.logger())
	h.emit(publishOf("c", "x"))
	if err := h.active.Load().endpoints[0].disk.spool.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	segments, _ := filepath.Glob(filepath.Join(dir, "audit", "*.log"))
	if len(segments) != 1 {
		t.Fatalf("segments %q, want one", segments)
	}
	pipe := strings.Replace(segments[0], "0000000001-", "0000000002-", 1)
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Skip(err)
	}
	const n = 30 // more than the first segment takes
	for i := range n {
		h.emit(publishOf(fmt.Sprint(i), strings.Repeat("x", 4000)))
	}
	stopInTime(t, h)
	var unsynced, stay int
	for line := range strings.Lines(log.String()) {
		if _, after, ok := strings.Cut(line, "what=disk unsynced="); ok {
			_, _ = fmt.Sscan(after, &unsynced)
		}
		if _, after, ok := strings.Cut(line, `msg="events stay on disk" endpoint=audit count=`); ok {
			_, _ = fmt.Sscan(after, &stay)
		}
	}
	if unsynced < n/2 || stay+unsynced != 1+n {
		t.Errorf("%d unsynced, %d stay on disk, of %d:\n%s", unsynced, stay, 1+n, log.String())
	}
	reader, err := os.Open(pipe) // let go
	if err != nil {
		t.Fatal(err)
	}
	reader.Close()
}
