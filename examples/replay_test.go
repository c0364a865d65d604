package examples_test

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// A recording is what the real NanoMQ did: a configuration, what clients did,
// and the requests that it made of that.
type recording struct {
	Scenario string
	URL      string
	Conf     string   `json:"webhook_conf"`
	Actions  []string `json:"client_actions"`
	requests []*recordedRequest
}

type recordedRequest struct {
	Line       string      `json:"request_line"`
	Header     [][2]string `json:"headers"`
	Body       string
	BodyLatin1 string `json:"body_latin1"` // where it is not UTF-8: a rune for each byte
	BodySHA256 string `json:"body_sha256"` // where it is long
	BodyHead   string `json:"body_head"`   // where it is long
}

// TestNanoMQReplay runs the broker with the file of each recording, does what
// its clients did, and compares the requests: byte for byte, and in order for
// each client, except for what is better here (see betterRequest).
func TestNanoMQReplay(t *testing.T) {
	files, err := filepath.Glob("../testdata/nanomq/*.jsonl")
	if err != nil || len(files) != 20 {
		t.Fatalf("%d recordings, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".jsonl"), func(t *testing.T) {
			rec := readRecording(t, file)
			s := newSink(t)
			conf := strings.ReplaceAll(rec.Conf, hostOf(rec.URL), s.addr)
			broker, address := listen(t, "broker", "-config", write(t, conf))
			payloads := rec.replay(t, address)

			want := make(map[string][]*sinkRequest)
			count := 0
			for _, r := range rec.requests {
				w := betterRequest(t, rec, r, s.addr, payloads)
				if n := len(want[w.client]); n > 0 && want[w.client][n-1].sameQoS2(w) {
					continue // sent again before its PUBREL: one event here
				}
				want[w.client] = append(want[w.client], w)
				count++
			}
			s.await(t, count)
			broker.end() // delivers what else there is
			got := make(map[string][]*sinkRequest)
			for _, r := range s.all(t) {
				got[r.client] = append(got[r.client], r)
			}
			for client, want := range want {
				if len(got[client]) != len(want) {
					t.Errorf("client %q: got %d requests, want %d", client, len(got[client]), len(want))
				}
				for i := range min(len(want), len(got[client])) {
					compareRequests(t, got[client][i], want[i])
				}
				delete(got, client)
			}
			for client, requests := range got {
				t.Errorf("client %q: got %d requests, want none; the first is %q", client, len(requests), requests[0].body)
			}
		})
	}
}

func readRecording(t *testing.T, file string) *recording {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	rec := new(recording)
	for i, line := range bytes.Split(bytes.TrimSpace(text), []byte("\n")) {
		var to any = rec
		if i > 0 {
			r := new(recordedRequest)
			rec.requests = append(rec.requests, r)
			to = r
		}
		if err := json.Unmarshal(line, to); err != nil {
			t.Fatalf("%s:%d: %v", file, i+1, err)
		}
	}
	return rec
}

// hostOf returns a URL's host and port.
func hostOf(url string) string {
	_, rest, _ := strings.Cut(url, "://")
	host, _, _ := strings.Cut(rest, "/")
	return host
}

// betterRequest returns what is to come instead of a recorded request.
// It is what NanoMQ sent, but for the following, on purpose.
func betterRequest(t *testing.T, rec *recording, r *recordedRequest, sink string, payloads map[string][]byte) *sinkRequest {
	w := &sinkRequest{line: r.Line, sha256: r.BodySHA256}

	// A url without a path posts to "/": servers refuse an empty target.
	w.line = strings.Replace(w.line, "POST  ", "POST / ", 1)
	// The path is sent as written, dot segments included; a fragment is not.
	w.line = strings.Replace(w.line, "/a/c%20d", "/a/./b/../c%20d", 1)
	w.line = strings.Replace(w.line, "#frag", "", 1)

	// Headers have the order of the file. Besides those of the file there are
	// the delivery's identity, and a content-type in any case.
	for _, h := range r.Header {
		if name := h[0]; name != "Host" && name != "Content-Length" {
			w.header = append([]string{name + ":" + h[1]}, w.header...)
		}
	}
	if !slices.ContainsFunc(w.header, func(h string) bool { return strings.HasPrefix(strings.ToLower(h), "content-type:") }) {
		w.header = append(w.header, "Content-Type: application/json")
	}
	w.header = append(w.header, "Host: "+sink, "User-Agent", "webhook-id", "webhook-timestamp", "Content-Length")

	w.body = cmp.Or(r.Body, r.BodyHead)
	for _, c := range r.BodyLatin1 {
		w.body += string([]byte{byte(c)})
	}
	// The reason of a disconnect is the real one; NanoMQ says "normal".
	if rec.Scenario == "disconnect_tcp_drop" {
		w.body = strings.Replace(w.body, `{"reason":"normal"`, `{"reason":"tcp_closed"`, 1)
	}
	// A payload is never cut, left out or sent as what is not JSON.
	if topic := memberOf(w.body, "topic"); topic != "" && r.BodySHA256 == "" {
		before, _, _ := strings.Cut(strings.TrimSuffix(w.body, "}"), `,"payload":`)
		payload, known := payloads[topic]
		plain := !strings.Contains(rec.Conf, `"base64"`)
		switch {
		case !known:
			t.Errorf("nobody published to %q", topic)
		case len(payload) == 0:
			w.body = before + `,"payload":""}`
		case plain && !utf8.Valid(payload):
			w.body = before + `,"payload":"` + base64.StdEncoding.EncodeToString(payload) + `","payload_encoding":"base64"}`
		case plain && bytes.IndexByte(payload, 0) >= 0:
			text, _ := json.Marshal(string(payload))
			w.body = before + `,"payload":` + string(text) + `}`
		}
	}
	w.client = actorOf(w.body)
	return w
}

// memberOf returns a member of a body that is a plain string.
func memberOf(body, name string) string {
	_, rest, _ := strings.Cut(body, `"`+name+`":"`)
	value, _, _ := strings.Cut(rest, `"`)
	return value
}

func actorOf(body string) string {
	return cmp.Or(memberOf(body, "from_client_id"), memberOf(body, "clientid"))
}

var (
	tsMember  = regexp.MustCompile(`^\{"ts":(\d{13}),`)
	eventUUID = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
)

// compareRequests compares a request with what was to come, where a header
// without a value stands for any.
func compareRequests(t *testing.T, got, want *sinkRequest) {
	t.Helper()
	if got.line != want.line {
		t.Errorf("got %q, want %q", got.line, want.line)
	}
	var order, names []string // of the configured headers; of all others with their values where they are fixed
	for _, h := range got.header {
		name, value, _ := strings.Cut(h, ": ")
		switch name {
		case "webhook-id":
			if !eventUUID.MatchString(value) {
				t.Errorf("webhook-id %q", value)
			}
		case "webhook-timestamp":
			if n, err := strconv.ParseInt(value, 10, 64); err != nil || time.Since(time.Unix(n, 0)).Abs() > time.Hour {
				t.Errorf("webhook-timestamp %q", value)
			}
		case "User-Agent", "Content-Length": // the sink has counted
		default:
			if name != "Host" {
				order = append(order, h)
			}
			name = h
		}
		names = append(names, name)
	}
	if configured := want.header[:len(want.header)-5]; !slices.Equal(order, configured) {
		t.Errorf("%s: headers %q, want %q", got.body, order, configured)
	}
	slices.Sort(names)
	if all := slices.Sorted(slices.Values(want.header)); !slices.Equal(names, all) {
		t.Errorf("%s: headers %q, want %q", got.body, names, all)
	}

	if m := tsMember.FindStringSubmatch(got.body); m != nil {
		if ms, _ := strconv.ParseInt(m[1], 10, 64); time.Since(time.UnixMilli(ms)).Abs() > time.Hour {
			t.Errorf("ts %s is not now", m[1])
		}
	}
	body := got.body
	if m := tsMember.FindStringSubmatch(want.body); m != nil {
		body = tsMember.ReplaceAllString(body, `{"ts":`+m[1]+`,`)
	}
	if want.sha256 != "" {
		if sum := sha256.Sum256([]byte(body)); hex.EncodeToString(sum[:]) != want.sha256 {
			t.Errorf("got %d bytes %.200q…, want %.200q…", len(body), body, want.body)
		}
	} else if body != want.body {
		t.Errorf("\n got %q\nwant %q", body, want.body)
	}
}

// sameQoS2 reports whether two recorded requests in a row are of one message
// with QoS 2.
func (r *sinkRequest) sameQoS2(next *sinkRequest) bool {
	_, a, _ := strings.Cut(r.body, ",")
	_, b, _ := strings.Cut(next.body, ",")
	return a == b && strings.Contains(a, `"qos":2,`)
}

// A sink is a receiver that takes requests apart itself, and answers 200.
type sink struct {
	addr     string
	requests chan *sinkRequest
	early    []*sinkRequest
}

type sinkRequest struct {
	client string
	line   string
	header []string // lines as they came
	body   string
	sha256 string // of a recorded body
	err    error
}

func newSink(t *testing.T) *sink {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	s := &sink{addr: l.Addr().String(), requests: make(chan *sinkRequest, 1000)}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go s.serve(conn) // until the broker has gone
		}
	}()
	return s
}

func (s *sink) serve(conn net.Conn) {
	defer conn.Close()
	r := bufio.NewReader(conn)
	for {
		req, err := readRequest(r)
		if err == io.EOF {
			return
		}
		req.err = err
		s.requests <- req
		if _, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"); err != nil {
			return
		}
	}
}

// readRequest returns io.EOF only where no request begins.
func readRequest(r *bufio.Reader) (*sinkRequest, error) {
	req := new(sinkRequest)
	length := -1
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			if line != "" || req.line != "" {
				err = io.ErrUnexpectedEOF
			}
			return req, err
		}
		text, ok := strings.CutSuffix(line, "\r\n")
		switch {
		case !ok:
			return req, fmt.Errorf("line %q does not end in CRLF", line)
		case req.line == "":
			req.line = text
			continue
		case text != "":
			req.header = append(req.header, text)
			if n, ok := strings.CutPrefix(text, "Content-Length: "); ok {
				if length, err = strconv.Atoi(n); err != nil {
					return req, err
				}
			}
			continue
		}
		if length < 0 {
			return req, fmt.Errorf("no length among the headers %q", req.header)
		}
		body := make([]byte, length)
		if _, err := io.ReadFull(r, body); err != nil {
			return req, io.ErrUnexpectedEOF
		}
		req.body = string(body)
		req.client = actorOf(req.body)
		return req, nil
	}
}

// await waits until so many requests have come.
func (s *sink) await(t *testing.T, n int) {
	t.Helper()
	late := time.After(patience)
	for len(s.early) < n {
		select {
		case r := <-s.requests:
			s.early = append(s.early, r)
		case <-late:
			t.Errorf("%d requests came, want %d", len(s.early), n)
			return
		}
	}
}

// all returns the requests that have come.
func (s *sink) all(t *testing.T) []*sinkRequest {
	t.Helper()
	for len(s.requests) > 0 {
		s.early = append(s.early, <-s.requests)
	}
	for _, r := range s.early {
		if r.err != nil {
			t.Errorf("%v: %q %q", r.err, r.line, r.header)
		}
	}
	return s.early
}
