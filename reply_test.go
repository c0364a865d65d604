package webhook

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// replyCases are replies as servers send them, and what to make of each when
// the connection ends after them.
var replyCases = []struct {
	name   string
	reply  string
	status int    // 0: an error
	err    string // its text
	keep   bool
}{
	{name: "length", reply: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", status: 200, keep: true},
	{name: "no body", reply: "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", status: 200, keep: true},
	{name: "204", reply: "HTTP/1.1 204 No Content\r\n\r\n", status: 204, keep: true},
	{name: "204 with a length", reply: "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", status: 204},
	{name: "204 with chunks", reply: "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", status: 204},
	{name: "304", reply: "HTTP/1.1 304 Not Modified\r\n\r\n", status: 304, keep: true},
	{name: "no reason", reply: "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", status: 200, keep: true},
	{name: "empty reason", reply: "HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", status: 200, keep: true},
	{name: "unknown status", reply: "HTTP/1.1 799 Odd\r\nContent-Length: 0\r\n\r\n", status: 799, keep: true},
	{name: "bare LF", reply: "HTTP/1.1 200 OK\nContent-Length: 2\n\nok", status: 200, keep: true},
	{name: "letter case", reply: "HTTP/1.1 200 OK\r\ncONTENT-lENGTH:2\t\r\n\r\nok", status: 200, keep: true},
	{name: "chunked", reply: "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n2\r\nok\r\n0a\r\n0123456789\r\n0\r\n\r\n", status: 200, keep: true},
	{name: "chunked, extensions and trailers", reply: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b;c=\"d\"\r\nok\r\n000;x\r\nA: b\r\nC: d\r\n\r\n", status: 200, keep: true},
	{name: "chunked, bare LF", reply: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\nok\r\n0\r\n\r\n", status: 200},
	{name: "chunked, blanks after the size", reply: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2 \t\r\nok\r\n0\r\n\r\n", status: 200, keep: true},
	{name: "chunked, blank before the size", reply: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n 2\r\nok\r\n0\r\n\r\n", status: 200},
	{name: "chunked, no size", reply: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n;a\r\n\r\n", status: 200},
	{name: "chunked, longer than it says", reply: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok!\r\n0\r\n\r\n", status: 200},
	{name: "chunked, no end of a chunk", reply: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok!!0\r\n\r\n", status: 200},
	{name: "chunked, huge", reply: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff1\r\n", status: 200},
	{name: "chunked, bad trailer", reply: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nnone\r\n\r\n", status: 200},
	{name: "chunked, half", reply: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n", status: 200},
	{name: "chunked and length", reply: "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", status: 200},
	{name: "chunked twice", reply: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", status: 200},
	{name: "gzip, chunked", reply: "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", status: 200},
	{name: "close", reply: "HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 2\r\n\r\nok", status: 200},
	{name: "until the connection ends", reply: "HTTP/1.1 200 OK\r\n\r\nok", status: 200},
	{name: "HTTP/1.0", reply: "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", status: 200},
	{name: "HTTP/1.0 kept alive", reply: "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", status: 200, keep: true},
	{name: "HTTP/1.0 chunked", reply: "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", status: 200},
	{name: "interim replies", reply: "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\nContent-Length: 7\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", status: 200, keep: true},
	{name: "equal lengths", reply: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", status: 200, keep: true},
	{name: "continued line", reply: "HTTP/1.1 200 OK\r\nX: a\r\n  b\r\n\tc\r\nContent-Length: 2\r\n\r\nok", status: 200, keep: true},
	{name: "continued Connection", reply: "HTTP/1.1 200 OK\r\nConnection: keep-alive,\r\n close\r\nContent-Length: 2\r\n\r\nok", status: 200},
	{name: "half a body", reply: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok", status: 200},
	{name: "more than the body", reply: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok!", status: 200},
	{name: "as long as can be", reply: "HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775807\r\n\r\nok", status: 200},
	{name: "4 KiB", reply: "HTTP/1.1 200 OK\r\nContent-Length: 4096\r\n\r\n" + strings.Repeat("x", 4096), status: 200, keep: true},
	{name: "longer than 4 KiB", reply: "HTTP/1.1 200 OK\r\nContent-Length: 4097\r\n\r\n" + strings.Repeat("x", 4097), status: 200},
	{name: "long head", reply: "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 60_000) + "\r\nContent-Length: 2\r\n\r\nok", status: 200, keep: true},

	{name: "nothing", err: "the connection was closed without a reply"},
	{name: "half a status line", reply: "HTTP/1.1 20", err: "the connection was closed in the middle of the reply"},
	{name: "half a head", reply: "HTTP/1.1 200 OK\r\nContent-Le", err: "the connection was closed in the middle of the reply"},
	{name: "no end of the head", reply: "HTTP/1.1 200 OK\r\n", err: "the connection was closed in the middle of the reply"},
	{name: "only interim", reply: "HTTP/1.1 100 Continue\r\n\r\n", err: "the connection was closed in the middle of the reply"},
	{name: "too long a head", reply: "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 70_000), err: "malformed reply: the head is longer than 64 KiB"},
	{name: "too many headers", reply: "HTTP/1.1 200 OK\r\n" + strings.Repeat("a:b\r\n", 20_000), err: "malformed reply: the head is longer than 64 KiB"},
	{name: "too many interim replies", reply: strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 3_000), err: "malformed reply: the head is longer than 64 KiB"},
	{name: "another protocol", reply: "SSH-2.0-x", err: "malformed reply: not HTTP/1"},
	{name: "blank line first", reply: "\r\nHTTP/1.1 200 OK\r\n\r\n", err: "malformed reply: not HTTP/1"},
	{name: "body only", reply: `{"ok":true}`, err: "malformed reply: not HTTP/1"},
	{name: "HTTP/2", reply: "HTTP/2 200\r\n\r\n", err: "malformed reply: not HTTP/1"},
	{name: "HTTP/1.2", reply: "HTTP/1.2 200 OK\r\n\r\n", err: "malformed reply: unknown HTTP version"},
	{name: "no status", reply: "HTTP/1.1\r\n\r\n", err: "malformed reply: not HTTP/1"},
	{name: "status of letters", reply: "HTTP/1.1 OK OK\r\n\r\n", err: "malformed reply: the status is not a number"},
	{name: "short status", reply: "HTTP/1.1 099 OK\r\n\r\n", err: "malformed reply: the status is not a number of three digits"},
	{name: "long status", reply: "HTTP/1.1 2000 OK\r\n\r\n", err: "malformed reply: the status is not a number of three digits"},
	{name: "101", reply: "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", err: "malformed reply: switches protocols"},
	{name: "different lengths", reply: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", err: "malformed reply: two lengths"},
	{name: "list of lengths", reply: "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok", err: "malformed reply: the Content-Length is not a number"},
	{name: "negative length", reply: "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok", err: "malformed reply: the Content-Length is not a number"},
	{name: "signed length", reply: "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok", err: "malformed reply: the Content-Length is not a number"},
	{name: "empty length", reply: "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n", err: "malformed reply: the Content-Length is not a number"},
	{name: "length that overflows", reply: "HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775808\r\n\r\nok", err: "malformed reply: the Content-Length is not a number"},
	{name: "continued length", reply: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n 3\r\n\r\nok", err: "malformed reply: a header line is continued"},
	{name: "continued status line", reply: "HTTP/1.1 200 OK\r\n X: a\r\n\r\nok", err: "malformed reply: a header line is continued"},
	{name: "blank before the colon", reply: "HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok", err: "malformed reply: a header line is none"},
	{name: "no colon", reply: "HTTP/1.1 200 OK\r\nnone\r\n\r\n", err: "malformed reply: a header line is none"},
	{name: "no name", reply: "HTTP/1.1 200 OK\r\n: none\r\n\r\n", err: "malformed reply: a header line is none"},
	{name: "control character", reply: "HTTP/1.1 200 OK\r\nX: a\x00b\r\n\r\n", err: "malformed reply: a header line is none"},
	{name: "bare CR", reply: "HTTP/1.1 200 OK\r\nX: a\rContent-Length: 2\r\n\r\n", err: "malformed reply: a header line is none"},
}

func TestReplyReader(t *testing.T) {
	for _, tt := range replyCases {
		t.Run(tt.name, func(t *testing.T) {
			check := func(how string, src io.Reader, wantKeep bool) {
				t.Helper()
				var r replyReader
				rep, keep, err := r.read(src)
				switch {
				case tt.err != "":
					if err == nil || err.Error() != tt.err {
						t.Errorf("%s: status %d, error %v; want error %q", how, rep.status, err, tt.err)
					}
				case err != nil || rep.status != tt.status || keep != wantKeep:
					t.Errorf("%s: got status %d, keep %v, error %v; want %d, %v", how, rep.status, keep, err, tt.status, wantKeep)
				}
			}
			check("at once", strings.NewReader(tt.reply), tt.keep)
			// What comes behind the end shows only together with it.
			late := tt.keep || tt.name == "more than the body"
			check("by byte", iotest.OneByteReader(strings.NewReader(tt.reply)), late)
			// The connection ended with the last byte.
			check("with its end", iotest.DataErrReader(strings.NewReader(tt.reply)), false)
		})
	}
}

// TestReplyReaderWaits checks that nothing is read once the end is known: the
// next read would wait until the deadline.
func TestReplyReaderWaits(t *testing.T) {
	wait := errors.New("waits for more")
	for _, tt := range replyCases {
		if tt.status == 0 || !tt.keep && !strings.Contains(tt.name, "4 KiB") {
			continue
		}
		t.Run(tt.name, func(t *testing.T) {
			var r replyReader
			src := &scriptedReader{parts: []string{tt.reply}, err: wait}
			if _, keep, err := r.read(src); err != nil || keep != tt.keep || src.waited {
				t.Errorf("keep %v, error %v, waited %v; want %v, nil, false", keep, err, src.waited, tt.keep)
			}
		})
	}
}

func TestReplyReaderRetryAfter(t *testing.T) {
	for _, tt := range []struct {
		name, reply string
		min, max    time.Duration
	}{
		{"seconds", "HTTP/1.1 429 X\r\nRetry-After: 7\r\n\r\n", 7 * time.Second, 7 * time.Second},
		{"503", "HTTP/1.1 503 X\r\nretry-after:7\r\n\r\n", 7 * time.Second, 7 * time.Second},
		{"date", "HTTP/1.1 503 X\r\nRetry-After: " + time.Now().Add(time.Minute).UTC().Format(http.TimeFormat) + "\r\n\r\n", 50 * time.Second, time.Minute},
		{"other status", "HTTP/1.1 500 X\r\nRetry-After: 7\r\n\r\n", 0, 0},
		{"of an interim reply", "HTTP/1.1 103 X\r\nRetry-After: 7\r\n\r\nHTTP/1.1 503 X\r\n\r\n", 0, 0},
		{"seconds on a line of their own", "HTTP/1.1 503 X\r\nRetry-After:\r\n 7\r\n\r\n", 7 * time.Second, 7 * time.Second},
		{"date over three lines", "HTTP/1.1 503 X\r\nRetry-After: " + strings.Replace(time.Now().Add(time.Minute).UTC().Format(http.TimeFormat), " ", "\r\n\t", 2) + "\r\n\r\n", 50 * time.Second, time.Minute},
		{"another field behind it continued", "HTTP/1.1 503 X\r\nRetry-After: 7\r\nX: a\r\n 8\r\n\r\n", 7 * time.Second, 7 * time.Second},
		{"garbage", "HTTP/1.1 503 X\r\nRetry-After: x\r\n\r\n", 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var r replyReader
			rep, _, err := r.read(strings.NewReader(tt.reply))
			if err != nil || rep.retryAfter < tt.min || rep.retryAfter > tt.max {
				t.Errorf("got %v, error %v; want %v to %v", rep.retryAfter, err, tt.min, tt.max)
			}
		})
	}
}

// A scriptedReader gives one part per Read, then an error.
type scriptedReader struct {
	parts  []string
	err    error
	waited bool
}

func (s *scriptedReader) Read(p []byte) (int, error) {
	if len(s.parts) == 0 {
		s.waited = true
		return 0, s.err
	}
	n := copy(p, s.parts[0])
	if s.parts[0] = s.parts[0][n:]; s.parts[0] == "" {
		s.parts = s.parts[1:]
	}
	return n, nil
}

// FuzzReply holds the reader against net/http's. Where both accept a reply they
// agree on its status, and a connection is only kept when net/http would keep
// it too and finds the end of the reply at the same byte. Where net/http calls
// a reply malformed, its status may count here (an unknown Transfer-Encoding,
// a broken body), but the connection is never kept.
//
// Refused here, accepted there: versions other than 1.0 and 1.1, statuses
// below 100, a 101, blanks before the status or in a field name, control
// characters, a continued length or coding, heads above 64 KiB.
func FuzzReply(f *testing.F) {
	for _, tt := range replyCases {
		if len(tt.reply) < 5_000 {
			f.Add([]byte(tt.reply), false)
			f.Add([]byte(tt.reply+tt.reply), true)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, byByte bool) {
		var src io.Reader = &scriptedReader{parts: []string{string(data)}, err: io.EOF}
		if byByte {
			src = iotest.OneByteReader(src)
		}
		var r replyReader
		rep, keep, err := r.read(src)
		status, end, kept, oracleErr := readWithNetHTTP(data)
		if err != nil {
			if keep {
				t.Errorf("kept after error %v", err)
			}
			return
		}
		if status != 0 && rep.status != status {
			t.Errorf("status %d, net/http %d", rep.status, status)
		}
		if !keep {
			return
		}
		if oracleErr != nil || !kept {
			t.Fatalf("kept; net/http: keep %v, error %v", kept, oracleErr)
		}
		if r.n != end {
			t.Errorf("the reply ends at %d, net/http %d", r.n, end)
		}
	})
}

// readWithNetHTTP reads the final reply. status is 0 when its head is no good,
// err says that it or the body is not.
func readWithNetHTTP(data []byte) (status, end int, keep bool, err error) {
	src := bytes.NewReader(data)
	br := bufio.NewReader(src)
	for {
		resp, err := http.ReadResponse(br, &http.Request{Method: http.MethodPost})
		if err != nil {
			return 0, 0, false, err
		}
		if resp.StatusCode/100 == 1 {
			continue
		}
		_, err = io.Copy(io.Discard, resp.Body)
		return resp.StatusCode, len(data) - src.Len() - br.Buffered(), !resp.Close && err == nil, err
	}
}
