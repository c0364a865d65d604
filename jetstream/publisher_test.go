package jetstream

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mochi-hooks/webhook/internal/stream"
)

// TestChecked ends looks at a stream: what came of them decides whether events go
// there, and when to look again.
func TestChecked(t *testing.T) {
	passing, wrong := errors.New("no answer"), &stream.Misconfigured{Err: errors.New("max_age")}
	tests := []struct {
		name    string
		was     bool // fine
		doubted bool // since the look began
		err     error
		failed  error
		again   time.Duration // when to look again
		fine    bool
	}{
		{name: "fine", again: checkEvery, fine: true},
		{name: "not there yet", err: passing, failed: passing, again: recheck},
		{name: "it was fine, and now there is no answer", was: true, err: passing, again: recheck, fine: true},
		{name: "it was fine, and is another one now", was: true, err: wrong, failed: wrong, again: recheck},
		{name: "doubted meanwhile", doubted: true, again: checkEvery},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &publisher{fine: tt.was, doubted: tt.doubted, checking: make(chan struct{})}
				if err := p.checked(tt.err, false); err != tt.failed {
					t.Errorf("got %v, want %v", err, tt.failed)
				}
				if again := time.Until(p.checkAt); again != tt.again {
					t.Errorf("looks again after %v, want %v", again, tt.again)
				}
				if p.fine != tt.fine || p.doubted != tt.doubted {
					t.Errorf("fine: %v, want %v; doubted: %v, want %v", p.fine, tt.fine, p.doubted, tt.doubted)
				}
			})
		})
	}

	p := &publisher{fine: true, checking: make(chan struct{})}
	if _ = p.checked(passing, true); !p.doubted || p.failed != nil || !p.fine {
		t.Error("a look that was given up counts as one")
	}
}
