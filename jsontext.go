package webhook

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// appendText appends key, which ends in the quote that opens s, and s as a JSON
// string. Clients choose s, and not all of it was checked by the broker: each
// byte that is not UTF-8 becomes U+FFFD.
func appendText(dst []byte, key, s string) []byte {
	dst = append(dst, key...)
	if isPlain(s) {
		return append(append(dst, s...), '"')
	}
	if !utf8.ValidString(s) {
		s = string([]rune(s))
	}
	dst = appendEscaped(dst, s)
	return append(dst, '"')
}

// appendIfAny is appendText unless there is no text.
func appendIfAny(dst []byte, key, text string) []byte {
	if text == "" {
		return dst
	}
	return appendText(dst, key, text)
}

// appendIfNot0 appends key and number unless that is 0.
func appendIfNot0(dst []byte, key string, number uint64) []byte {
	if number == 0 {
		return dst
	}
	return strconv.AppendUint(append(dst, key...), number, 10)
}

// isPlain reports whether s is ASCII that needs no escape, as nearly all texts
// are.
func isPlain(s string) bool {
	if len(s) < 8 {
		for i := range len(s) {
			if c := s[i]; c >= utf8.RuneSelf || escapes[c]>>56 != 1 {
				return false
			}
		}
		return true
	}
	for at := 0; at < len(s)-8; at += 8 {
		if !isPlainWord(loadWord(s[at:])) {
			return false
		}
	}
	return isPlainWord(loadWord(s[len(s)-8:])) // some of it for the second time
}

// isPlainWord is isPlain for the eight bytes of word.
func isPlainWord(word uint64) bool { return word&(ones*0x80) == 0 && !needsEscape(word) }

// appendEscaped appends s, which is UTF-8, as the inside of a JSON string,
// with NanoMQ's escapes and no others: < > & / and U+2028 stay as they are.
func appendEscaped(dst []byte, s string) []byte {
	for len(s) >= 8 {
		word := loadWord(s)
		s = s[8:]
		if !needsEscape(word) {
			dst = binary.LittleEndian.AppendUint64(dst, word)
			continue
		}
		for range 8 {
			dst = appendEscape(dst, byte(word))
			word >>= 8
		}
	}
	for i := range len(s) {
		dst = appendEscape(dst, s[i])
	}
	return dst
}

// appendEscape appends one byte as it stands inside a JSON string. It stores
// eight bytes and keeps those that are meant, which needs no branch.
func appendEscape(dst []byte, c byte) []byte {
	escape := escapes[c]
	end := len(dst) + int(escape>>56)
	return binary.LittleEndian.AppendUint64(dst, escape)[:end]
}

// loadWord returns the first eight bytes of s, the first one lowest.
func loadWord(s string) uint64 {
	_ = s[7]
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
		uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
}

// ones has a 1 in each byte of a word.
const ones = 0x0101010101010101

// needsEscape reports whether one of the eight bytes of word is a control
// character, a quote or a backslash. In each line, the high bit of a byte is
// set by a subtraction that borrows only if that byte, or one below it, is
// less than what is subtracted.
func needsEscape(word uint64) bool {
	quotes := word ^ ones*'"'
	backslashes := word ^ ones*'\\'
	found := (word - ones*0x20) &^ word
	found |= (quotes - ones) &^ quotes
	found |= (backslashes - ones) &^ backslashes
	return found&(ones*0x80) != 0
}

// escapes has, for each byte, what stands for it inside a JSON string, the first
// byte lowest, and the length of that in the highest byte.
var escapes = func() (escapes [256]uint64) {
	for c := range escapes {
		text := string([]byte{byte(c)})
		if i := strings.IndexByte("\"\\\b\t\n\f\r", byte(c)); i >= 0 {
			text = `\` + `"\btnfr`[i:i+1]
		} else if c < ' ' {
			text = fmt.Sprintf(`\u%04x`, c)
		}
		escapes[c] = loadWord(text+"\x00\x00\x00\x00\x00\x00\x00") | uint64(len(text))<<56
	}
	return escapes
}()
