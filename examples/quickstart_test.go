package examples_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func TestQuickstart(t *testing.T) {
	began := time.Now()
	p := start(t, "quickstart")
	if got := p.wait(); got != 0 {
		t.Fatalf("exit status: got %d, want 0", got)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("took %v, want at most 10s", took)
	}

	lines := p.stdout.lines()
	var actions []string
	for _, line := range lines {
		if body, found := strings.CutPrefix(line, "POST /hook "); found {
			var event struct{ Action string }
			if err := json.Unmarshal([]byte(body), &event); err != nil {
				t.Errorf("%q: %v", line, err)
			}
			actions = append(actions, event.Action)
		}
	}
	for _, want := range []string{
		"client_connect", "client_connack", "client_connected", "client_subscribe",
		"message_publish", "message_delivered", "message_acked", "client_disconnected",
	} {
		if !strings.Contains(strings.Join(actions, " ")+" ", want+" ") {
			t.Errorf("no %s among %q", want, actions)
		}
	}
	if all := p.stdout.String(); !strings.Contains(all, "\nwebhook = {\n") || strings.Index(all, "webhook = {") > strings.Index(all, "POST /hook") {
		t.Errorf("the configuration does not come first:\n%s", all)
	}
	const summary = "12 events, 12 requests, 12 delivered, 0 dropped"
	if last := lines[len(lines)-1]; last != summary || len(actions) != 12 {
		t.Errorf("%d requests, then %q, want %q", len(actions), last, summary)
	}
	if got := p.stderr.String(); got != "" {
		t.Errorf("stderr: got %q, want nothing", got)
	}
}
