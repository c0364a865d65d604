package webhook

import (
	"bytes"
	"regexp"
	"strings"
	"unicode/utf8"
)

// What a string with ${…} and %{…} has to be in JSON, where no quote goes without a
// backslash. To HCL a backslash inside of them means nothing, so no string is both.

// closingJSON is closing for a string as JSON has it, in which the quotes inside
// ${…} and %{…} have a backslash, too.
func (r *reader) closingJSON(off int) int {
	begin := off
	for ; off < len(r.src) && r.src[off] != '\n'; off++ {
		switch r.src[off] {
		case '\\':
			if off++; r.at(off) == '\n' {
				return -1
			}
		case '"':
			if _, _, ok := plainTemplate(r.src[begin:off]); !ok {
				return -1
			}
			return off + 1
		}
	}
	return -1
}

// plainTemplate returns the inside of a string as HCL writes it, without what JSON
// adds inside ${…} and %{…}: those are escaped once more, as ${env(\"NAME\")}. At
// has where each byte of it comes from, and its end.
func plainTemplate(inside []byte) (text []byte, at []int, ok bool) {
	plain, from, ok := unescapeJSON(inside)
	if !ok {
		return nil, nil, false
	}
	r := &reader{src: plain}
	copied := func(end int) {
		text, at = append(text, plain[r.off:end]...), append(at, from[r.off:end]...)
		r.off = end
	}
	for !r.end() {
		c := plain[r.off]
		begin := from[r.off]
		_, size := utf8.DecodeRune(plain[r.off:])
		switch end := from[r.off+size]; {
		case inside[begin] == '\\' && strings.IndexByte("\"\\$%\n\r\t", c) >= 0: // outside of them HCL's own escape
			for ; begin < end; begin++ {
				text, at = append(text, inside[begin]), append(at, begin)
			}
			r.off += size
		case c != '$' && c != '%':
			copied(r.off + size)
		case bytes.HasPrefix(inside[begin+1:], []byte{c, '{'}):
			copied(r.off + 3)
		case bytes.HasPrefix(inside[begin+1:], []byte{'{'}):
			end, ok := r.balanced(r.off+2, '}', 1)
			if !ok {
				return nil, nil, false
			}
			copied(end)
		default:
			copied(r.off + 1)
		}
	}
	return text, append(at, len(inside)), true
}

// jsonEscape is one escape of JSON, or two for a character of two.
var jsonEscape = regexp.MustCompile(`^\\(?:u[[:xdigit:]]{4}(?:\\u[dD][c-fC-F][[:xdigit:]]{2})?|["\\/bfnrt])`)

// unescapeJSON returns what the inside of a string stands for in JSON, and where
// each byte of that comes from, and its end.
func unescapeJSON(inside []byte) (text []byte, from []int, ok bool) {
	for off := 0; off < len(inside); {
		char := inside[off : off+1]
		size := 1
		if char[0] == '\\' {
			escape := jsonEscape.Find(inside[off:])
			s, ok := unescape(escape)
			if escape == nil || !ok {
				return nil, nil, false
			}
			char, size = []byte(s), len(escape)
		}
		for range char {
			from = append(from, off)
		}
		text = append(text, char...)
		off += size
	}
	return text, append(from, len(inside)), true
}
