package webhook

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
)

// noSecret fails the test if text, or err in any way it can be printed, holds
// one of secrets.
func noSecret(t *testing.T, err error, text string, secrets ...string) {
	t.Helper()
	var b strings.Builder
	b.WriteString(text)
	if err != nil {
		fmt.Fprintf(&b, "\n%v\n%+v\n%#v\n%q", err, err, err, err)
		if j, jsonErr := json.Marshal(err); jsonErr == nil {
			b.Write(j)
		}
		var diags hcl.Diagnostics
		if errors.As(err, &diags) {
			for _, d := range diags {
				fmt.Fprintf(&b, "\n%+v\n%v", *d, d)
				if d.Expression != nil || d.EvalContext != nil || d.Extra != nil {
					t.Errorf("diagnostic carries an expression, a context or an extra: %v", d)
				}
			}
		}
		if writeErr := WriteDiagnostics(&b, err); writeErr != nil {
			t.Errorf("WriteDiagnostics: %v", writeErr)
		}
	}
	for _, secret := range secrets {
		if strings.Contains(b.String(), secret) {
			t.Errorf("secret %q is in:\n%s", secret, b.String())
		}
	}
}

// TestPrintedURLs prints the URLs of a configuration that resolving leaves in
// place: those of rules before it, and that of a stream.
func TestPrintedURLs(t *testing.T) {
	cfg := &Config{Endpoints: []Endpoint{{
		URL:    "http://hunter2@example.com/hunter2?hunter2",
		Events: []Rule{{Event: OnMessagePublish, URL: "http://u:hunter2@example.org/hunter2", Headers: []Header{{"X-Key", "hunter2"}}}},
		Stream: Stream{URL: "nats://u:hunter2@example.net"},
	}}}
	var out bytes.Buffer
	e := &cfg.Endpoints[0]
	for _, v := range []any{cfg, *cfg, e, *e, e.Stream, e.Events, e.Events[0], &e.Events[0], []*Rule{&e.Events[0]}} {
		fmt.Fprintf(&out, "%v %+v %#v %s %q %x %d\n", v, v, v, v, v, v, v)
		if err := json.NewEncoder(&out).Encode(v); err != nil {
			t.Fatal(err)
		}
		slog.New(slog.NewTextHandler(&out, nil)).Info("", "value", v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("", "value", v)
	}
	noSecret(t, nil, out.String(), "hunter2", hex.EncodeToString([]byte("hunter2")))
	for _, v := range []any{cfg, e, e.Events, e.Events[0]} {
		if text := fmt.Sprint(v); !strings.Contains(text, "http://example.org/…") {
			t.Errorf("the rule's host is not in %s", text)
		}
	}
	if cfg.Endpoints[0].Events[0].URL != "http://u:hunter2@example.org/hunter2" {
		t.Error("printing has changed the configuration")
	}
}

// TestPrintedHook prints a hook, from whose fields fmt calls no method.
func TestPrintedHook(t *testing.T) {
	h := new(Hook)
	err := h.Init(&Options{Config: &Config{Endpoints: []Endpoint{{
		URL:     "http://u:hunter2@127.0.0.1:1/hunter2",
		Headers: []Header{{"X-Key", "hunter2"}},
	}}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Stop(); err != nil {
		t.Error(err)
	}
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&out, verb, h)
	}
	noSecret(t, nil, out.String(), "hunter2", hex.EncodeToString([]byte("hunter2")))
}
