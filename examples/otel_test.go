package examples_test

import (
	"regexp"
	"testing"
)

// The request's span and the receiver's are one trace.
func TestOtel(t *testing.T) {
	p := start(t, "otel")
	if got := p.wait(); got != 0 {
		t.Fatalf("exit status: got %d, want 0", got)
	}
	spans := regexp.MustCompile(`(?m)^(client|server) ".*" trace=(\w+) span=(\w+) parent=(\S+)$`).FindAllStringSubmatch(p.stdout.String(), -1)
	if len(spans) != 2 {
		t.Fatalf("got %d spans, want 2:\n%s", len(spans), p.stdout)
	}
	client, server := spans[0], spans[1]
	if client[1] == "server" {
		client, server = server, client
	}
	if client[1] != "client" || server[1] != "server" || client[2] != server[2] || client[4] != "-" || server[4] != client[3] {
		t.Errorf("got\n%s\nwant the server's span in the client's", p.stdout)
	}
}
