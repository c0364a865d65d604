package webhook

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestCheckFilter(t *testing.T) {
	long := strings.Repeat("x", maxFilter)
	for _, tt := range []struct{ name, filter, want string }{
		{"level", "a", ""},
		{"levels", "a/b/c", ""},
		{"space", " ", ""},
		{"slash", "/", ""},
		{"empty levels", "//a//", ""},
		{"hash", "#", ""},
		{"hash last", "a/b/#", ""},
		{"hash below empty level", "/#", ""},
		{"plus", "+", ""},
		{"plus anywhere", "+/a/+/+", ""},
		{"plus and hash", "+/#", ""},
		{"plus below empty levels", "//+", ""},
		{"dollar", "$", ""},
		{"broker's own", "$SYS/#", ""},
		{"share further down", "a/$share/b", ""},
		{"only begins like a share", "$shared/a/b", ""},
		{"not ASCII", "ärger/→/😀", ""},
		{"byte order mark", "\ufeffa", ""},
		{"control character", "a\x01\n", ""},
		{"longest", long, ""},

		{"empty", "", `must not be empty`},
		{"too long", long + "x", `must not be longer than MQTT's 65535 bytes`},
		{"NUL", "a/\x00", `must not contain a NUL character`},
		{"only NUL", "\x00", `must not contain a NUL character`},
		{"not UTF-8", "a/\xff", `must be valid UTF-8`},
		{"surrogate", "a/\xed\xa0\x80", `must be valid UTF-8`},
		{"overlong NUL", "a/\xc0\x80", `must be valid UTF-8`},
		{"plus after text", "sport+", `must have + as a level of its own`},
		{"plus before text", "a/+b/c", `must have + as a level of its own`},
		{"two pluses", "a/++", `must have + as a level of its own`},
		{"hash after text", "sport/tennis#", `must have # as a level of its own`},
		{"hash before text", "a/#b", `must have # as a level of its own`},
		{"plus hash", "+#", `must have + as a level of its own`},
		{"two hashes", "##", `must have # as a level of its own`},
		{"hash first", "#/a", `must have # as the last level only`},
		{"hash in between", "sport/tennis/#/ranking", `must have # as the last level only`},
		{"hash before a slash", "a/#/", `must have # as the last level only`},
		{"hash twice", "#/#", `must have # as the last level only`},
		{"share", "$share/g/a/+", `must not begin with $share/<group>/`},
		{"share in capitals", "$SHARE/g/a", `must not begin with $share/<group>/`},
		{"share without filter", "$share/g", `must not begin with $share/<group>/`},
		{"share of a bad filter", "$share/g/a#", `must not begin with $share/<group>/`},
		{"long and bad", strings.Repeat("ä", 1000) + "+", `must have + as a level of its own`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := checkFilter(tt.filter)
			if tt.want == "" {
				if err != nil {
					t.Errorf("checkFilter(%.99q) = %q, want no error", tt.filter, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("checkFilter(%.99q) = %q, want an error with %q", tt.filter, err, tt.want)
			}
			checkPredicate(t, err)
		})
	}
}

// checkPredicate holds an error of checkFilter against what goes on after the
// name of a setting.
func checkPredicate(t *testing.T, err error) {
	t.Helper()
	text := err.Error()
	if !errors.As(err, new(*invalid)) {
		t.Errorf("%q is a %T, want an *invalid", err, err)
	}
	if !strings.HasPrefix(text, "must ") || strings.HasSuffix(text, ".") {
		t.Errorf("%q does not go on after a name", text)
	}
	if len(text) > 100 || !isASCII(text) || strings.ContainsFunc(text, unicode.IsControl) {
		t.Errorf("%q has text of the filter in it", text)
	}
}

func TestUnshared(t *testing.T) {
	for _, tt := range []struct{ name, filter, want string }{
		{"ordinary", "a/b", "a/b"},
		{"empty", "", ""},
		{"share", "$share/g/a/b", "a/b"},
		{"capitals", "$SHARE/g/a", "a"},
		{"mixed", "$sHaRe/g/a", "a"},
		{"wildcards", "$share/g/+/#", "+/#"},
		{"empty level first", "$share/g//a", "/a"},
		{"only a slash", "$share/g//", "/"},
		{"broker's own", "$share/g/$SYS/#", "$SYS/#"},
		{"share of a share", "$share/g/$share/h/a", "$share/h/a"},
		{"prefix alone", "$share", "$share"},
		{"prefix and slash", "$share/", "$share/"},
		{"group alone", "$share/g", "$share/g"},
		{"no filter", "$share/g/", "$share/g/"},
		{"no group", "$share//a", "$share//a"},
		{"plus for a group", "$share/+/a", "$share/+/a"},
		{"hash in the group", "$share/g#/a", "$share/g#/a"},
		{"longer word", "$shared/g/a", "$shared/g/a"},
		{"further down", "a/$share/g/b", "a/$share/g/b"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := unshared(tt.filter); got != tt.want {
				t.Errorf("unshared(%q) = %q, want %q", tt.filter, got, tt.want)
			}
		})
	}
}

// validFilter is checkFilter by the words of the specification.
func validFilter(filter string) bool {
	if filter == "" || len(filter) > 65535 || !utf8.ValidString(filter) || strings.Contains(filter, "\x00") {
		return false
	}
	levels := strings.Split(filter, "/")
	if len(levels) > 1 && strings.EqualFold(levels[0], "$share") && isASCII(levels[0]) {
		return false
	}
	for i, l := range levels {
		last := i == len(levels)-1
		if strings.ContainsAny(l, "+#") && l != "+" && !(l == "#" && last) {
			return false
		}
	}
	return true
}

func isASCII(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r >= 0x80 }) < 0
}

func FuzzCheckFilter(f *testing.F) {
	for _, s := range []string{"", "a/b", "+/#", "a/#/b", "a+/b", "$share/g/a", "$SYS/#", "\x00", "\xff", "/", "ſ$share/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, filter string) {
		err := checkFilter(filter)
		if got, want := err == nil, validFilter(filter); got != want {
			t.Fatalf("checkFilter(%q) = %v, want valid = %t", filter, err, want)
		}
		if err != nil {
			checkPredicate(t, err)
		}
		if bare := unshared(filter); bare != filter && !slices.Contains(sharesOf(filter), bare) {
			t.Fatalf("unshared(%q) = %q, which is not behind a group", filter, bare)
		}
	})
}

// sharesOf returns what can be the filter of a shared subscription.
func sharesOf(filter string) []string {
	parts := strings.SplitN(filter, "/", 3)
	if len(parts) == 3 && strings.EqualFold(parts[0], "$share") && parts[1] != "" && parts[2] != "" {
		return parts[2:]
	}
	return nil
}
