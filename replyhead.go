package webhook

import (
	"bytes"
	"math"
	"net/http"
	"time"
)

// A headParser takes the head of a reply line by line.
type headParser struct {
	reply
	http10  bool
	close   bool // Connection: close
	keep    bool // Connection: keep-alive
	encoded bool // has a Transfer-Encoding
	fields  int  // header lines so far
	last    headField
	after   string // Retry-After, as far as it has come
}

// A headField is what a header line means to us, and so a line that continues it.
type headField uint8

const (
	otherField      headField = iota // nothing
	framingField                     // where the reply ends: never continued
	connectionField                  // Connection
	retryAfterField                  // Retry-After
)

// parseLine takes a line without its end. It reports whether the head of a
// final reply is complete; interim replies are skipped.
func (h *headParser) parseLine(line []byte) (done bool, err error) {
	switch {
	case h.status == 0:
		return false, h.parseStatus(line)
	case len(line) > 0:
		return false, h.parseField(line)
	case h.status == http.StatusSwitchingProtocols:
		// Nobody asked for it, and no HTTP follows.
		return false, malformedError("switches protocols")
	case h.status < 200:
		*h = headParser{}
		return false, nil
	}
	h.finish()
	return true, nil
}

const (
	httpVersion = "HTTP/1."
	errNotHTTP  = malformedError("not HTTP/1")
)

// mayBeHTTP reports whether b can be the beginning of a status line, so that
// nobody waits for the rest of a line that is none.
func mayBeHTTP(b []byte) bool {
	n := min(len(b), len(httpVersion))
	return string(b[:n]) == httpVersion[:n]
}

// parseStatus takes a status line: HTTP/1.0 or 1.1, a blank, three digits, and
// a reason, which may be missing together with the blank before it.
func (h *headParser) parseStatus(line []byte) error {
	const prefix = len(httpVersion) + len("1 ")
	if len(line) < prefix+3 || !mayBeHTTP(line) || line[prefix-1] != ' ' {
		return errNotHTTP
	}
	switch line[prefix-2] {
	case '0':
		h.http10 = true
	case '1':
	default:
		return malformedError("unknown HTTP version")
	}
	for _, c := range line[prefix : prefix+3] {
		if c < '0' || c > '9' {
			return malformedError("the status is not a number")
		}
		h.status = 10*h.status + int(c-'0')
	}
	if h.status < 100 || len(line) > prefix+3 && line[prefix+3] != ' ' {
		return malformedError("the status is not a number of three digits")
	}
	h.length = -1
	return nil
}

// parseField takes a header line.
func (h *headParser) parseField(line []byte) error {
	h.fields++
	if line[0] == ' ' || line[0] == '\t' {
		// A continued line (obs-fold), which stands for a blank (RFC 9112, 5.2).
		if h.fields == 1 || h.last == framingField || !validValue(line) {
			return malformedError("a header line is continued")
		}
		switch h.last {
		case connectionField:
			h.close = true // whatever it says: that is never wrong
		case retryAfterField:
			h.retry(h.after + " " + string(trimBlanks(line)))
		}
		return nil
	}
	name, value, ok := splitField(line)
	if !ok {
		return malformedError("a header line is none")
	}
	h.last = otherField
	switch len(name) {
	case len("Connection"):
		if equalFold(string(name), "Connection") {
			h.last = connectionField
			h.close = h.close || hasToken(value, "close")
			h.keep = h.keep || hasToken(value, "keep-alive")
		}
	case len("Retry-After"):
		if equalFold(string(name), "Retry-After") {
			h.last = retryAfterField
			h.retry(string(value))
		}
	case len("Content-Length"):
		if equalFold(string(name), "Content-Length") {
			h.last = framingField
			length, ok := parseLength(value)
			if !ok {
				return malformedError("the Content-Length is not a number")
			}
			if h.length >= 0 && h.length != length {
				return malformedError("two lengths")
			}
			h.length = length
		}
	case len("Transfer-Encoding"):
		if equalFold(string(name), "Transfer-Encoding") {
			h.last = framingField
			h.chunked = !h.encoded && equalFold(string(value), "chunked")
			h.encoded = true
		}
	}
	return nil
}

// retry takes the value of Retry-After.
func (h *headParser) retry(value string) {
	h.after = value
	if h.status == http.StatusTooManyRequests || h.status == http.StatusServiceUnavailable {
		h.retryAfter = parseRetryAfter(value, time.Now())
	}
}

// finish draws the conclusions from a complete head (RFC 9112, 6.3 and 9.3).
func (h *headParser) finish() {
	h.keepAlive = !h.close && (!h.http10 || h.keep)
	bodiless := h.status == http.StatusNoContent || h.status == http.StatusNotModified
	switch {
	case h.encoded && (!h.chunked || h.http10 || h.length >= 0 || bodiless):
		// Codings that we do not know, and what smells of smuggling: the
		// status counts, but where the reply ends is anyone's guess.
		h.keepAlive, h.chunked, h.length = false, false, -1
	case bodiless:
		// A length of something that does not follow.
		h.keepAlive = h.keepAlive && h.length <= 0
		h.length = 0
	case !h.encoded && h.length < 0:
		h.keepAlive = false // the body ends with the connection
	}
}

// parseLength reads a Content-Length: digits alone.
func parseLength(value []byte) (n int64, ok bool) {
	for _, c := range value {
		digit := int64(c) - '0'
		if digit < 0 || digit > 9 || n > (math.MaxInt64-digit)/10 {
			return 0, false
		}
		n = 10*n + digit
	}
	return n, len(value) > 0
}

// splitField splits a header line into name and value. The name is a token
// with no blank before the colon (RFC 9112, 5.1).
func splitField(line []byte) (name, value []byte, ok bool) {
	for i, c := range line {
		if c == ':' {
			name, value = line[:i], trimBlanks(line[i+1:])
			return name, value, i > 0 && validValue(value)
		}
		if !isTokenByte[c] {
			break
		}
	}
	return nil, nil, false
}

// trimBlanks cuts blanks and tabs off both ends; bytes.Trim would cost more
// than all the rest of a header line.
func trimBlanks(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

// validValue reports whether b has no control characters, apart from tabs.
func validValue(b []byte) bool {
	for _, c := range b {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// isTokenByte has the characters of a token (RFC 9110, 5.6.2).
var isTokenByte = func() (table [256]bool) {
	for _, c := range "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ" {
		table[c] = true
	}
	return table
}()

// hasToken reports whether a comma-separated list has the token, in any letter
// case.
func hasToken(list []byte, token string) bool {
	for len(list) > 0 {
		var item []byte
		item, list, _ = bytes.Cut(list, []byte(","))
		if equalFold(string(trimBlanks(item)), token) {
			return true
		}
	}
	return false
}
