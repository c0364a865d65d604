package examples_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func TestBrokerDelivers(t *testing.T) {
	receiver, url := listen(t, "receiver")
	config := configure(t, "http://"+url+"/hook", "on_client_connack", "on_message_publish", "on_client_disconnected")
	broker, address := listen(t, "broker", "-config", config)

	publish(t, address, "a/b", "hello", "\x00\xff")
	receiver.stdout.waitLine(t, `"action":"client_disconnected"`)
	broker.end()
	receiver.end()

	want := []string{
		`"conn_ack":"success"`,
		`"payload":"hello"} payload="hello"`,
		`"payload":"AP8=","payload_encoding":"base64"} payload="\x00\xff"`,
		`"action":"client_disconnected"}`,
	}
	got := receiver.stdout.lines()[1:]
	if len(got) != len(want) {
		t.Fatalf("%d webhooks, want %d:\n%s", len(got), len(want), strings.Join(got, "\n"))
	}
	for i, line := range got {
		if !strings.HasPrefix(line, "POST /hook {") || !strings.Contains(line, want[i]) {
			t.Errorf("webhook %d: got %q, want %q in it", i, line, want[i])
		}
	}
	if got, want := broker.stdout.String(), "listening on "+address+"\n"; got != want {
		t.Errorf("stdout of the broker: got %q, want %q", got, want)
	}
}

func TestBrokerWithoutConfig(t *testing.T) {
	broker, address := listen(t, "broker")
	publish(t, address, "a/b", "hello")
	broker.end()
	if got := broker.stderr.String(); strings.Contains(got, "serving") {
		t.Errorf("without -stats and -metrics:\n%s", got)
	}
}

func TestBrokerCheck(t *testing.T) {
	const good = `webhook { url = "http://127.0.0.1:1/", events = [{ event = "on_client_connack" }] }`
	const labelled = `webhook "a" { url = "http://127.0.0.1:1/", events = [{ event = "on_client_connack" }] }
		webhook "b" { enable = false, url = "http://127.0.0.1:1/", events = [{ event = "on_client_connack" }] }`
	const bad = "webhook {\n  url = \"http://user:hunter2@127.0.0.1:1/\"\n  pool_sice = 3\n  events = [{ event = \"on_client_conack\" }]\n}\n"

	for name, text := range map[string]string{"1 endpoint": good, "2 endpoints, 1 of them disabled": labelled} {
		t.Run(name, func(t *testing.T) {
			path := write(t, text)
			p := start(t, "broker", "-check", "-config", path)
			if got := p.wait(); got != 0 {
				t.Errorf("exit status: got %d, want 0", got)
			}
			if got, want := p.stdout.String(), path+" is fine: "+name+"\n"; got != want {
				t.Errorf("stdout: got %q, want %q", got, want)
			}
		})
	}
	for name, args := range map[string][]string{"checked": {"-check"}, "run": {"-listen", "127.0.0.1:0"}} {
		t.Run("errors when "+name, func(t *testing.T) {
			path := write(t, bad)
			p := start(t, "broker", append(args, "-config", path)...)
			if got := p.wait(); got != 1 {
				t.Errorf("exit status: got %d, want 1", got)
			}
			if got := p.stdout.String(); got != "" {
				t.Errorf("stdout: got %q, want nothing", got)
			}
			diagnostics := p.stderr.String()
			for _, want := range []string{"webhook.hcl", "pool_sice = ", "pool_size", "on_client_connack"} {
				if !strings.Contains(diagnostics, want) {
					t.Errorf("stderr: got\n%s\nwant %q in it", diagnostics, want)
				}
			}
			if strings.Contains(diagnostics, "hunter2") {
				t.Errorf("stderr has the password:\n%s", diagnostics)
			}
		})
	}
	t.Run("missing file", func(t *testing.T) {
		p := start(t, "broker", "-check", "-config", filepath.Join(t.TempDir(), "none.hcl"))
		if got := p.wait(); got != 1 || !strings.Contains(p.stderr.String(), "none.hcl") {
			t.Errorf("exit status %d, stderr %q; want 1 and the file's name", got, p.stderr)
		}
	})
}

func TestBrokerUsage(t *testing.T) {
	for _, test := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"check without config", []string{"-check"}, 2, "-check needs -config"},
		{"config without file", []string{"-listen", "127.0.0.1:0", "-config", ""}, 2, "want a file"}, // a variable that is not set
		{"redeliver without file", []string{"-config", "webhook.hcl", "-redeliver", ""}, 2, "want a file"},
		{"redeliver without config", []string{"-redeliver", "dead.jsonl"}, 2, "-redeliver needs -config"},
		{"redeliver and check", []string{"-config", "webhook.hcl", "-redeliver", "dead.jsonl", "-check"}, 2, "do not go together"},
		{"listen without address", []string{"-listen", ""}, 2, "-listen is empty"},
		{"allow without colon", []string{"-allow", "hunter2"}, 2, "want USER:PASSWORD"},
		{"allow without user", []string{"-allow", ":hunter2"}, 2, "want USER:PASSWORD"},
		{"allow without password", []string{"-allow", "alice:"}, 2, "want USER:PASSWORD"},
		{"allow twice", []string{"-allow", "alice:hunter2", "-allow", "alice:x"}, 2, `"alice" is there twice`},
		{"negative drain", []string{"-drain", "-1s"}, 2, "must not be negative"},
		{"unknown flag", []string{"-config-file", "x"}, 2, "-config-file"},
		{"argument", []string{"webhook.hcl"}, 2, `unexpected argument "webhook.hcl"`},
		{"help", []string{"-h"}, 0, "-listen"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := start(t, "broker", test.args...)
			if got := p.wait(); got != test.code {
				t.Errorf("exit status: got %d, want %d", got, test.code)
			}
			if got := p.stderr.String(); !strings.Contains(got, test.want) {
				t.Errorf("stderr: got %q, want %q in it", got, test.want)
			}
			if got := p.stderr.String(); strings.Contains(got, "hunter2") {
				t.Errorf("stderr has a password: %q", got)
			}
		})
	}
}

func TestBrokerAllow(t *testing.T) {
	broker, address := listen(t, "broker", "-allow", "alice:secret", "-allow", "bob:with:colon")
	for _, test := range []struct {
		name, user, password string
		allowed              bool
	}{
		{"first user", "alice", "secret", true},
		{"second user", "bob", "with:colon", true},
		{"wrong password", "alice", "with:colon", false},
		{"no password", "alice", "", false},
		{"unknown user", "carol", "secret", false},
		{"anonymous", "", "", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			client, err := connect(t, address, "client", test.user, test.password)
			if allowed := err == nil; allowed != test.allowed {
				t.Errorf("user %q, password %q: got allowed %t (%v), want %t", test.user, test.password, allowed, err, test.allowed)
			}
			if err == nil {
				publishOne(t, client, "any/topic", "allowed")
			}
		})
	}
	broker.end()
}

func TestBrokerStats(t *testing.T) {
	get := func(t *testing.T, broker *process) map[string]json.RawMessage {
		t.Helper()
		reply, err := http.Get(urlOf(t, broker, "stats"))
		if err != nil {
			t.Fatal(err)
		}
		defer reply.Body.Close()
		body, err := io.ReadAll(reply.Body)
		if err != nil || reply.StatusCode != http.StatusOK || reply.Header.Get("Content-Type") != "application/json" || reply.Header.Get("Cache-Control") != "no-store" {
			t.Fatalf("got %s, %v, %v, %q", reply.Status, reply.Header, err, body)
		}
		var stats struct{ Endpoints map[string]json.RawMessage }
		if err := json.Unmarshal(body, &stats); err != nil || stats.Endpoints == nil {
			t.Fatalf("got %q, %v", body, err)
		}
		return stats.Endpoints
	}

	t.Run("counters", func(t *testing.T) {
		e := newEndpoint(t)
		close(e.answer)
		broker, address := listen(t, "broker", "-stats", "127.0.0.1:0", "-config", configure(t, e.URL, "on_message_publish"))
		publish(t, address, "a", "1", "2")
		e.next(t)
		e.next(t)
		var counters struct {
			Offered, Delivered int
			InFlight           int `json:"in_flight"`
		}
		stats := get(t, broker)
		if err := json.Unmarshal(stats["default"], &counters); err != nil {
			t.Fatal(err)
		}
		// The second answer may not have been read yet.
		if counters.Offered != 2 || counters.Delivered+counters.InFlight != 2 {
			t.Errorf("got %s, want 2 offered, 2 delivered or in flight", stats["default"])
		}
		broker.end()
	})
	t.Run("without config", func(t *testing.T) {
		broker, _ := listen(t, "broker", "-stats", "127.0.0.1:0")
		if got := get(t, broker); len(got) != 0 {
			t.Errorf("got %s, want no endpoint", got)
		}
		broker.end()
	})
	t.Run("other method and path", func(t *testing.T) {
		broker, _ := listen(t, "broker", "-stats", "127.0.0.1:0")
		url := urlOf(t, broker, "stats")
		for path, want := range map[string]int{"": http.StatusMethodNotAllowed, "/more": http.StatusNotFound} {
			reply, err := http.Post(url+path, "text/plain", nil)
			if err != nil {
				t.Fatal(err)
			}
			reply.Body.Close()
			if reply.StatusCode != want {
				t.Errorf("POST /stats%s: got %s, want %d", path, reply.Status, want)
			}
		}
		broker.end()
	})
}

func TestBrokerAddressTaken(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for name, args := range map[string][]string{
		"listen": {"-listen", taken.Addr().String()},
		"stats":  {"-listen", "127.0.0.1:0", "-stats", taken.Addr().String()},
	} {
		t.Run(name, func(t *testing.T) {
			p := start(t, "broker", args...)
			if got := p.wait(); got != 1 {
				t.Errorf("exit status: got %d, want 1", got)
			}
			if got := p.stderr.String(); !strings.Contains(got, taken.Addr().String()) {
				t.Errorf("stderr: got %q, want the address %s in it", got, taken.Addr())
			}
			if got := p.stdout.String(); got != "" {
				t.Errorf("stdout: got %q, want nothing", got)
			}
		})
	}
}

// A broker stops for both signals, whatever its clients do, and tells those
// that listen.
func TestBrokerStop(t *testing.T) {
	for _, signal := range []os.Signal{syscall.SIGTERM, os.Interrupt} {
		t.Run(signal.String(), func(t *testing.T) {
			e := newEndpoint(t)
			close(e.answer)
			broker, address := listen(t, "broker", "-config", configure(t, e.URL, "on_client_disconnected"))

			dial(t, address) // sends nothing
			half := dial(t, address)
			fmt.Fprint(half, "\x10\x20\x00\x04MQ") // sends half a CONNECT
			client := dial(t, address)
			fmt.Fprint(client, "\x10\x0d\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x00") // MQTT 5, keepalive 60, no id
			if _, err := io.ReadFull(client, make([]byte, 2)); err != nil {
				t.Fatalf("no CONNACK: %v", err)
			}

			broker.signal(signal)
			if got := broker.wait(); got != 0 {
				t.Errorf("exit status: got %d, want 0", got)
			}
			const serverShuttingDown = 0x8b
			if got := readAll(t, client); !strings.Contains(string(got), "\xe0") || !strings.Contains(string(got), "\x8b") {
				t.Errorf("the client got %x, want a DISCONNECT with %#x", got, serverShuttingDown)
			}
			if got, want := e.next(t), `"reason":"server_shutdown"`; !strings.Contains(got, want) {
				t.Errorf("webhook: got %s, want %s in it", got, want)
			}
		})
	}
}

// A client that does not read what it subscribed to fills the connection and
// with it everything on the broker's side that writes to it.
func TestBrokerStopClientDoesNotRead(t *testing.T) {
	e := newEndpoint(t)
	close(e.answer)
	broker, address := listen(t, "broker", "-config", write(t,
		`webhook { url = "`+e.URL+`", events = [{ event = "on_client_disconnected", clients = ["s"] }] }`))
	client := dial(t, address)
	fmt.Fprint(client, "\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01s") // id "s"
	fmt.Fprint(client, "\x82\x08\x00\x01\x00\x03big\x00")
	if _, err := io.ReadFull(client, make([]byte, 4+5)); err != nil {
		t.Fatalf("no CONNACK and SUBACK: %v", err)
	}
	big := strings.Repeat("x", 1<<20)
	publish(t, address, "big", slices.Repeat([]string{big}, 20)...)
	broker.end()
	if got, want := e.next(t), `"reason":"server_shutdown"`; !strings.Contains(got, want) {
		t.Errorf("webhook: got %s, want %s in it", got, want)
	}
}

// Clients that wait for room in a full queue do not hold up the end.
func TestBrokerStopWhileBlocked(t *testing.T) {
	e := newEndpoint(t) // never answers
	broker, address := listen(t, "broker", "-drain", "0", "-config", write(t,
		`webhook { url = "`+e.URL+`", pool_size = 1, events = [{ event = "on_message_publish" }]
		queue { capacity = 1, overflow = "block", block_timeout = "1h" } }`))
	client := dial(t, address)
	fmt.Fprint(client, "\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01p") // id "p"
	for range 3 {
		fmt.Fprint(client, "\x32\x05\x00\x01a\x00\x01")
	}
	if _, err := io.ReadFull(client, make([]byte, 4+3*4)); err != nil { // the third waits behind its PUBACK
		t.Fatalf("no CONNACK and PUBACKs: %v", err)
	}
	broker.end()
}

// A broker takes a configuration that has changed, and keeps the one that it has
// when there is a mistake.
func TestBrokerReloads(t *testing.T) {
	before, after := newEndpoint(t), newEndpoint(t)
	close(before.answer)
	close(after.answer)
	config := configure(t, before.URL, "on_message_publish")
	broker, address := listen(t, "broker", "-config", config)
	publish(t, address, "a", "1")
	before.next(t)

	if err := os.WriteFile(config, []byte("webhook { url = 5 }"), 0o600); err != nil {
		t.Fatal(err)
	}
	broker.stderr.waitLine(t, "Wrong type")
	publish(t, address, "a", "2")
	before.next(t)

	if err := os.Rename(configure(t, after.URL, "on_message_publish"), config); err != nil {
		t.Fatal(err)
	}
	broker.stderr.waitLine(t, "configuration reloaded")
	publish(t, address, "a", "3")
	after.next(t)

	broker.signal(syscall.SIGHUP)
	broker.stderr.waitLines(t, "configuration reloaded", 2)
	publish(t, address, "a", "4")
	after.next(t)
	broker.end()
}

func TestBrokerDrains(t *testing.T) {
	e := newEndpoint(t)
	broker, address := listen(t, "broker", "-drain", patience.String(), "-config", configure(t, e.URL, "on_message_publish"))
	publish(t, address, "a", "1", "2", "3")
	e.next(t) // of one client one at a time
	broker.signal(syscall.SIGTERM)
	broker.stderr.waitLine(t, "msg=stopping")
	close(e.answer)
	if got := broker.wait(); got != 0 {
		t.Errorf("exit status: got %d, want 0", got)
	}
	if got := 1 + len(e.bodies); got != 3 {
		t.Errorf("got %d webhooks, want 3", got)
	}
}

func TestBrokerDrainEnds(t *testing.T) {
	for _, drain := range []string{"0", "100ms"} {
		t.Run(drain, func(t *testing.T) {
			e := newEndpoint(t) // never answers
			broker, address := listen(t, "broker", "-drain", drain, "-config", configure(t, e.URL, "on_message_publish"))
			publish(t, address, "a", "1", "2", "3")
			e.next(t)
			broker.end()
		})
	}
}

func TestBrokerSecondSignal(t *testing.T) {
	e := newEndpoint(t) // never answers
	broker, address := listen(t, "broker", "-drain", "1h", "-config", configure(t, e.URL, "on_message_publish"))
	publish(t, address, "a", "1")
	e.next(t)
	broker.kill()
}
