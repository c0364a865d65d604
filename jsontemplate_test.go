package webhook

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

// header returns what the value of a header is read as, if it is one.
func header(value string) (text string, err error) {
	cfg, err := Parse([]byte(`{"webhook": {"url": "http://h", "events": [{"event": "on_client_connack"}], "headers": {"x": `+value+`}}}`), "x")
	if err != nil {
		return "", err
	}
	return string(cfg.Endpoints[0].Headers[0].Value), nil
}

// TestJSONTemplate: in JSON, templates have a backslash before each quote.
func TestJSONTemplate(t *testing.T) {
	t.Setenv("WEBHOOK_TEST_VALUE", "a\"\\b")
	t.Setenv("WEBHOOK_TEST_NAME", "WEBHOOK_TEST_VALUE")
	for value, want := range map[string]string{
		`"${env(\"WEBHOOK_TEST_VALUE\")}"`:                                    "a\"\\b",
		`"x ${env(\"WEBHOOK_TEST_VALUE\")} \"${\"y\"}\""`:                     "x a\"\\b \"y\"",
		`"${env(env(\"WEBHOOK_TEST_NAME\"))}"`:                                "a\"\\b",
		`"${env(\"WEBHOOK_TEST_${\"${\"VALUE\"}\"}\")}"`:                      "a\"\\b",
		`"${\"a\\\"b\\\\c\\u0041\\u00e9\u00e9\"}"`:                            "a\"b\\cAéé",
		`"http:\/\/h\/\ud83d\ude00\u0041\\\"${\"\/\ud83d\ude00\"}"`:           "http://h/😀A\\\"/😀",
		`"\u0024{x} \u0025{x} $${x} %%{x} ${\"$${x} %%{x}\"}"`:                "${x} %{x} ${x} %{x} ${x} %{x}",
		`"$$${\"a\"} $ % ${ \"b\" }"`:                                         "$${\"a\"} $ % b",
		`"%{ if true \u0026\u0026 \"a\" == \"a\" ~} y\"%{ else }n%{ endif }"`: "y\"",
		`"${ {\"a\": {\"b\": \"}\"}}.a.b }"`:                                  "}",
		`"${ /* \" */ \"a\" }"`:                                               "a",
		`"${ /* \" */ "a" }"`:                                                 "a",       // HCL's own
		`"${ 1 /* \"\" } */ }${"a"}"`:                                         "1a",      // as well
		`"${\"e\u0301\"}"`:                                                    "e\u0301", // not brought into Unicode's normal form
	} {
		if got, err := header(value); got != want || err != nil {
			t.Errorf("%s is %q, want %q: %v", value, got, want, err)
		}
	}
	for value, want := range map[string]string{
		`"${env("A\")}"`:            "Unclosed string",
		`"${env(\"A")}"`:            "Unclosed string",
		`"${env(\"A)}"`:             "without a backslash",
		`"${env(\"A\")"`:            "without a backslash",
		`"${env("${env(\"A\")}")}"`: "without a backslash",
		`"${\"a\"}${"a"}"`:          "without a backslash",
		`"${\"a\"}\q"`:              "without a backslash",
		"\"${\\\"a\\\"\n}\"":        "without a backslash",
		`"${\"a\"`:                  "without a backslash",
		`"${\"a\\q\"}"`:             "Invalid expression",
		`"${\"a\nb\"}"`:             "without a backslash",
		`"${env(\"A\"}"`:            "Invalid expression",
		`"${\\\"a\\\"}"`:            "without a backslash",
		`env(\"A\")`:                "Missing closing parenthesis",
	} {
		if got, err := header(value); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s is %q, %v, want %q", value, got, err, want)
		}
	}
}

// FuzzJSONTemplate: a template means the same with what JSON adds.
func FuzzJSONTemplate(f *testing.F) {
	for _, s := range []string{
		`"a"`, `"a\"b\\c\u00e9"`, `env("HOME")`, `env("NO${"NE"}")`, `"${"${"a"}"}$${"`, `1 < 2 && "a" == "}" ? "b" : "<>&"`, ` {"a": "b"}["a"] `, `~ "a" ~`,
		`"/* // #"`, `"%{if true}a\"%{else}b%{endif}"`, "\"a\u2028e\u0301\"", `"\U0001F600\/"`, `/* " */ 1`, `["a"][0]`, `"\q"`, `x`, `"`, `}`, `"a"}${"b"`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, expression string) {
		inside := "${" + expression + "}"
		written, err := json.Marshal(inside)
		end, ok := (&reader{src: []byte(inside)}).balanced(2, '}', 1)
		if err != nil || !ok || end != len(inside) || !bytes.Contains(written[1:len(written)-1], []byte(`\"`)) || strings.ContainsAny(inside, "\n\ufffd") {
			t.Skip()
		}
		want, wantErr := header(`"` + inside + `"`)
		got, gotErr := header(string(written))
		if got != want || (gotErr == nil) != (wantErr == nil) {
			t.Errorf("%s is %q, %v\n%s is %q, %v", written, got, gotErr, inside, want, wantErr)
		}
	})
}
