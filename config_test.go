package webhook

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// defaults is an endpoint with all defaults.
func defaults(change func(*Endpoint)) Endpoint {
	e := Endpoint{
		Name:     "default",
		URL:      "http://127.0.0.1/hook",
		Body:     Body{Encoding: Plain, MaxPayload: 8 << 20, Format: FormatNanoMQ},
		PoolSize: 32,
		Timeout:  5 * time.Second,
		TLS:      TLS{MinVersion: tls.VersionTLS12},
		Ordering: OrderClient,
		Retry: Retry{
			MinBackoff: 500 * time.Millisecond, MaxBackoff: 30 * time.Second, MaxAge: 5 * time.Minute,
			MaxAttempts: -1, MaxRetryAfter: 5 * time.Minute,
		},
		Breaker: Breaker{Failures: 10, Cooldown: 5 * time.Second},
		Queue: Queue{Type: MemoryQueue, Capacity: 100000, MaxBytes: 64 << 20, Overflow: DropOldest, BlockTimeout: time.Second,
			Sync: 100 * time.Millisecond},
		DeadLetter:  DeadLetter{MaxBytes: 64 << 20, Keep: 5},
		Compression: NoCompression,
	}
	if change != nil {
		change(&e)
	}
	return e
}

// dump prints a Config with its secrets.
func dump(cfg *Config) string {
	if cfg == nil {
		return "no config"
	}
	var b strings.Builder
	for _, e := range cfg.Endpoints {
		fmt.Fprintf(&b, "%+v", e)
		for _, h := range e.Headers {
			fmt.Fprintf(&b, " [%s=%s]", h.Name, string(h.Value))
		}
		for _, r := range e.Events {
			for _, h := range r.Headers {
				fmt.Fprintf(&b, " [%s: %s=%s]", r.Event, h.Name, string(h.Value))
			}
		}
		fmt.Fprintf(&b, " [%s]\n", string(e.TLS.KeyPassword))
	}
	return b.String()
}

// diagnosticsOf returns err's diagnostics and fails the test if they are not
// as Parse promises.
func diagnosticsOf(t *testing.T, src []byte, err error) hcl.Diagnostics {
	t.Helper()
	if err == nil {
		return nil
	}
	diags, ok := err.(hcl.Diagnostics)
	if !ok || len(diags) == 0 {
		t.Fatalf("error of type %T, want hcl.Diagnostics: %v", err, err)
	}
	for i, d := range diags {
		if d.Subject == nil {
			t.Fatalf("diagnostic without a range: %v", d)
		}
		start, end := d.Subject.Start, d.Subject.End
		if start.Byte < 0 || start.Byte > end.Byte || end.Byte > len(src) || start.Line < 1 || start.Column < 1 || end.Line < start.Line {
			t.Errorf("range %#v outside of the %d bytes: %v", *d.Subject, len(src), d)
		}
		if lines := bytes.Count(src, []byte("\n")) + 1; end.Line > lines {
			t.Errorf("range %#v outside of the %d lines: %v", *d.Subject, lines, d)
		}
		if i > 0 && diags[i-1].Subject.Start.Byte > start.Byte {
			t.Errorf("not sorted: %v after %v", d, diags[i-1])
		}
		if d.Severity != hcl.DiagError || d.Summary == "" || d.Detail == "" {
			t.Errorf("incomplete: %+v", d)
		}
	}
	return diags
}

func TestParseSpellings(t *testing.T) {
	want := map[string][]Endpoint{
		"document": {defaults(func(e *Endpoint) {
			e.URL = "http://127.0.0.1:80"
			e.Headers = []Header{{"content-type", "application/json"}}
			e.Events = []Rule{{Event: OnMessagePublish, Topic: "a/b/c"}, {Event: OnClientConnack, Topic: ""}}
		})},
		"full": {
			defaults(func(e *Endpoint) {
				e.URL = "https://u:p@[::1]:8443/a/./b/../c%20d?x=1&y=%26"
				e.Headers = []Header{{"X-Api-Key", "abc def"}, {"Authorization", "Bearer a.b.c"}, {"accept", "*/*"}}
				e.Body = Body{Encoding: Base62, MaxPayload: 64 << 10, Format: FormatNanoMQ}
				e.PoolSize = 7
				e.Timeout = 2500 * time.Millisecond
				e.Ordering = OrderNone
				e.TLS = TLS{Disabled: true, InsecureSkipVerify: true, KeyPassword: "hunter2", ServerName: "example.com", MinVersion: tls.VersionTLS13}
				e.Retry = Retry{MinBackoff: 100 * time.Millisecond, MaxBackoff: time.Minute, MaxAge: -1, MaxAttempts: 5, MaxRetryAfter: time.Hour}
				e.Breaker = Breaker{Failures: -1, Cooldown: time.Second}
				e.Queue = Queue{Type: MemoryQueue, Capacity: -1, MaxBytes: 1 << 30, Overflow: Block, BlockTimeout: 250 * time.Millisecond,
					Sync: 100 * time.Millisecond}
				e.Events = []Rule{{Event: OnMessagePublish, Topic: "$SYS/#"}, {Event: OnClientConnack, Topic: "no//matter/#/what"}, {Event: OnSessionTerminated, Topic: ""}}
			}),
			defaults(func(e *Endpoint) {
				e.Name, e.URL, e.Disabled = "Two_2-x", "http://localhost", true
			}),
		},
		"rules": {
			defaults(func(e *Endpoint) {
				e.Events = []Rule{
					{
						Event: OnMessagePublish, Topic: "clients/#", Except: []string{"clients/+/debug", "clients/x"},
						Clients: []string{"sensor-*", "s?"}, Users: []string{"alice", ""}, Listeners: []string{"tcp*"}, WithoutInline: true,
					},
					{Event: OnClientConnected, Except: []string{"no//matter"}},
				}
			}),
		},
		"overrides": {
			defaults(func(e *Endpoint) {
				e.URL = "https://u:p@127.0.0.1/hook"
				e.Headers = []Header{{"X-Api-Key", "k"}, {"accept", "*/*"}}
				e.Signing.Secret = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"
				e.TLS.ServerName = "receiver"
				e.Events = []Rule{
					{Event: OnMessagePublish, Topic: "cmd/#", Headers: []Header{{"x-api-key", "c"}, {"X-Kind", "cmd"}}, Encoding: Base64},
					{Event: OnClientConnected},
				}
			}),
			defaults(func(e *Endpoint) {
				e.Name, e.URL = "default-2", "https://127.0.0.1:443/log"
				e.Headers = []Header{{"X-Api-Key", "k"}, {"accept", "*/*"}, {"Authorization", "Basic dTpw"}}
				e.Body.Encoding, e.Body.MaxPayload = Base62, 256<<10
				e.Signing.Secret = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"
				e.TLS.ServerName = "receiver"
				e.Events = []Rule{{Event: OnMessagePublish, Topic: "log/#"}}
			}),
			defaults(func(e *Endpoint) {
				e.Name, e.URL = "gone", "http://other.test"
				e.Headers = []Header{{"accept", "*/*"}, {"Authorization", "Bearer x"}}
				e.Events = []Rule{{Event: OnClientDisconnected}}
			}),
		},
	}
	want["stream"] = []Endpoint{
		defaults(func(e *Endpoint) {
			e.URL = "http://127.0.0.1:8080/hook"
			e.Events = []Rule{{Event: OnMessagePublish}}
			e.Retry.MaxAge = 2 * time.Hour
			e.Queue = Queue{Type: DiskQueue, Capacity: 100_000, MaxBytes: 2 << 20, Overflow: Block, BlockTimeout: 250 * time.Millisecond,
				Dir: "testdata/config/valid/stream/spool", Sync: SyncAlways}
			e.Stream = Stream{URL: "nats://user:hunter2@10.0.0.1:4222,tls://10.0.0.2:4222", Name: "EVENTS", Partitions: 128, Replicas: 3,
				CredsFile: "testdata/config/valid/stream/document.conf", MaxBytes: 1 << 30}
		}),
		defaults(func(e *Endpoint) {
			e.Name, e.URL, e.PoolSize = "plain", "http://127.0.0.1:8080/hook", 7
			e.Retry.MaxAge = 24 * time.Hour
			e.Stream = Stream{URL: "nats://127.0.0.1", Name: "MQTT_WEBHOOKS", Partitions: 64, Replicas: 1, MaxBytes: 10 << 30}
		}),
	}
	files, err := filepath.Glob("testdata/config/valid/*/*")
	if err != nil || len(files) < 7 {
		t.Fatalf("%d fixtures, error %v", len(files), err)
	}
	for _, file := range files {
		group := filepath.Base(filepath.Dir(file))
		t.Run(group+"/"+filepath.Base(file), func(t *testing.T) {
			src, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			variants := map[string][]byte{
				"as it is":         src,
				"CRLF":             bytes.ReplaceAll(src, []byte("\n"), []byte("\r\n")),
				"byte order mark":  append([]byte("\ufeff"), src...),
				"no final newline": bytes.TrimSpace(src),
			}
			for name, src := range variants {
				cfg, err := Parse(src, file)
				if err != nil {
					t.Errorf("%s: %v", name, err)
					continue
				}
				got := slices.SortedFunc(slices.Values(cfg.Endpoints), func(a, b Endpoint) int { return cmp.Compare(b.PoolSize, a.PoolSize) })
				if got[0].Name != "default" {
					slices.Reverse(got)
				}
				for i := range got {
					got[i].known = identity{} // another one in each process
				}
				if want := want[group]; !reflect.DeepEqual(got, want) {
					t.Errorf("%s:\n got %s\nwant %s", name, dump(&Config{got}), dump(&Config{want}))
				}
				if resolved, err := cfg.resolve(); err != nil || !reflect.DeepEqual(resolved, cfg) {
					t.Errorf("%s: resolve of the result: %v, %v\n got %s\nwant %s", name, err, resolved, dump(resolved), dump(cfg))
				}
			}
		})
	}
}

// TestParseInvalid reads files that say "# ERROR: SUMMARY" on each line where
// a diagnostic has to point.
// TestBareText: a name needs no quotes where a text is wanted, as for NanoMQ. What
// HCL or NanoMQ reads as something else does, and so does more than a name.
func TestBareText(t *testing.T) {
	for value, ok := range map[string]bool{
		"abc": true, "x-1_Y": true, "_": true, "plain": true, "on_client_connect": true,
		"5": false, "5a": false, "-a": false, "env.X": false, "a/b": false, "a:b": false, "é": false, "true": false, "null": false, "a.b": false,
	} {
		cfg, err := Parse([]byte("webhook {\n url = \"http://h\"\n headers.x = "+value+"#c\n events = [{ event = on_message_publish topic = "+value+" }]\n}"), "")
		switch {
		case (err == nil) != ok:
			t.Errorf("%s: %v", value, err)
		case ok && (cfg.Endpoints[0].Headers[0].Value != Secret(value) || cfg.Endpoints[0].Events[0].Topic != value):
			t.Errorf("%s became %+v", value, cfg.Endpoints[0])
		}
	}
	for _, list := range []string{`["a", env ("X")]`, "[file\n#c\n(\"x\")]"} {
		if _, err := Parse([]byte("webhook {\n url = \"http://h\"\n events = [{ event = on_client_connack clients = "+list+" }]\n}"), ""); err == nil || !strings.Contains(err.Error(), "Unexpected text") {
			t.Errorf("%s: %v", list, err)
		}
	}
	// What follows a name may be the rest of a secret: it is an error, but not named.
	_, err := Parse([]byte("webhook {\n url = \"http://h\"\n events = [{ event = on_client_connack }]\n headers.authorization = Bearer hunter2 = 5\n}"), "")
	var diags hcl.Diagnostics
	if !errors.As(err, &diags) || len(diags) != 1 || diags[0].Subject.Start.Line != 4 {
		t.Errorf("%v", err)
	}
	noSecret(t, err, "", "hunter2")
	for _, line := range []string{"pool_size =\n timeout = 5", "body.encoding =\n plain = 1", "enable =\n}", "pool_size\n 5", "overflow =\n 1 {}"} {
		if _, err := Parse([]byte("webhook {\n url = \"http://h\"\n events = [{ event = on_client_connack }]\n "+line+"\n}"), ""); err == nil || !strings.Contains(err.Error(), "Missing value") {
			t.Errorf("%q: %v", line, err)
		}
	}
}

func TestParseInvalid(t *testing.T) {
	files, err := filepath.Glob("testdata/config/invalid/*")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d fixtures, error %v", len(files), err)
	}
	mark := regexp.MustCompile(`# ERROR: ([^#\r\n]*[^#\r\n ])`)
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			src, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var want []string
			for i, line := range strings.Split(string(src), "\n") {
				for _, m := range mark.FindAllStringSubmatch(line, -1) {
					want = append(want, fmt.Sprintf("%d: %s", i+1, m[1]))
				}
			}
			cfg, err := ParseFile(file)
			if cfg != nil {
				t.Errorf("a Config beside the error: %s", dump(cfg))
			}
			var got []string
			for _, d := range diagnosticsOf(t, src, err) {
				got = append(got, fmt.Sprintf("%d: %s", d.Subject.Start.Line, d.Summary))
				if d.Subject.Filename != file {
					t.Errorf("filename %q, want %q", d.Subject.Filename, file)
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("got\n  %s\nwant\n  %s\nin full: %v", strings.Join(got, "\n  "), strings.Join(want, "\n  "), err)
			}
			noSecret(t, err, "", "s3cret")
		})
	}
}

func TestParseFileUnreadable(t *testing.T) {
	for _, path := range []string{"testdata/config/no-such-file", "testdata"} {
		t.Run(path, func(t *testing.T) {
			_, err := ParseFile(path)
			diags := diagnosticsOf(t, nil, err)
			if len(diags) != 1 || diags[0].Subject.Filename != path || diags[0].Subject.Start != hcl.InitialPos {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestResolve(t *testing.T) {
	rules := []Rule{{Event: "ON_MESSAGE_PUBLISH", Topic: "a/#"}}
	given := &Config{Endpoints: []Endpoint{
		{URL: "http://127.0.0.1/hook", Events: rules, Body: Body{Encoding: "BASE62"}},
		{Name: "b", URL: "http://127.0.0.1/hook", Headers: []Header{{"A", "b"}}},
	}}
	before := dump(given)
	got, err := given.resolve()
	if err != nil {
		t.Fatal(err)
	}
	want := &Config{Endpoints: []Endpoint{
		defaults(func(e *Endpoint) {
			e.Events = []Rule{{Event: OnMessagePublish, Topic: "a/#"}}
			e.Body = Body{Encoding: Base62, MaxPayload: 256 << 10, Format: FormatNanoMQ}
		}),
		defaults(func(e *Endpoint) { e.Name, e.Headers = "b", []Header{{"A", "b"}} }),
	}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("\n got %s\nwant %s", dump(got), dump(want))
	}
	if dump(given) != before {
		t.Errorf("resolve wrote to the caller's value:\n got %s\nwant %s", dump(given), before)
	}
}

func TestResolveProblems(t *testing.T) {
	_, err := (&Config{Endpoints: []Endpoint{
		{},
		{
			Name: "b", URL: "http://u:hunter2@host:0/", PoolSize: -1, Timeout: time.Hour + 1,
			Headers:  []Header{{"a b", "x"}, {"x", "a\nhunter2"}, {"X", ""}, {"Te", ""}},
			Body:     Body{Encoding: "hex", MaxPayload: -1},
			TLS:      TLS{MinVersion: 5, CertFile: "no-such-file"},
			Events:   []Rule{{Event: "on_x"}, {Event: OnMessageAcked, Topic: "a#"}},
			Ordering: "x", Retry: Retry{MinBackoff: time.Minute, MaxBackoff: time.Second, MaxAge: -2},
			Queue: Queue{Capacity: -2, Overflow: "x", Sync: 2 * time.Hour},
		},
		{Name: "B", URL: "http://h"},
		{Name: "a b", URL: "http://h"},
	}}).resolve()
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		`endpoint "default": URL is required`, `endpoint "b": URL must`, `"b": PoolSize must be 1 to 4096`, `"b": Timeout`,
		`"b": Headers[0].Name`, `"b": Headers[1].Value`, `"b": Headers[2].Name`, `"b": Headers[3].Name`,
		`"b": Body.Encoding`, `"b": Body.MaxPayload`, `"b": TLS.MinVersion`, `"b": TLS.CertFile cannot be read`, `"b": TLS.CertFile needs`,
		`"b": Events[0].Event`, `"b": Events[1].Topic`, `"b": Ordering`, `"b": Retry.MinBackoff`, `"b": Retry.MaxAge`,
		`"b": Queue.Capacity`, `"b": Queue.Overflow`, `"b": Queue.Sync must be 1 ms to 1 h, SyncAlways or SyncNever`, `endpoint "B": Name`, `endpoint "a b": Name`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in:\n%v", want, err)
		}
	}
	if lines := strings.Count(err.Error(), "\n") + 1; lines != 24 {
		t.Errorf("%d problems, want 24:\n%v", lines, err)
	}
	noSecret(t, err, "", "hunter2")
	for _, cfg := range []*Config{nil, {}} {
		if _, err := cfg.resolve(); err == nil {
			t.Errorf("resolve of %+v: no error", cfg)
		}
	}
}

// TestDependentDefaults: a default gives way to a setting that contradicts it.
func TestDependentDefaults(t *testing.T) {
	tests := []struct {
		section string
		want    func(*Endpoint)
	}{
		{"retry.max_backoff = 100", func(e *Endpoint) { e.Retry.MinBackoff, e.Retry.MaxBackoff = 100*time.Millisecond, 100*time.Millisecond }},
		{"retry.max_backoff = 5000", func(e *Endpoint) { e.Retry.MaxBackoff = 5 * time.Second }},
		{"retry.min_backoff = \"1m\"", func(e *Endpoint) { e.Retry.MinBackoff, e.Retry.MaxBackoff = time.Minute, time.Minute }},
		{"body.encoding = base62", func(e *Endpoint) { e.Body = Body{Encoding: Base62, MaxPayload: 256 << 10, Format: FormatNanoMQ} }},
		{"body.encoding = base62, body.max_payload = \"1MiB\"", func(e *Endpoint) { e.Body = Body{Encoding: Base62, MaxPayload: 1 << 20, Format: FormatNanoMQ} }},
	}
	for _, test := range tests {
		t.Run(test.section, func(t *testing.T) {
			got, err := Parse([]byte("webhook { url = \"http://127.0.0.1/hook\"\n"+test.section+"\n}"), "x")
			if want := (&Config{[]Endpoint{defaults(test.want)}}); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%s: %v\n got %s\nwant %s", test.section, err, dump(got), dump(want))
			}
		})
	}
}

// TestPaths: relative paths are relative to the file's folder.
func TestPaths(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"token": "Bearer café\r\n", "two": "a\n\n"} {
		write(t, filepath.Join(dir, name), text)
	}
	if err := os.Rename(newTestCA(t, "CA").file, filepath.Join(dir, "ca.pem")); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "webhook.hcl")
	t.Setenv("WEBHOOK_TEST_POOL", "9")
	t.Setenv("WEBHOOK_TEST_ON", "false")
	t.Setenv("WEBHOOK_TEST_HOST", "cafe\u0301")
	src := `webhook {
	enable = env("WEBHOOK_TEST_ON")
	url = "http://h/${env("WEBHOOK_TEST_HOST")}/e` + "\u0301" + `$${x}\u0065"
	headers.authorization = file("token")
	headers.both = "<${env("WEBHOOK_TEST_POOL")} ${file("token")}>"
	headers.choice = "%{ if env("WEBHOOK_TEST_ON") == "true" }a%{ else }b%{ endif }"
	pool_size = env("WEBHOOK_TEST_POOL")
	cancel_timeout = "${env("WEBHOOK_TEST_POOL")}00"
	body.max_payload = "${env("WEBHOOK_TEST_POOL")}KiB"
	tls.cacertfile = "./ca.pem"
}`
	write(t, file, src)
	got, err := ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want := &Config{[]Endpoint{defaults(func(e *Endpoint) {
		e.Disabled = true
		e.URL = "http://h/cafe\u0301/e\u0301${x}e"
		e.Headers = []Header{{"authorization", "Bearer café"}, {"both", "<9 Bearer café>"}, {"choice", "b"}}
		e.PoolSize, e.Timeout = 9, 900*time.Millisecond
		e.Body.MaxPayload = 9 << 10
		e.TLS.CACertFile = filepath.Join(dir, "ca.pem")
	})}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("\n got %s\nwant %s", dump(got), dump(want))
	}
}

// TestBoolOfVariable checks that a boolean may come from the environment as it may
// stand in the file: in any letter case.
func TestBoolOfVariable(t *testing.T) {
	for text, want := range map[string]string{
		"true": "true", "True": "true", "TRUE": "true", "False": "false",
		"1": "Wrong type", "yes": "Wrong type", "": "Wrong type",
	} {
		t.Setenv("WEBHOOK_TEST_ON", text)
		cfg, err := Parse([]byte(`webhook { url = "http://h/", enable = env("WEBHOOK_TEST_ON") }`), "w")
		got := ""
		if diags := hcl.Diagnostics(nil); errors.As(err, &diags) {
			got = diags[0].Summary
		} else {
			got = strconv.FormatBool(!cfg.Endpoints[0].Disabled)
		}
		if got != want {
			t.Errorf("%q is %s, want %s", text, got, want)
		}
	}
}

// TestLiteral has every short string of what is special in one mean what it means
// in HCL.
func TestLiteral(t *testing.T) {
	for text, want := range map[string]string{
		`p$$${x}`: "p$${x}", `p%%%{x}`: "p%%{x}", `p$$$${x}`: "p$$${x}", `$${a$${`: "${a${", `a\/b$${`: "a/b${", `\ud83d\ude00%%{`: "😀%{",
	} {
		if got, ok := literal([]byte(text)); got != want || !ok {
			t.Errorf("%s is %q, %v, want %q", text, got, ok, want)
		}
	}
	var check func(text string, more int)
	check = func(text string, more int) {
		expr, diags := hclsyntax.ParseExpression([]byte(`"`+text+`"`), "", hcl.InitialPos)
		if template, ok := expr.(*hclsyntax.TemplateExpr); ok && !diags.HasErrors() && template.IsStringLiteral() {
			v, _ := expr.Value(nil)
			if got, ok := literal([]byte(text)); !ok || got != v.AsString() {
				t.Errorf("%s is %q, %v, want %q", text, got, ok, v.AsString())
			}
		}
		for _, c := range `$%{n\` {
			if more > 0 {
				check(text+string(c), more-1)
			}
		}
	}
	check("", 6)
}

func TestRanges(t *testing.T) {
	tests := []struct {
		name, src  string
		start, end string // line,column,byte
	}{
		{"start", "webhook { ulr = 5, url=\"http://h\" }", "1,11,10", "1,14,13"},
		{"multi-byte before", "# é\nwebhook { headers.a = \"日本\", pool_size = 0, url=\"http://h\" }", "2,41,49", "2,42,50"},
		{"combining before", "webhook { headers.a = \"e\u0301\", pool_size = 0, url=\"http://h\" }", "1,40,41", "1,41,42"},
		{"tabs", "webhook {\turl=\"http://h\"\n\t\tpool_size\t=\t0 }", "2,15,39", "2,16,40"},
		{"CRLF", "webhook {\r\nurl=\"http://h\"\r\npool_size = 0\r\n}\r\n", "3,13,39", "3,14,40"},
		{"byte order mark", "\ufeffwebhook {pool_size=0, url=\"http://h\" }", "1,20,22", "1,21,23"},
		{"inside a template", "webhook {url=\"http://é${x}\"}", "1,25,25", "1,26,26"},
		{"inside a template of JSON", `{"webhook": {"url": "http:\/\/é${ \"\\\\${ env(\"WEBHOOK_TEST_UNSET\") }\" }"}}`, "1,44,44", "1,71,71"},
		{"behind a template of JSON", `{"webhook": {"url": "http://${\"h\"}", "pool_size": 0}}`, "1,53,52", "1,54,53"},
		{"several lines", "webhook {url=\"http://h\"\nevents = [\n5]\n}", "3,1,35", "3,2,36"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := Parse([]byte(test.src), "x")
			diags := diagnosticsOf(t, []byte(test.src), err)
			if len(diags) != 1 {
				t.Fatalf("got %v", err)
			}
			text := func(p hcl.Pos) string { return fmt.Sprintf("%d,%d,%d", p.Line, p.Column, p.Byte) }
			if got, got2 := text(diags[0].Subject.Start), text(diags[0].Subject.End); got != test.start || got2 != test.end {
				t.Errorf("%q: got %s to %s, want %s to %s (%v)", test.src, got, got2, test.start, test.end, err)
			}
		})
	}
}

func TestURL(t *testing.T) {
	valid := []string{
		"http://h", "HTTPS://h:65535/", "http://127.0.0.1:80/x?y#z", "http://[::1]/", "http://[fe80::1%25eth0]:80/", "http://u:p%20@a_b.c-d/é",
		"http://h?x", "http://h/a/../b%2f//c", "http://h/" + strings.Repeat("p", 3000), "http://xn--bcher-kva.example/",
	}
	invalid := []string{
		"", "h", "//h/", "http:/h", "http://", "http:///x", "http://:80/", "http://h:/", "http://h:0/", "http://h:65536/", "http://h:x/",
		"http://::1/", "http://::1:80/", "http://[::1", "http://[h]/", "http://[127.0.0.1]/", "http://[fe80::1%25é]/", "http://h /", " http://h", "http://h/\n", "http://h/\x00", "http://h/\u00a0",
		"http://h/%zz", "http://bücher/", "http://u:p@/", "ftp://h/", "http:\\\\h", "http://h\\x/", "http://a,b/", "unix:///x",
	}
	for _, u := range valid {
		t.Run("valid "+u[:min(len(u), 30)], func(t *testing.T) {
			if err := checkURL(u); err != nil {
				t.Errorf("%q: %v", u, err)
			}
		})
	}
	for _, u := range invalid {
		t.Run(fmt.Sprintf("invalid %q", u), func(t *testing.T) {
			if err := checkURL(u); err == nil {
				t.Errorf("%q: no error", u)
			}
		})
	}
	_, err := Parse([]byte("webhook { url = \"http://u:hunter2@h:0/?hunter3\" }"), "x")
	noSecret(t, err, "", "hunter2", "hunter3")
}

func TestHost(t *testing.T) {
	for value, ok := range map[string]bool{
		"h": true, "example.com:8080": true, "[::1]:80": true, "127.0.0.1": true,
		"": false, "a b": false, "a/b": false, "é": false, "h:": false, "h:99999": false, "u:p@h": false, "h?x": false, "::1": false, "http://h": false,
	} {
		if err := checkHeaderValue("hOst", value); (err == nil) != ok {
			t.Errorf("%q: %v", value, err)
		}
	}
}

func TestSuggestions(t *testing.T) {
	tests := []struct{ section, want string }{
		{"pol_size = 5", "pool_size"},
		{"timeout = 5", "cancel_timeout"},
		{"encoding = plain", "body.encoding"},
		{"body_encoding = plain", "body.encoding"},
		{"Header.x = \"1\"", "headers"},
		{"event = []", "events"},
		{"tsl.enable = true", "tls"},
		{"tls { cert_file = \"x\" }", "tls.certfile"},
		{"ssl { cacert = \"x\" }", "tls.cacertfile"},
		{"retry.max_backof = 5", "retry.max_backoff"},
		{"retry { max = 5 }", "retry.max_backoff"},
		{"retry { pool_size = 5 }", "pool_size"},
		{"queue { type = jetstream, url = \"nats://h\", sync = \"always\" }", "queue.local.sync"},
		{"queue { type = jetstream, url = \"nats://h\", dir = \"x\" }", "queue.local.dir"},
		{"body.encoding = base46", "base64"},
		{"events = [{ event = \"on_message_published\" }]", "on_message_publish"},
		{"events = [{ event = \"message.publish\" }]", "on_message_publish"},
		{"events = [{ event = \"client_connack\" }]", "on_client_connack"},
		{"events = [{ event = on_message_publish, topics = \"x\" }]", "topic"},
	}
	for _, test := range tests {
		t.Run(test.section, func(t *testing.T) {
			_, err := Parse([]byte("webhook { url = \"http://h\"\n"+test.section+"\n}"), "x")
			if want := "did you mean " + test.want + "?"; err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("no %q in %v", want, err)
			}
		})
	}
	for section, want := range map[string]string{
		"queue { url = \"nats://h\" }":    `"url" is not a setting of queue, unless its type is "jetstream".`,
		"queue { local { dir = \"x\" } }": `"local" is not a setting of queue, unless its type is "jetstream".`,
		"queue { size = 5 }":              `"size" is not a setting of queue.`,
		"tls { ca_file = \"x\" }":         `"ca_file" is not a setting of tls.`, // and not certfile
		"queue { enable = false }":        `"enable" is not a setting of queue.`,
		"queue { file = \"x\" }":          `"file" is not a setting of queue.`,
		"dlq {}":                          `"dlq" is not a setting.`,
		"queue.sync = \"2h\"":             `must be 1 ms to 1 h, "always" or "never".`,
		"pool_size = 4 * 8":               `is written in parentheses, as in (4 * 8)`,
		"headers.x = \"a\" + \"b\"":       `texts are put together in one`,
		"pool_size = 4 ;":                 `separates one setting from the next`,
	} {
		if _, err := Parse([]byte("webhook { url = \"http://h\"\n"+section+"\n}"), "x"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: no %q in %v", section, want, err)
		}
	}
}

// TestUnknownInRule: who has a setting in the wrong place is told the right one.
func TestUnknownInRule(t *testing.T) {
	const ofSection = "is not a setting of a rule, but of the section: it belongs outside of events."
	for setting, want := range map[string]string{
		"pool_size = 5":                  `"pool_size" ` + ofSection,
		"SSL { verify_peer = false }":    `"SSL" ` + ofSection,
		"enable = false":                 `"enable" ` + ofSection,
		"signing.secret = \"x\"":         `"signing" ` + ofSection,
		"queue { type = \"jetstream\" }": `"queue" ` + ofSection,
		"body.max_payload = 5":           `"max_payload" ` + ofSection,
		"body.size = 5":                  `"size" is not a setting of body.`,
		"qos = 1":                        `"qos" is not a setting of a rule.`,
	} {
		src := "webhook { url = \"http://h\"\nevents = [{ event = on_message_publish, " + setting + " }]\n}"
		if _, err := Parse([]byte(src), "x"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: no %q in %v", setting, want, err)
		}
	}
}

func TestWriteDiagnosticsAnyError(t *testing.T) {
	tests := []struct {
		err  error
		want string
	}{
		{nil, ""},
		{errors.New("plain"), "Error: plain\n"},
		{fmt.Errorf("wrapped: %w", hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "S", Detail: "D."}}), "Error: S\n\nD.\n\n"},
	}
	for _, test := range tests {
		t.Run(fmt.Sprint(test.err), func(t *testing.T) {
			var b strings.Builder
			if err := WriteDiagnostics(&b, test.err); err != nil || b.String() != test.want {
				t.Errorf("got %q, %v, want %q", b.String(), err, test.want)
			}
		})
	}
}

// TestUnusedInGo has settings in Go that have no effect, as a file has them.
func TestUnusedInGo(t *testing.T) {
	for want, change := range map[string]func(e *Endpoint){
		"Queue.Sync":      func(e *Endpoint) { e.Queue.Sync = SyncAlways },
		"TLS.KeyPassword": func(e *Endpoint) { e.TLS.KeyPassword = "x" },
		"DeadLetter":      func(e *Endpoint) { e.DeadLetter.Keep = 3 },
		"Body.Encoding":   func(e *Endpoint) { e.Body.Format, e.Body.Encoding = FormatCloudEventsBinary, Base64 },
	} {
		e := Endpoint{URL: "http://h", Events: rulesFor(OnMessagePublish)}
		change(&e)
		if _, err := (&Config{Endpoints: []Endpoint{e}}).resolve(); err == nil || !strings.Contains(err.Error(), want+" ") {
			t.Errorf("%s: got %v", want, err)
		}
	}
}
