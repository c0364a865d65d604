package webhook

import (
	"fmt"
	"log/slog"
)

// Secret is text that does not print itself: every common way of formatting
// gives "(redacted)". Convert with string(s) to use it.
type Secret string

const redacted = "(redacted)"

func (Secret) String() string               { return redacted }
func (Secret) GoString() string             { return redacted }
func (Secret) LogValue() slog.Value         { return slog.StringValue(redacted) }
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// Format covers the verbs that reach past String, such as %x and %q.
func (Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }
