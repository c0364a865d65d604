//go:build unix

package webhook

import (
	"log/slog"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestReloadMeetsAPipe puts a pipe that nobody writes to in the place of files that
// are read again: that must be a mistake like others, and not keep a reload for ever.
func TestReloadMeetsAPipe(t *testing.T) {
	for _, name := range []string{"webhook.hcl", "token", "ca.pem"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "webhook.hcl")
			write(t, file, `webhook {
  url = "https://127.0.0.1:1/"
  headers = { X = file("token") }
  tls { cacertfile = "ca.pem" }
}`)
			write(t, filepath.Join(dir, "token"), "one\n")
			write(t, filepath.Join(dir, "ca.pem"), contentOf(t, newTestCA(t, "ca").file))
			h := new(Hook)
			h.Log = slog.New(slog.DiscardHandler)
			if err := h.Init(&Options{File: file, Watch: true, DrainTimeout: -1}); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = h.Stop() }()
			reload := func() error {
				done := make(chan error, 1)
				go func() { done <- h.Reload(nil) }()
				select {
				case err := <-done:
					return err
				case <-time.After(rawTimeout):
					t.Fatal("Reload hangs")
					return nil
				}
			}
			path := filepath.Join(dir, name)
			rename(t, path, path+".old")
			if err := syscall.Mkfifo(path, 0o600); err != nil {
				t.Skip(err)
			}
			if err := reload(); err == nil || !strings.Contains(err.Error(), "not a regular file") {
				t.Errorf("got %v", err)
			}
			rename(t, path+".old", path)
			if err := reload(); err != nil {
				t.Errorf("mended: %v", err)
			}
		})
	}
}
