package webhook

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestGrammar parses configuration texts that were given to the real NanoMQ.
// What NanoMQ accepts and HCL has no other meaning for is accepted; where
// NanoMQ crashes, ignores or misreads, there is an error.
func TestGrammar(t *testing.T) {
	// Most probes have these two rules.
	usual := []Rule{{Event: OnMessagePublish, Topic: "a/b/c"}, {Event: OnClientConnack, Topic: ""}}
	// accepted has what a probe's endpoint has besides defaults and its url.
	accepted := map[string]func(*Endpoint){
		"doc-multiline (webhook = { … }, newline separated, # comments)": headers("content-type=application/json"),
		"brace on next line":      nil,
		"colon instead of =":      all(headers("content-type=application/json"), base64Encoding, poolSize(7)),
		"pure JSON (quoted keys)": all(headers("x-a=1"), base64Encoding, poolSize(7)),
		"one line with commas":    all(headers("content-type=application/json"), base64Encoding, poolSize(7)),
		"one line without commas, unquoted encoding followed by key": all(base64Encoding, poolSize(7)),
		"unquoted event followed by spaces + newline":                nil,
		"trailing comma after last object member only":               nil, // NanoMQ exits; JSON5 and HCL have it
		"dotted top level keys (webhook.url = …)":                    all(headers("content-type=application/json"), base64Encoding, poolSize(7)),
		"mixed: dotted first, block later":                           poolSize(9),
		"upper-case keys":                                            all(base64Encoding, poolSize(7)),
		"## comment":                                                 nil,
		"comment glued to unquoted value (plain#x)":                  base64Encoding,
		"comment after number glued (7#x)":                           poolSize(7),
		"comment containing quote and brace":                         nil,
		"tabs":                                                       poolSize(7),
		"no newline at end of file":                                  nil,
		"headers nested block":                                       headers("content-type=text/x", "x-a=1"),
		"headers several dotted":                                     headers("content-type=text/x", "x-a=1", "x-b=2", "x-c=3"),
		"headers {} empty":                                           nil, // NanoMQ exits; HCL has it
		"body.encoding = \"plain\"":                                  nil,
		"body.encoding = \"base64\"":                                 base64Encoding,
		"body.encoding = \"BASE64\"":                                 base64Encoding,
		"body { encoding = base64 }":                                 base64Encoding,
		"body = { encoding = \"base64\" }":                           base64Encoding,
		"pool_size = 1":                                              poolSize(1),
		"pool_size = 1e1":                                            poolSize(10),
		"cancel_timeout = 5000":                                      nil,
		"cancel_timeout = 100":                                       func(e *Endpoint) { e.Timeout = 100 * time.Millisecond },
		"url = \"https://127.0.0.1:@P@/x\"":                          nil,
		"url = \"http://127.0.0.1:@P@\"":                             nil,
		"url = \"http://localhost:@P@/x\"":                           nil,
		"url = \"http://u:p@127.0.0.1:@P@/x\"":                       nil,
		"url = \"http://127.0.0.1/x\"":                               nil,
		"url = \"http://nosuchhost.invalid/x\"":                      nil,
		"url 3000 chars":                                             nil,
		"ssl { enable = false }":                                     func(e *Endpoint) { e.TLS.Disabled = true },
		"events.1 / events.2 dotted":                                 wantRules(OnClientConnack, OnMessagePublish),
		"events separated by newline only":                           nil,
		"rule event upper case":                                      wantRules(OnClientConnack),
		"enable = false":                                             func(e *Endpoint) { e.Disabled = true },
	}
	refused := map[string][]string{
		"unquoted url (has //)":   {"1: Missing quotes"},
		"double comma":            {"1: Extra comma"},
		"empty block webhook {}":  {"1: Missing url"},
		"webhook = null":          {"1: Wrong type"},
		"webhook = \"str\"":       {"1: Wrong type"},
		"missing closing brace":   {"1: Missing closing brace"},
		"missing closing bracket": {"2: Missing closing bracket"},
		"garbage char @":          {"2: Unexpected text"},
		"no webhook section":      {"1: No webhook section"},
		"backslash escapes \\n \\t \\\\ \\u0041 in header value": {"2: Invalid header value"}, // a newline in HCL, an n to NanoMQ
		"triple quoted string":                         {"2: Unexpected text"},
		"concatenation \"a\" \"b\"":                    {"1: Missing value"},
		"+= operator":                                  {"3: Unexpected text"},
		"unquoted value with slash (application/json)": {"2: Missing quotes"},
		"headers same name twice":                      {"3: Duplicate key"},
		"headers key with dot (headers.x.y)":           {"2: Wrong type"},
		"headers number value":                         {"2: Wrong type"},
		"headers null value":                           {"2: Wrong type"},
		"headers = []":                                 {"2: Wrong type"},
		"body.encoding = \"hex\"":                      {"2: Unknown value"},
		"body.encoding = \" base64\"":                  {"2: Unknown value"},
		"body.encoding = 64":                           {"2: Wrong type"},
		"body_encoding":                                {"2: Unknown key"},
		"pool_size = 32.9":                             {"2: Wrong type"},
		"pool_size = 8KB":                              {"2: Wrong type"},
		"pool_size = 0x10":                             {"2: Wrong type"},
		"pool_size = 65536":                            {"2: Value out of range"},
		"pool_size = 70000":                            {"2: Value out of range"},
		"pool_size = null":                             {"2: Wrong type"},
		"cancel_timeout = -1":                          {"2: Value out of range"},
		"cancel_timeout = 5s":                          {"2: Wrong type"},
		"cancel_timeout = 2147483648":                  {"2: Value out of range"},
		"cancel_timeout = infinity":                    {"2: Wrong type"},
		"url = \"http://127.0.0.1:@P@/x \"":            {"1: Invalid url"},
		"url = \"tcp://127.0.0.1:@P@/x\"":              {"1: Invalid url"},
		"url = 5":                                      {"1: Wrong type"},
		"tls { keyfile=… } (docs: upcoming)":           {"3: Unreadable file", "4: Unreadable file", "5: Unreadable file"},
		"events = []":                                  {"2: Empty list"},
		"events = { … } (object)":                      {"2: Wrong type"},
		"rule with event = 5":                          {"2: Wrong type"},
		"rule unknown event + good one":                {"2: Unknown event"},
		"rule topic = \"\"":                            {"2: Invalid topic filter"},
		"rule topic = [ … ]":                           {"2: Wrong type"},
		"rule extra keys (payload, headers)":           {"2: Unknown key"}, // a rule has headers here
		"enable = 0":                                   {"1: Wrong type"},
		"duplicate url (second wins?)":                 {"2: Duplicate key"},
		"duplicate pool_size three times":              {"3: Duplicate key", "4: Duplicate key"},
		"duplicate events":                             {"3: Duplicate key"},
		"two webhook blocks, different keys":           {"3: Duplicate section"},
		"include: webhook = {include \"file\"}":        {"1: Include not supported"},
	}
	data, err := os.ReadFile("testdata/config/grammar.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	probes := 0
	for line := range bytes.Lines(data) {
		var probe struct{ Case, Text string }
		if err := json.Unmarshal(line, &probe); err != nil {
			t.Fatal(err)
		}
		probes++
		t.Run(probe.Case, func(t *testing.T) {
			src := probe.Text
			if probe.Case == "url 3000 chars" { // the recording has it cut off
				src = strings.TrimSuffix(src, "…") + strings.Repeat("p", 3000) + "\"\n events = [ { event = \"on_message_publish\", topic = \"a/b/c\" }, { event = \"on_client_connack\" } ] }"
			}
			cfg, err := Parse([]byte(src), "nanomq.conf")
			if want, ok := refused[probe.Case]; ok {
				var got []string
				for _, d := range diagnosticsOf(t, []byte(src), err) {
					got = append(got, fmt.Sprintf("%d: %s", d.Subject.Start.Line, d.Summary))
				}
				if !slices.Equal(got, want) {
					t.Errorf("%s\n got %q\nwant %q\n%v", src, got, want, err)
				}
				return
			}
			change, ok := accepted[probe.Case]
			if !ok {
				t.Fatalf("no expectation for %q", src)
			}
			if err != nil {
				t.Fatalf("%s\n%v", src, err)
			}
			_, url, _ := strings.Cut(strings.ToLower(src), "http")
			want := &Config{[]Endpoint{defaults(func(e *Endpoint) {
				e.URL = "http" + url[:strings.Index(url, `"`)]
				e.Events = usual
				if change != nil {
					change(e)
				}
			})}}
			if !reflect.DeepEqual(cfg, want) {
				t.Errorf("%s\n got %s\nwant %s", src, dump(cfg), dump(want))
			}
		})
	}
	if len(accepted)+len(refused) != probes {
		t.Errorf("%d accepted and %d refused of %d probes", len(accepted), len(refused), probes)
	}
}

func all(changes ...func(*Endpoint)) func(*Endpoint) {
	return func(e *Endpoint) {
		for _, change := range changes {
			change(e)
		}
	}
}

func base64Encoding(e *Endpoint) { e.Body.Encoding = Base64 }

func poolSize(n int) func(*Endpoint) { return func(e *Endpoint) { e.PoolSize = n } }

func headers(lines ...string) func(*Endpoint) {
	return func(e *Endpoint) {
		for _, line := range lines {
			name, value, _ := strings.Cut(line, "=")
			e.Headers = append(e.Headers, Header{name, Secret(value)})
		}
	}
}

func wantRules(names ...EventName) func(*Endpoint) {
	return func(e *Endpoint) {
		e.Events = nil
		for _, name := range names {
			e.Events = append(e.Events, Rule{Event: name})
		}
	}
}
