package webhook

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

func fuzzSeeds(tb testing.TB) [][]byte {
	var seeds [][]byte
	for _, pattern := range []string{"testdata/config/valid/*/*", "testdata/config/invalid/*"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			tb.Fatal(err)
		}
		for _, file := range files {
			src, err := os.ReadFile(file)
			if err != nil {
				tb.Fatal(err)
			}
			seeds = append(seeds, src)
		}
	}
	data, err := os.ReadFile("testdata/config/grammar.jsonl")
	if err != nil {
		tb.Fatal(err)
	}
	for line := range bytes.Lines(data) {
		var probe struct{ Text string }
		if err := json.Unmarshal(line, &probe); err != nil {
			tb.Fatal(err)
		}
		seeds = append(seeds, []byte(probe.Text))
	}
	return seeds
}

// printed is what people see of the mistakes in a file, and where it is.
func printed(t *testing.T, src string) (file, text string, err error) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "webhook.conf")
	write(t, file, src)
	_, err = ParseFile(file)
	var got strings.Builder
	if err := WriteDiagnostics(&got, err); err != nil {
		t.Fatal(err)
	}
	return file, got.String(), err
}

// TestWriteDiagnostics shows what people see.
func TestWriteDiagnostics(t *testing.T) {
	src := "password = hunter2\n" +
		"webhook \"orders\" {\n" +
		"  url = \"http://u:hunter2@h:0/x\" # hunter3\n" +
		"  headers = { authorization = \"hunter4\", te = \"hunter5\", x-n = 5 }\n" +
		"  events = [{ event = \"on_message_publish\", topic = \"a/#/b\" }, { event = on_client_conack }]\n" +
		"  pol_size = \"hunter6\"\n" +
		"  cancel_timeout = 5s\n" +
		"}\n"
	file, got, err := printed(t, src)
	for _, want := range []string{
		"Error: Invalid url\n\n  on " + file + " line 3, column 9:\n   3:   url = \"…\" …\n\nurl must have a port of 1 to 65535",
		`   4:   headers = { authorization = "…", te = "…", x-n = … }`,
		`   5:   events = [{ event = "on_message_publish", topic = "a/#/b" }, { event = …`,
		`   6:   pol_size = "…"`,
		`did you mean pool_size?`,
		`   7:   cancel_timeout = …`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in:\n%s", want, got)
		}
	}
	noSecret(t, err, "", "hunter")
}

// TestWriteDiagnosticsPrintable: what a file holds does nothing to a terminal.
func TestWriteDiagnosticsPrintable(t *testing.T) {
	src := "webhook {\n url = \"http://h\"\n events = [{ event = on_message_publish, topic = \"a#\x1b[31m\u009b\r\u202e\" }]\n}\nwebhook \"b\" { url = \"http://h\", events = [\xff] }"
	_, text, _ := printed(t, src)
	if !utf8.ValidString(text) || !strings.Contains(text, "a#\ufffd[31m\ufffd\ufffd\ufffd") || strings.ContainsAny(text, "\x1b\u009b\r\u202e") {
		t.Errorf("%q", text)
	}
}

// TestNoComputedValueEscapes has values from the environment fail where the
// file alone does not tell: outside of it, or beside another value.
func TestNoComputedValueEscapes(t *testing.T) {
	ca := newTestCA(t, "CA")
	certFile, keyFile := ca.clientFiles()
	_, otherKey := ca.clientFiles()
	for _, test := range []struct{ name, value, body string }{
		{"missing file", "/s3cret/ca.pem", "tls.cacertfile = VALUE"},
		{"file without a certificate", keyFile, "tls.cacertfile = VALUE"},
		{"malformed certificate", writePEM(t, "CERTIFICATE", []byte("x")), "tls.cacertfile = VALUE"},
		{"certificate file without one", keyFile, `tls { certfile = VALUE, keyfile = "` + otherKey + `" }`},
		{"key file without one", certFile, `tls { certfile = "` + certFile + `", keyfile = VALUE }`},
		{"key of another", otherKey, `tls { certfile = "` + certFile + `", keyfile = VALUE }`},
		{"certificate of another", certFile, `tls { certfile = VALUE, keyfile = "` + otherKey + `" }`},
		{"backoffs", "1.234s", `retry { min_backoff = "5s", max_backoff = VALUE }`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Setenv("WEBHOOK_TEST_VALUE", test.value)
			body := strings.Replace(test.body, "VALUE", `env("WEBHOOK_TEST_VALUE")`, 1)
			src := []byte("webhook {\n  url = \"https://127.0.0.1/\"\n  " + body + "\n}\n")
			_, err := Parse(src, "webhook.hcl")
			if len(diagnosticsOf(t, src, err)) != 1 {
				t.Errorf("got %v, want one problem", err)
			}
			noSecret(t, err, "", test.value)
		})
	}
}

// TestNoSecretEscapes breaks a configuration in every way that turns a secret
// into something else.
func TestNoSecretEscapes(t *testing.T) {
	t.Setenv("WEBHOOK_TEST_SECRET", "http://s3cret:s3cret@h:0/\n")
	places := []string{
		"url = VALUE", "headers.authorization = VALUE", "headers = { authorization = VALUE }", "headers { authorization = VALUE }",
		"headers : {\n\"authorization\" : VALUE\n}", "HEADERS.x VALUE", "tls.key_password = VALUE", "ssl { key_password = VALUE }", "tls = { key_password = VALUE }",
		"hedders.authorization = VALUE", "signing { secret = VALUE }", "url = \"http://h\"\nurl = VALUE", "events = VALUE", "events = [ { event = on_client_connack, token = VALUE } ]",
		"headers = VALUE", "headers = [ VALUE ]", "headers.a.b = VALUE", "url.x = VALUE", "tls = VALUE", "= VALUE", "url VALUE", "url += VALUE",
		"url = { x = VALUE }",
		"events = [ { event = on_client_connack, url = VALUE } ]", "events.1 { event = on_client_connack, url = VALUE }",
		"events = [ { event = on_client_connack, headers = { authorization = VALUE } } ]", "events = [ { event = on_client_connack, headers.authorization = VALUE } ]",
		"events = [ { event = on_client_connack, headers = VALUE } ]",
	}
	values := []string{
		"\"s3cret\"", "\"s3cret", "s3cret\"", "s3cret", "s3cret-x", "s3cret s3cret", "s3cret = s3cret", "Bearer s3cret=", "Bearer s3cret==", "\"Bearer\" s3cret", "\"a\"s3cret\"", "\"a\" s3cret\"", "\"a\" s3cret = \"b\"",
		"'s3cret'", "'a s3cret'", "`s3cret`", "<<EOT\ns3cret = 5\ns3cret\nEOT\n", "<<-EOT\n  s3cret\n  EOT", "<<EOT \ns3cret = 5\nEOT", "\"\"\"\ns3cret = 5\n\"\"\"",
		"\"a\ns3cret = 5\"", "\"a\ns3cret { b = 5 }\"", "\"a\\\ns3cret = 5\"", "\"${s3cret}\"", "\"a${s3cret(\"s3cret\")}\"", "\"%{s3cret\"", "\"${s3cret\"", "\"${\ns3cret = 5\n}\"", "\"%{ if s3cret }\"",
		`"${env(\"WEBHOOK_TEST_SECRET\")}"`, `"s3cret${\"s3cret\"}"`, `"${s3cret(\"s3cret\")}"`, `"${\"s3cret"`, `"${\"s3cret\"`, `"${env(\"s3cret)}" s3cret`, `"${\"\\s3cret\"}"`, `"${\"\s3cret\"}"`, `"${env("s3cret\")}"`,
		"\"s3cret\\q\"", "\"s3cret\\u00\"", "\"s3cret\\u0000\"", "s3cret(5)", "s3cret(\"s3cret\"", "env(\"WEBHOOK_TEST_SECRET\")", "\"${env(\"WEBHOOK_TEST_SECRET\")}x\"", "env(env(\"WEBHOOK_TEST_SECRET\"))", "file(env(\"WEBHOOK_TEST_SECRET\"))",
		"\"x${file(env(\"WEBHOOK_TEST_SECRET\"))}\"", "(env(\"WEBHOOK_TEST_SECRET\") + 1)", "(true ? env(env(\"WEBHOOK_TEST_SECRET\")) : \"\")", "http://s3cret:s3cret@h/s3cret", "http://a,s3cret=s3cret", "http://a}s3cret", "http://a{s3cret=5}", "\"http://s3cret:s3cret@h:99999/s3cret\"",
		"\"s3cret\" # s3cret\n", "/* s3cret */ 5", "5 // s3cret", "[ \"s3cret\", s3cret ]", "{ \"a\" = \"s3cret\" }", "{ a = s3cret }", "\"s3cret\xff\"", "5s3cret", "0xs3cret", "-s3cret", "s3cret.s3cret", "s3cret/s3cret", "@s3cret", "$s3cret", "\"a\" + \"s3cret\"", "\"a\" \"s3cret\"", "\"a\", \"s3cret\"", "\"a\";s3cret",
	}
	file := filepath.Join(t.TempDir(), "webhook.conf")
	for _, place := range places {
		t.Run(place, func(t *testing.T) {
			for _, value := range values {
				src := "foreign = \"s3cret\"\nwebhook {\n  pool_size = 0\n  " + strings.Replace(place, "VALUE", value, 1) + "\n  ordering = 5\n}\nforeign = s3cret\n"
				write(t, file, src)
				_, err := ParseFile(file)
				diagnosticsOf(t, []byte(src), err)
				if noSecret(t, err, string(redact([]byte(src))), "s3cret"); t.Failed() {
					t.Fatalf("from:\n%s", src)
				}
			}
		})
	}
}

// TestNoSecretBehindAnOpenComment: a comment without its end makes a secret the value
// of the setting in front of it.
func TestNoSecretBehindAnOpenComment(t *testing.T) {
	for _, value := range []string{"\"s3cret\"", "\n\"s3cret\""} {
		_, text, err := printed(t, "webhook {\nurl = \"http://h\"\ntls {\nmin_version = /* at least\nkey_password = /* of the vault */ "+value+"\n}\n}")
		noSecret(t, err, text, "s3cret")
	}
}
