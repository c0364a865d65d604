package webhook

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"
)

// A logLines keeps what is logged, for a test to look at or to wait for.
type logLines struct {
	mu      sync.Mutex
	changed sync.Cond
	text    bytes.Buffer
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.changed.Broadcast()
	return l.text.Write(p)
}

func (l *logLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *logLines) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// await waits until the log has text n times.
func (l *logLines) await(t *testing.T, text string, n int) {
	t.Helper()
	late := time.AfterFunc(rawTimeout, func() { panic(fmt.Sprintf("no %q in the log:\n%s", text, l)) })
	defer late.Stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.changed.L = &l.mu; strings.Count(l.text.String(), text) < n; {
		l.changed.Wait()
	}
}
