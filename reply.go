package webhook

import (
	"bytes"
	"errors"
	"io"
	"time"
)

const (
	// maxReplyHead bounds the bytes before a reply's body, interim replies
	// (1xx) included, and with them how many header lines and interim replies
	// there are.
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
