package webhook

import (
	"bytes"
	"errors"
	"io"
	"math"
	"net/http"
	"time"
)

const (
	// maxReplyHead bounds the bytes before a reply's body, interim replies
	// (1xx) included, and so the number of header lines and of those.
	maxReplyHead = 64 << 10

	// maxReplyBody bounds the bytes after the head that are read so that
	// the connection can be used again.
	maxReplyBody = 4 << 10

	// replyBuffer is enough for nearly every reply. A buffer that one reply
	// made larger than maxKeptBuffer is not kept for the next.
	replyBuffer   = 4 << 10
	maxKeptBuffer = 16 << 10
)

var (
	errNoReply   = errors.New("the connection was closed without a reply")
	errHalfReply = errors.New("the connection was closed in the middle of the reply")
)

// A malformedError is a reply that is not HTTP/1, and why. It quotes nothing
// of the reply, which may repeat the request.
type malformedError string

func (e malformedError) Error() string { return "malformed reply: " + string(e) }

// A reply is what the head of an HTTP reply says.
type reply struct {
	status     int
	retryAfter time.Duration // 0 for none that is usable
	length     int64         // Content-Length, -1 for none
	chunked    bool
	keepAlive  bool // as far as the head says, the connection stays usable
}

// A replyReader reads replies from one connection, one after the other. The
// status of a reply counts as soon as its head is complete; the body only
// decides whether the connection can be used again.
type replyReader struct {
	buf   []byte // buf[:n] is what has been read of the current reply
	n     int
	end   bool // the connection ended behind buf[:n]
	there int  // bytes of the next reply that were read into room
	more  bool // something came behind the reply
}

// room returns the buffer for the beginning of the next reply.
func (r *replyReader) room() []byte {
	if len(r.buf) == 0 || len(r.buf) > maxKeptBuffer {
		r.buf = make([]byte, replyBuffer)
	}
	r.n, r.end, r.more = 0, false, false
	return r.buf
}

// read reads one reply. keep says that it was read to its end and another may
// follow on the connection. After an error, n tells whether a byte came.
func (r *replyReader) read(src io.Reader) (rep reply, keep bool, err error) {
	rep, start, err := r.readHead(src)
	if err != nil {
		return rep, false, err
	}
	if !rep.keepAlive {
		length, ok := rep.bodyLength(r.buf[start:r.n])
		r.more = ok && 0 <= length && length < r.n-start
		return rep, false, nil
	}
	return rep, r.skipBody(src, &rep, start), nil
}

// readConnect reads the reply to a CONNECT. When that is a success, nothing
// follows the head (RFC 9110, 9.3.6) but what the endpoint says, and behind a
// proxy it does not speak first.
func (r *replyReader) readConnect(src io.Reader) (status int, err error) {
	rep, end, err := r.readHead(src)
	if err == nil && rep.status/100 == 2 && end != r.n {
		err = malformedError("something follows the head")
	}
	return rep.status, err
}

// fill reads more, up to limit bytes in all.
func (r *replyReader) fill(src io.Reader, limit int) error {
	if r.n == len(r.buf) {
		grown := make([]byte, min(2*len(r.buf), limit))
		copy(grown, r.buf)
		r.buf = grown
	}
	n, err := src.Read(r.buf[r.n:])
	r.n += n
	if n > 0 {
		// What came counts first; the error will come again.
		r.end = err != nil
		return nil
	}
	if err == nil {
		return io.ErrNoProgress
	}
	return err
}

// readHead reads up to the end of the head of the final reply and returns
// where that is. Lines may end in a bare LF (RFC 9112, 2.2).
func (r *replyReader) readHead(src io.Reader) (rep reply, end int, err error) {
	r.room()
	r.n, r.there = r.there, 0
	var head headParser
	line, scanned := 0, 0 // start of the current line; no LF before scanned
	for {
		for {
			i := bytes.IndexByte(r.buf[scanned:r.n], '\n')
			if i < 0 {
				break
			}
			end := scanned + i
			done, err := head.parseLine(bytes.TrimSuffix(r.buf[line:end], []byte("\r")))
			if err != nil {
				return head.reply, 0, err
			}
			line, scanned = end+1, end+1
			if done {
				return head.reply, line, nil
			}
		}
		scanned = r.n
		if head.reply.status == 0 && !mayBeHTTP(r.buf[line:r.n]) {
			return head.reply, 0, errNotHTTP
		}
		if r.n >= maxReplyHead {
			return head.reply, 0, malformedError("the head is longer than 64 KiB")
		}
		if err := r.fill(src, maxReplyHead); err != nil {
			switch {
			case err == io.EOF && r.n > 0:
				err = errHalfReply
			case err == io.EOF:
				err = errNoReply
			}
			return head.reply, 0, err
		}
	}
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

// A headField is what a header line is to us, and what it is to continue it.
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

// skipBody reads a body of which the head says where it ends. It reports
// whether it came to that end, and nothing came after it.
func (r *replyReader) skipBody(src io.Reader, rep *reply, start int) bool {
	if rep.length > maxReplyBody {
		return false
	}
	for {
		body := r.buf[start:r.n]
		length, ok := rep.bodyLength(body)
		switch {
		case !ok:
			return false
		case length >= 0 && len(body) >= length:
			r.more = len(body) > length
			return len(body) == length && !r.end
		case r.end || len(body) >= maxReplyBody:
			return false
		case r.fill(src, start+maxReplyBody) != nil:
			return false
		}
	}
}

// bodyLength returns how many of the bytes behind the head the body takes, -1 when
// it does not end in them. ok is false where the head does not say.
func (rep *reply) bodyLength(b []byte) (n int, ok bool) {
	switch {
	case rep.chunked:
		return chunkedLength(b)
	case rep.length > int64(len(b)):
		return -1, true
	}
	return int(rep.length), rep.length >= 0
}

// chunkedLength returns how many bytes of b a chunked body takes, trailers
// included (RFC 9112, 7.1), or -1 when it does not end in b. It is stricter
// than it needs to be: ok is false for whatever is odd.
func chunkedLength(b []byte) (n int, ok bool) {
	for last := false; ; {
		i := bytes.IndexByte(b[n:], '\n')
		if i < 0 {
			return -1, true
		}
		line, crlf := bytes.CutSuffix(b[n:n+i], []byte("\r"))
		if !crlf {
			return 0, false
		}
		n += i + 1
		if last { // the lines after the last chunk are trailers
			if len(line) == 0 {
				return n, true
			}
			if _, _, ok := splitField(line); !ok {
				return 0, false
			}
			continue
		}
		size, ok := parseChunkSize(line)
		if !ok {
			return 0, false
		}
		if size == 0 {
			last = true
			continue
		}
		if len(b)-n < size+2 {
			return -1, true
		}
		n += size + 2
		if b[n-2] != '\r' || b[n-1] != '\n' {
			return 0, false
		}
	}
}

// parseChunkSize reads the line before a chunk: its size, in hexadecimal, and
// perhaps an extension. A size above maxReplyBody is not ok.
func parseChunkSize(line []byte) (size int, ok bool) {
	digits, extension, _ := bytes.Cut(bytes.TrimRight(line, " \t"), []byte(";"))
	if len(digits) == 0 || !validValue(extension) {
		return 0, false
	}
	for _, c := range digits {
		switch c = lower(c); {
		case '0' <= c && c <= '9':
			size = size<<4 | int(c-'0')
		case 'a' <= c && c <= 'f':
			size = size<<4 | int(c-'a'+10)
		default:
			return 0, false
		}
		if size > maxReplyBody {
			return 0, false
		}
	}
	return size, true
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
