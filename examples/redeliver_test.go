package examples_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestBrokerRedeliver has a receiver refuse events, and sends what the dead
// letter file kept to it again.
func TestBrokerRedeliver(t *testing.T) {
	letters := filepath.Join(t.TempDir(), "dead.jsonl")
	config := func(url string) string {
		return write(t, fmt.Sprintf("webhook %q {\n  url = %q\n  events = [{ event = \"on_message_publish\" }]\n"+
			"  dead_letter { file = %q }\n}\n", "audit", "http://"+url+"/hook", letters))
	}
	refusing, url := listen(t, "receiver", "-status", "422")
	broker, address := listen(t, "broker", "-config", config(url))
	publish(t, address, "a/b", "one", "two")
	refusing.stdout.waitLine(t, `"payload":"two"`)
	broker.end()
	refusing.end()

	receiver, url := listen(t, "receiver")
	fine := config(url)
	p := start(t, "broker", "-config", fine, "-redeliver", letters)
	if got := p.wait(); got != 0 {
		t.Errorf("exit status: got %d, want 0", got)
	}
	if got, want := p.stdout.String(), letters+": 2 events, 2 delivered\n"; got != want {
		t.Errorf("stdout: got %q, want %q", got, want)
	}
	receiver.stdout.waitLine(t, `"payload":"two"`)
	got := receiver.stdout.lines()[1:]
	if len(got) != 2 || !strings.Contains(got[0], `"payload":"one"`) || !strings.Contains(got[1], `"payload":"two"`) {
		t.Errorf("redelivered: %q", got)
	}

	file, err := os.OpenFile(letters, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(file, "{")
	file.Close()
	p = start(t, "broker", "-config", fine, "-redeliver", letters)
	if got := p.wait(); got != 1 || !strings.Contains(p.stderr.String(), "line 3") || !strings.Contains(p.stdout.String(), "2 delivered") {
		t.Errorf("with a broken line: exit status %d, stdout %q, stderr %q", got, p.stdout, p.stderr)
	}
	p = start(t, "broker", "-config", fine, "-redeliver", letters+".none")
	if got := p.wait(); got != 1 || !strings.Contains(p.stderr.String(), ".none") {
		t.Errorf("without a file: exit status %d, stderr %q", got, p.stderr)
	}
}
