package webhook

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// The reader's lexical part: where a comment, a word, a string or a bare value
// ends.

func (r *reader) at(off int) byte {
	if off < len(r.src) {
		return r.src[off]
	}
	return 0
}

func (r *reader) end() bool { return r.off >= len(r.src) }

// lineEnd returns the offset of the newline that ends the line of off.
func (r *reader) lineEnd(off int) int {
	if i := bytes.IndexByte(r.src[off:], '\n'); i >= 0 {
		return off + i
	}
	return len(r.src)
}

// comment returns where the comment that begins at off ends, or off if none
// does. The // of a URL begins none, nor does a /* that is never closed.
func (r *reader) comment(off int) int {
	rest := r.src[off:]
	switch {
	case rest[0] == '#', bytes.HasPrefix(rest, []byte("//")) && (off == 0 || r.src[off-1] != ':'):
		return r.lineEnd(off)
	case bytes.HasPrefix(rest, []byte("/*")) && !r.noComments:
		if i := bytes.Index(rest[2:], []byte("*/")); i >= 0 {
			return off + 2 + i + 2
		}
		r.noComments = true
	}
	return off
}

// blank skips blanks and comments, and newlines if asked to.
func (r *reader) blank(newlines bool) {
	for !r.end() {
		switch c := r.src[r.off]; {
		case c == ' ' || c == '\t' || c == '\r':
			r.off++
		case c == '\n' && newlines:
			r.off++
			r.lineValue = -1
		default:
			end := r.comment(r.off)
			if end == r.off {
				return
			}
			r.comments = append(r.comments, span{r.off, end})
			r.off = end
		}
	}
}

// word returns where the word at off ends. Digits may begin it: NanoMQ's
// files number the members of a list (events.1 { … }).
func (r *reader) word(off int) int {
	for off < len(r.src) && isWord(r.src[off]) {
		off++
	}
	return off
}

func isWord(c byte) bool {
	return 'a' <= lower(c) && lower(c) <= 'z' || '0' <= c && c <= '9' || c == '_' || c == '-' || c >= 0x80
}

// bare returns the end of a value without quotes. It includes all that such a
// value may have been meant to hold, as http://127.0.0.1/ does.
func (r *reader) bare(off int) int {
	for off < len(r.src) && !strings.ContainsRune(" \t\r\n,{}[]()\"", rune(r.src[off])) && r.comment(off) == off {
		off++
	}
	return off
}

// isNumber reports whether text is a number as HCL and JSON write it.
func isNumber(text []byte) bool {
	digits := func() bool {
		rest := bytes.TrimLeft(text, "0123456789")
		some := len(rest) < len(text)
		text = rest
		return some
	}
	text = bytes.TrimPrefix(text, []byte("-"))
	if !digits() {
		return false
	}
	if len(text) > 0 && text[0] == '.' {
		if text = text[1:]; !digits() {
			return false
		}
	}
	if len(text) > 0 && lower(text[0]) == 'e' {
		if text = text[1:]; len(text) > 0 && (text[0] == '+' || text[0] == '-') {
			text = text[1:]
		}
		return digits() && len(text) == 0
	}
	return len(text) == 0
}

// quoted returns the end of the string that begins at off. A string ends with
// its line at the latest; only inside ${…} and %{…} may it go on, and only if
// it is closed after that.
func (r *reader) quoted(off int) (end int, closed bool) {
	r.escaped = false
	if end := r.closing(off+1, 0); end >= 0 {
		return end, true
	}
	if r.escaped {
		if end := r.closingJSON(off + 1); end >= 0 {
			return end, true
		}
	}
	end = r.lineEnd(off)
	if r.src[end-1] == '\r' {
		end--
	}
	return end, false
}

// closing returns the offset after the quote that closes the string whose
// content begins at off, or -1.
func (r *reader) closing(off, depth int) int {
	for off < len(r.src) {
		switch c := r.src[off]; c {
		case '\n':
			return -1
		case '"':
			return off + 1
		case '\\':
			if off++; r.at(off) != '\n' {
				off++
			}
		case '$', '%':
			switch {
			case r.at(off+1) == c && r.at(off+2) == '{': // $${ is a literal ${
				off += 3
			case r.at(off+1) == '{':
				var ok bool
				if off, ok = r.balanced(off+2, '}', depth+1); !ok {
					return -1
				}
			default:
				off++
			}
		default:
			off++
		}
	}
	return -1
}

// balanced returns the offset after the closing byte that ends an HCL
// expression whose inside begins at off.
func (r *reader) balanced(off int, closing byte, depth int) (end int, ok bool) {
	if depth > maxDepth {
		return off, false
	}
	opening := byte('(')
	if closing == '}' {
		opening = '{'
	}
	open := 1
	for off < len(r.src) {
		switch c := r.src[off]; c {
		case opening:
			open++
			off++
		case closing:
			off++
			if open--; open == 0 {
				return off, true
			}
		case '"':
			if off = r.closing(off+1, depth+1); off < 0 {
				return off, false
			}
		case '\\':
			if r.escaped = closing == '}' && r.at(off+1) == '"'; r.escaped {
				return off, false // in HCL, a mistake whatever follows
			}
			off++
		case '#', '/':
			off = max(off+1, r.comment(off))
		default:
			off++
		}
	}
	return off, false
}

// literal returns what the inside of a quoted string stands for, if it is
// well-formed and has no ${…} and %{…} in it. Unlike a cty.Value, it is not
// brought into Unicode's normal form, so topics and headers stay as written.
func literal(inside []byte) (text string, ok bool) {
	if !bytes.ContainsAny(inside, "\\$%") {
		return string(inside), true
	}
	var whole strings.Builder
	begin := 0
	for i := 0; i+1 < len(inside); i++ {
		c := inside[i]
		switch rest := inside[i+1:]; {
		case c != '$' && c != '%':
		case rest[0] == '{':
			return "", false
		case bytes.HasPrefix(rest, []byte{c, '{'}): // cut out here: HCL's function does not see it behind another $
			piece, ok := unescape(inside[begin:i])
			if !ok {
				return "", false
			}
			whole.WriteString(piece)
			whole.Write(rest[:2])
			i += 2
			begin = i + 1
		}
	}
	piece, ok := unescape(inside[begin:])
	whole.WriteString(piece)
	return whole.String(), ok
}

// unescape returns what a piece of a string without $${ and %%{ stands for.
func unescape(piece []byte) (text string, ok bool) {
	text, diags := hclsyntax.ParseStringLiteralToken(hclsyntax.Token{Type: hclsyntax.TokenQuotedLit, Bytes: piece})
	if !diags.HasErrors() {
		return text, true
	}
	// JSON has escapes that HCL has not: \/ and pairs of surrogates.
	err := json.Unmarshal(fmt.Appendf(nil, `"%s"`, piece), &text)
	return text, err == nil && !strings.ContainsRune(text, utf8.RuneError)
}
