package webhook

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/url"
)

// Secret is text that does not print itself: every common way of formatting
// gives "(redacted)". Convert with string(s) to use it.
type Secret string

const redacted = "(redacted)"

// String returns "(redacted)".
func (Secret) String() string { return redacted }

// GoString returns "(redacted)", for %#v.
func (Secret) GoString() string { return redacted }

// LogValue returns "(redacted)", for log/slog.
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText returns "(redacted)", for JSON and other formats: nothing reads it
// back.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// Format covers the verbs that reach past String, such as %x and %q.
func (Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// shownEndpoint is an Endpoint to print: what a URL has beside the host may be
// secret.
type shownEndpoint Endpoint

func (e Endpoint) shown() shownEndpoint {
	e.URL = shownURL(e.URL)
	return shownEndpoint(e)
}

// shownRule is a Rule to print, for the same reason.
type shownRule Rule

func (r Rule) shown() shownRule {
	r.URL = shownURL(r.URL)
	return shownRule(r)
}

// shownURL is a URL without its user info, path and query.
func shownURL(text string) string {
	if text == "" {
		return ""
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" {
		return redacted
	}
	return u.Scheme + "://" + u.Host + "/…"
}

// Format prints an endpoint without its secrets, of URL the scheme and the host.
func (e Endpoint) Format(f fmt.State, verb rune) {
	fmt.Fprintf(f, fmt.FormatString(f, verb), e.shown())
}

// Format prints a rule as [Endpoint.Format] prints an endpoint.
func (r Rule) Format(f fmt.State, verb rune) {
	fmt.Fprintf(f, fmt.FormatString(f, verb), r.shown())
}

// Format prints a configuration without its secrets. It is there for pointers
// within other values: given a verb that has no meaning for a pointer, fmt would
// print what it points to past all other methods.
func (c Config) Format(f fmt.State, verb rune) {
	type shown Config
	fmt.Fprintf(f, fmt.FormatString(f, verb), shown(c))
}

// MarshalJSON is for printing, like Format: nothing reads it back.
func (e Endpoint) MarshalJSON() ([]byte, error) { return json.Marshal(e.shown()) }

// MarshalJSON is for printing, like Format: nothing reads it back.
func (r Rule) MarshalJSON() ([]byte, error) { return json.Marshal(r.shown()) }
