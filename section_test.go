package webhook

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
)

const sample = "webhook {\n\turl = \"http://127.0.0.1/hook\"\n}"

// foreignLines are texts that a file may have before and after a section.
var foreignLines = []string{
	``, `   `, "\t# comment {", `// " comment {`, `/* webhook { */`, `/* not closed`, `a = /* b */ c`,
	`max_packet_size = 1KB`, `'a"b'`, `a = 'a"b' { b = 'c}"' }`, `a = <<x`, `a = <<EOT`, `x = "%{x"`, `x = "${x"`, `"%{x"`, `"${`,
	`a = "b`, `a = "b\"`, `a = b"`, `it's`, `a = it's { b = don't }`, `'`, `"`, `"""`, `'''`, "`", `}`, `]`, `[`, `(`, `)`, `,`, `;`, `\`, `=`, `.`,
	`include "x.conf"`, `include conf.d/*.conf`, `url = http://h/`, `dir = "C:\\"`, "a = \x00\xff\xfe", "é = \"日本\"",
	`webhook_x {` + "\n" + `url = 5` + "\n" + `}`, `webhook-x { url = 5 }`, `x.webhook = 5`, `x.webhook { url = 5 }`, `a = webhook`, `a = [webhook, http]`, `webhooks = 5`,
	`bridges.mqtt.webhook {` + "\n\t" + `webhook = { url = 5 }` + "\n" + `}`, `"a": { "webhook": { "url": 5 } },`, `a { webhook { url = "http://h" } }`, "a {\nwebhook {\n}\n}",
	`rules.ekuiper { sql = "SELECT \"a{\" FROM 'x{' WHERE a = '}'" }`, `a = "}"`, `a = "{"`, `a = '{'`, `a = { # }` + "\n" + `}`, `a = { // }` + "\n" + `}`, `a = "#{" # {`,
	`webhook`, `webhook, http`, `webhook is nice`, `"webhook"`, `webhook == 5`, `webhook/x { }`, `mqtt { a = 1KB, b = "x" } log { to = [file] }`, `a = 1 }`,
}

// TestForeignLines: each of them before and after a section changes nothing.
func TestForeignLines(t *testing.T) {
	want, err := Parse([]byte(sample), "x")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range foreignLines {
		t.Run(line, func(t *testing.T) {
			for _, src := range []string{line + "\n" + sample, sample + "\n" + line, line + "\r\n" + sample + "\r\n" + line} {
				cfg, err := Parse([]byte(src), "x")
				if err != nil || !reflect.DeepEqual(cfg, want) {
					t.Errorf("%q: %v\n got %s\nwant %s", src, err, dump(cfg), dump(want))
				}
			}
		})
	}
}

func TestSectionsFound(t *testing.T) {
	tests := []struct {
		name, src string
		labels    string // of the sections
	}{
		{"none", "a { webhook { } }", ""},
		{"prefixed", "x.webhook { }\nwebhook_x { }\n-webhook { }", ""},
		{"one line", "a {} webhook {} b {}", "-"},
		{"after a comma", "a = 1, webhook = {}", "-"},
		{"labels", "webhook \"a\" {}\nwebhook b {} WEBHOOK {}", "a b -"},
		{"label and a separator", "webhook a = {}\nwebhook b : {\n}\nwebhook c={ }\nwebhook d =\n{}", "a b c d"},
		{"prose", "webhook is used here for {\n}\nwebhook a b { }", ""},
		{"quoted", "\"WebHook\" : {}", "-"},
		{"label in quotes, brace on the next line", "webhook \"a\"\n// c\n{\n}", "a"},
		{"separator on the next line", "\"webhook\"\n:{}\nwebhook \"a\"\n=\n{}", "- a"},
		{"heading", "webhook\n======= {}\nwebhook\n: a list\nwebhook secrets:\n{}\nwebhook notes\n=\n{}", ""},
		{"JSON", "{ \"a\": {}, \"webhook\": {} }", "-"},
		{"behind a comment", "/* x */ webhook {}", "-"},
		{"in a comment", "/* x \n webhook {} */ # webhook {}\n//webhook {}", ""},
		{"two lines of one section", "webhook.a = 1\nwebhook.b = 2 webhook.c = 3", "-"},
		{"value of another", "a = webhook {}", ""},
		{"unclosed brace before", "a {\nwebhook {}", ""},
		{"a brace too many before", "a }\n}\nwebhook {}", "-"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := newReader([]byte(test.src))
			var labels []string
			for _, s := range r.sections() {
				if s.label == nil {
					labels = append(labels, "-")
				} else {
					labels = append(labels, s.label.name)
				}
			}
			if got := strings.Join(labels, " "); got != test.labels {
				t.Errorf("%q: got %q, want %q", test.src, got, test.labels)
			}
		})
	}
}

func TestNoSection(t *testing.T) {
	tests := []struct{ src, want string }{
		{"", "An include is not followed."},
		{"a = 5\ninclude \"webhook.conf\"\n", "An include is not followed."},
		{"a = 5\nb {\nwebhook { }\n", "section behind it is not found. That begins on line 3."},
		{"\xff\xfew\x00e\x00b\x00h\x00o\x00o\x00k\x00\n\x00{\x00}\x00", "has to be UTF-8"},
		{"\xfe\xff", "has to be UTF-8"},
		{"w\x00\x00\x00e\x00\x00\x00", "has to be UTF-8"},
		{"a = \"caf\xe9\"", "An include is not followed."}, // any text may be around a section
	}
	for _, test := range tests {
		t.Run(test.src, func(t *testing.T) {
			_, err := Parse([]byte(test.src), "x")
			diags := diagnosticsOf(t, []byte(test.src), err)
			if len(diags) != 1 || !strings.Contains(diags[0].Detail, test.want) {
				t.Errorf("%q: got %v, want %q", test.src, err, test.want)
			}
		})
	}
}

// TestOtherKeys: a file of EMQX 4, or of a NanoMQ that had its keys, says where they are.
func TestOtherKeys(t *testing.T) {
	const rule = "web.hook.rule.client.connack.1 = {\"action\": \"on_client_connack\"}\n"
	for _, test := range []struct{ name, src, want string }{
		{"EMQX 4", "## a\n#web.hook.url = x\n\n  web.hook.url = http://u:s3cret@h/\nweb.hook.headers.token = s3cret\n" + rule, "4,3-15"},
		{"NanoMQ", "web.hook.enable=true\n" + rule, "1,1-16"},
		{"byte order mark, letter case", "\ufeffWEB.hook.url=x", "1,1-13"},
		{"CRLF", "a = 5\r\nweb.hook.body.encoding_of_payload_field=plain\r\n", "2,1-40"},
	} {
		t.Run(test.name, func(t *testing.T) {
			wantErrorAt(t, test.src, test.want)
			_, text, err := printed(t, test.src)
			if !strings.Contains(text, "No webhook section") || !strings.Contains(text, "begin with web.hook.") {
				t.Errorf("%q: %s", test.src, text)
			}
			noSecret(t, err, text, "s3cret")
		})
	}
	for _, src := range []string{"#web.hook.url = x", "a.web.hook.url = x", "web.hook", "web-hook.url = x"} {
		wantErrorAt(t, src, "1,1-1")
	}
	wantErrorAt(t, rule+sample, "")
}

// wantErrorAt checks that a file has one error, in a range, or with "" none.
func wantErrorAt(t *testing.T, src, want string) {
	t.Helper()
	_, err := Parse([]byte(src), "x")
	got := ""
	for _, d := range diagnosticsOf(t, []byte(src), err) {
		got += strings.TrimPrefix(d.Subject.String(), "x:")
	}
	if got != want {
		t.Errorf("%q: errors at %q, want %q: %v", src, got, want, err)
	}
}

// TestOpenBrace: a section behind a brace that is never closed does not get lost
// without a word.
func TestOpenBrace(t *testing.T) {
	tests := []struct {
		name, src string
		want      string // the range of the error, "" for none
	}{
		{"a section behind it", sample + "\na {\nb = 5\nwebhook \"x\" {\n}\n", "4,3-4"},
		{"the outer one", "a {\nb {\nc { webhook { }\n}\n" + sample, "1,3-4"},
		{"the last one", "a {\nwebhook { }\n}\nb { webhook { } }\n" + sample + "\nc = {\nwebhook = { }\n", "8,5-6"},
		{"one line of a section", sample + "\na {\nwebhook.url = \"http://h\"", "4,3-4"},
		{"nothing behind it", sample + "\na {\nb = webhook\nwebhook is nice\nx.webhook { }", ""},
		{"closed", sample + "\na {\nwebhook { }\n}", ""},
		{"around a JSON file", "{ \"webhook\": { \"url\": \"http://127.0.0.1/hook\" }, \"a\": { \"webhook\": { } }", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			wantErrorAt(t, test.src, test.want)
		})
	}
}

// TestBraceTooMany: the rest of a section behind a brace too many in it does not get
// lost without a word.
func TestBraceTooMany(t *testing.T) {
	const early = "webhook {\ntls { verify_peer = false } }\n"
	tests := []struct {
		name, src string
		want      string // the range of the error, "" for none
	}{
		{"a list", early + "url = \"http://h\"\nevents = [ { event = on_client_connack } ]\n}", "3,1-4"},
		{"a block", early + "a = 5\nRetry {\nmax_attempts = 5\n}\n} # end", "4,1-6"},
		{"a dotted name", early + "# c\nssl.enable = false }\nwebhook \"b\" { url = \"http://h\" }", "4,1-4"},
		{"one line", "webhook \"a\" { url = \"http://h\" }, pool_size : 5 }", "1,35-44"},
		{"two too many", "webhook \"a\" { url = \"http://h\" } }\npool_size = 5 }", "2,1-10"},
		{"JSON", "{ \"webhook\": { \"url\": \"http://h\" }\n}, \"a\": {},\n\"events\": [] } }", "3,1-9"},
		{"no brace in front of it", "webhook\nurl = \"http://h\"\n}\n" + sample, "1,1-8"},
		{"no brace in front of the second", sample + "\nwebhook # c\nurl = \"http://h\"\n}", "4,1-8"},
		{"the word webhook within what is lost", early + "pool_size = 5\nwebhook\n}", "3,1-10"},
		{"two of one section", "webhook.enable = false\n" + early + "pool_size = 5\n}", "4,1-10"},
		{"of the first", "webhook \"a\" {\nurl = \"http://h\" }\nqueue {\n}\n}\n" + sample, "3,1-6"},
		{"of a block", "webhook.url = \"http://h\"\nwebhook.SSL { enable = true }\nverify_peer = false\n}\n", "3,1-12"},
		{"of a block of the section before", sample + "\nwebhook.queue = { type = disk }\ndir = \"x\" }", "5,1-4"},
		{"behind a block", sample + "\nwebhook.breaker { failures = 3 }\nurl = \"http://x\"\n}", ""},
		{"no brace behind what a block has", sample + "\nwebhook.breaker { failures = 3 }\ncooldown = 5\n", ""},
		{"no brace behind it", sample + "\nurl = http://h/\nevents = [ ]\ntls { a = }", ""},
		{"a brace in front of it", sample + "\n}\nurl = http://h/", ""},
		{"within another section", sample + "\na {\nenable = true\n}\n}", ""},
		{"other names", sample + "\na = 5\nevents_x = 5\nx.events = 5\na = events\n}", ""},
		{"no member", sample + "\nevents, events == 5\nevents are }", ""},
		{"around a JSON file", "{ \"webhook\": { \"url\": \"http://h\" }, \"tls\": {} }", ""},
		{"in front of a section", "tls { }\n}\n" + sample, ""},
		{"behind a line of a section", "webhook.url = \"http://h\"\nqueue { }\n}", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			wantErrorAt(t, test.src, test.want)
		})
	}
}

// FuzzForeignText puts random foreign text around a section.
func FuzzForeignText(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(seed, "x = ", "\"")
	}
	want, err := Parse([]byte(sample), "x")
	if err != nil {
		f.Fatal(err)
	}
	// One line of any bytes is foreign as long as it leaves no brace and no
	// comment open, and does not speak of a webhook.
	plain := func(line string) string {
		return strings.NewReplacer("\n", " ", "{", "", "}", "", "/*", "", "*/", "", "*", "").Replace(line)
	}
	f.Fuzz(func(t *testing.T, seed uint64, before, after string) {
		if strings.Contains(strings.ToLower(before+after), "webhook") || slices.ContainsFunc(sectionKeys, func(name string) bool {
			return strings.Contains(strings.ToLower(after), name)
		}) {
			t.Skip()
		}
		random := rand.New(rand.NewPCG(seed, 0))
		text := func(line string) string {
			lines := []string{plain(line)}
			for range random.IntN(6) {
				lines = append(lines, foreignLines[random.IntN(len(foreignLines))])
			}
			random.Shuffle(len(lines), func(i, j int) { lines[i], lines[j] = lines[j], lines[i] })
			return strings.Join(lines, "\n")
		}
		one, two := text(before), text(after)
		one = strings.ReplaceAll(one, "/* not closed", "") // a later */ would close it
		two = strings.ReplaceAll(two, "url", "uri")        // with a brace too many behind it, it would be of the section
		src := one + "\n" + sample + "\n" + two
		cfg, err := Parse([]byte(src), "x")
		if err != nil || !reflect.DeepEqual(cfg, want) {
			t.Errorf("%q: %v\n got %s\nwant %s", src, err, dump(cfg), dump(want))
		}
	})
}

// FuzzParse: no bytes make Parse panic, every error has its range, nothing
// that it accepts is refused later, and redaction keeps the lines.
func FuzzParse(f *testing.F) {
	for _, s := range fuzzSeeds(f) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		cfg, err := Parse(src, "x")
		if (cfg == nil) == (err == nil) {
			t.Fatalf("%q: %v beside %v", src, cfg, err)
		}
		diagnosticsOf(t, src, err)
		if err == nil {
			if resolved, err := cfg.resolve(); err != nil || !reflect.DeepEqual(cfg, resolved) {
				t.Errorf("%q: resolve: %v\n got %s\nwant %s", src, err, dump(resolved), dump(cfg))
			}
		}
		if got, want := strings.Count(string(redact(src)), "\n"), strings.Count(string(src), "\n"); got != want {
			t.Errorf("%q: redacted to %d newlines, want %d", src, got, want)
		}
	})
}
