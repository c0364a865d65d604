package webhook

import (
	"strings"
	"testing"
)

// TestDeadLetterHeaders checks that the header lines of a request survive in a
// dead letter, and that an edited file cannot make others.
func TestDeadLetterHeaders(t *testing.T) {
	const lines = "ce-id: 1\r\nce-subject: a:%20b\r\n"
	var l deadLetter
	l.setHeaders([]byte(lines))
	if got, err := l.header(); got != lines || err != nil {
		t.Errorf("got %q, %v, want %q", got, err, lines)
	}
	for name, value := range map[string]string{"a: b": "c", "x": "y\r\nz: 1", "content-length": "5", "": "x"} {
		l.Headers = map[string]string{name: value}
		if got, err := l.header(); err == nil || strings.Contains(err.Error(), value) {
			t.Errorf("header %q: %q is sent as %q, %v", name, value, got, err)
		}
	}
}
