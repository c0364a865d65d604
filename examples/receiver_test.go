package examples_test

import (
	"compress/gzip"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

func TestReceiverPrints(t *testing.T) {
	for _, test := range []struct {
		name string
		args []string
		path string
		body string
		want []string
	}{
		{"no payload", nil, "/hook", `{"action":"client_connack"}`,
			[]string{`POST /hook {"action":"client_connack"}`}},
		{"plain", nil, "/", `{"payload":"say \"hi\""}`,
			[]string{`POST / {"payload":"say \"hi\""} payload="say \"hi\""`}},
		{"marked base64", nil, "/", `{"payload":"AP8=","payload_encoding":"base64"}`,
			[]string{`POST / {"payload":"AP8=","payload_encoding":"base64"} payload="\x00\xff"`}},
		{"base64 by flag", []string{"-encoding", "base64"}, "/", `{"payload":"aGVsbG8="}`,
			[]string{`POST / {"payload":"aGVsbG8="} payload="hello"`}},
		{"base62 by flag", []string{"-encoding", "base62"}, "/", `{"payload":"2a7oZkl5ty6sG7"}`,
			[]string{`POST / {"payload":"2a7oZkl5ty6sG7"} payload="messagei+/"`}},
		{"empty payload", nil, "/", `{"payload":""}`,
			[]string{`POST / {"payload":""} payload=""`}},
		{"batch", nil, "/b", `[{"a":1},{"payload":"x"}]`,
			[]string{`POST /b {"a":1}`, `POST /b {"payload":"x"} payload="x"`}},
		{"empty batch", nil, "/", `[]`, []string{`POST / []`}},
		{"CloudEvent", nil, "/", `{"type":"mqtt.message.publish","data":{"payload":"AP8=","payload_encoding":"base64"}}`,
			[]string{`POST / {"type":"mqtt.message.publish","data":{"payload":"AP8=","payload_encoding":"base64"}} payload="\x00\xff"`}},
		{"data of something else", nil, "/", `{"payload":"x","data":"y"}`,
			[]string{`POST / {"payload":"x","data":"y"} payload="x"`}},
		{"indented JSON on one line", nil, "/", "{\n  \"a\": 1\n}\n",
			[]string{`POST / {"a":1}`}},
		{"terminal escapes in JSON", nil, "/", "{\"payload\":\"\\u001b[2J\u009b\u007f\u202e\U000e0001\"}",
			[]string{`POST / {"payload":"\u001b[2J\u009b\u007f\u202e\udb40\udc01"} payload="\x1b[2J\u009b\x7f\u202e\U000e0001"`}},
		{"not JSON", nil, "/", "\x1b[2J\nPOST /forged {}",
			[]string{`POST / "\x1b[2J\nPOST /forged {}"`}},
		{"not UTF-8", nil, "/", "{\"a\":\"\xff\"}",
			[]string{`POST / "{\"a\":\"\xff\"}"`}},
		{"empty body", nil, "/", "",
			[]string{`POST / ""`}},
		{"query and escapes", nil, "/a%20b//c?x=%26", `{}`,
			[]string{`POST /a%20b//c?x=%26 {}`}},
		{"terminal escapes in the query", nil, "/?\u009b", `{}`,
			[]string{`POST "/?\u009b" {}`}},
		{"a query that is not UTF-8", nil, "/?\xff", `{}`,
			[]string{`POST "/?\xff" {}`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			receiver, address := listen(t, "receiver", test.args...)
			if got := post(t, "http://"+address+test.path, test.body); got != http.StatusOK {
				t.Errorf("status: got %d, want 200", got)
			}
			receiver.end()
			got := strings.Join(receiver.stdout.lines()[1:], "\n")
			if want := strings.Join(test.want, "\n"); got != want {
				t.Errorf("body %q\n got %s\nwant %s", test.body, got, want)
			}
		})
	}
}

// A body is a payload in the binary mode of CloudEvents, whatever it looks like.
func TestReceiverBinaryMode(t *testing.T) {
	receiver, address := listen(t, "receiver", "-encoding", "base64")
	bodies := []string{"[1,2]", `{"payload":"21.5"}`}
	for _, body := range bodies {
		r := request(t, "http://"+address, body)
		r.Header.Set("ce-id", "1")
		send(t, r)
	}
	receiver.end()
	if got, want := receiver.stdout.lines()[1:], []string{"POST / " + bodies[0], "POST / " + bodies[1]}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestReceiverWrongPayload(t *testing.T) {
	receiver, address := listen(t, "receiver", "-encoding", "base64")
	post(t, "http://"+address, `{"payload":"%%%"}`)
	receiver.end()
	if got, want := receiver.stdout.lines()[1], `POST / {"payload":"%%%"} payload_error="`; !strings.HasPrefix(got, want) {
		t.Errorf("got %s, want %s…", got, want)
	}
}

func TestReceiverAnswers(t *testing.T) {
	t.Run("with -status", func(t *testing.T) {
		receiver, address := listen(t, "receiver", "-status", "503")
		if got := post(t, "http://"+address, `{}`); got != http.StatusServiceUnavailable {
			t.Errorf("got %d, want 503", got)
		}
		receiver.end()
		if got, want := receiver.stdout.lines()[1], "POST / {}"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
	t.Run("after -delay", func(t *testing.T) {
		receiver, address := listen(t, "receiver", "-delay", "300ms")
		began := time.Now()
		post(t, "http://"+address, `{}`)
		if took := time.Since(began); took < 300*time.Millisecond {
			t.Errorf("answered after %v, want 300ms or more", took)
		}
		receiver.end()
	})
	t.Run("other methods with 405", func(t *testing.T) {
		receiver, address := listen(t, "receiver")
		reply, err := http.Get("http://" + address)
		if err != nil {
			t.Fatal(err)
		}
		reply.Body.Close()
		if allow := reply.Header.Get("Allow"); reply.StatusCode != http.StatusMethodNotAllowed || allow != http.MethodPost {
			t.Errorf("got %s that allows %q, want 405 and POST", reply.Status, allow)
		}
		receiver.end()
	})
	t.Run("too long a body with 413", func(t *testing.T) {
		receiver, address := listen(t, "receiver")
		if got := post(t, "http://"+address, strings.Repeat(" ", 64<<20+1)); got != http.StatusRequestEntityTooLarge {
			t.Errorf("got %d, want 413", got)
		}
		receiver.end()
	})
}

// A compressed body is signed as it is sent, and printed as it was.
func TestReceiverDecompresses(t *testing.T) {
	const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	gzipped := func(text string) string {
		var b strings.Builder
		w := gzip.NewWriter(&b)
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	for _, test := range []struct {
		name, coding, body string
		status             int
		want               string // printed
	}{
		{"batch", "gzip", gzipped(`[{"payload":"x"}]`), http.StatusOK, `POST / {"payload":"x"} payload="x" signature=ok`},
		{"not compressed", "gzip", `{"payload":"x"}`, http.StatusBadRequest, ""},
		{"cut short", "gzip", gzipped(`{"payload":"x"}`)[:30], http.StatusBadRequest, ""},
		{"much of it", "gzip", gzipped(strings.Repeat(" ", 65<<20)), http.StatusRequestEntityTooLarge, ""},
		{"another coding", "br", "x", http.StatusUnsupportedMediaType, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			receiver, address := listen(t, "receiver", "-secret", secret)
			r := request(t, "http://"+address, test.body)
			r.Header.Set("Content-Encoding", test.coding)
			sign(t, r, secret, test.body)
			status := send(t, r)
			receiver.end()
			if got := strings.Join(receiver.stdout.lines()[1:], "\n"); got != test.want || status != test.status {
				t.Errorf("got %d, %s\nwant %d, %s", status, got, test.status, test.want)
			}
		})
	}
}

func TestReceiverSignatures(t *testing.T) {
	const secret, body = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", `{"a":1}`
	for _, test := range []struct {
		name   string
		secret string
		status int
		want   string
	}{
		{"genuine", secret, http.StatusOK, `POST / {"a":1} signature=ok`},
		{"forged", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", http.StatusUnauthorized,
			`POST / signature_error="webhook: signature does not match"`},
		{"unsigned", "", http.StatusUnauthorized, `POST / signature_error="webhook: not signed: no webhook-id"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			receiver, address := listen(t, "receiver", "-secret", secret)
			r := request(t, "http://"+address, body)
			if test.secret != "" {
				sign(t, r, test.secret, body)
			}
			status := send(t, r)
			receiver.end()
			if got := receiver.stdout.lines()[1]; got != test.want || status != test.status {
				t.Errorf("got %d, %s\nwant %d, %s", status, got, test.status, test.want)
			}
		})
	}
}

// sign signs a request as Standard Webhooks' own library does.
func sign(t *testing.T, request *http.Request, secret, body string) {
	t.Helper()
	wh, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	signature, err := wh.Sign("msg_1", now, []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("webhook-id", "msg_1")
	request.Header.Set("webhook-timestamp", strconv.FormatInt(now.Unix(), 10))
	request.Header.Set("webhook-signature", signature)
}

// A stopped receiver does not let an answer that it delays look like success.
func TestReceiverStopsWhileItDelays(t *testing.T) {
	receiver, address := listen(t, "receiver", "-delay", "1h")
	failed := make(chan error, 1)
	go func() {
		reply, err := http.Post("http://"+address, "application/json", strings.NewReader(`{}`))
		if err == nil {
			reply.Body.Close()
		}
		failed <- err
	}()
	receiver.stdout.waitLine(t, "POST / {}")
	receiver.end()
	if <-failed == nil {
		t.Error("the request got an answer")
	}
}

func TestReceiverUsage(t *testing.T) {
	for _, test := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"status", []string{"-status", "99"}, 2, "want 200 to 599"},
		{"no such status", []string{"-status", "600"}, 2, "want 200 to 599"},
		{"delay", []string{"-delay", "-1s"}, 2, "must not be negative"},
		{"encoding", []string{"-encoding", "hex"}, 2, "want plain, base64 or base62"},
		{"secret", []string{"-secret", "hunter2"}, 2, "-secret: webhook: the secret must be 24 to 64 bytes"},
		{"argument", []string{"8080"}, 2, `unexpected argument "8080"`},
		{"address", []string{"-listen", "nowhere"}, 1, "nowhere"},
		{"no address", []string{"-listen", ""}, 2, "-listen is empty"},
		{"help", []string{"-h"}, 0, "-listen"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := start(t, "receiver", test.args...)
			if got := p.wait(); got != test.code {
				t.Errorf("exit status: got %d, want %d", got, test.code)
			}
			if got := p.stderr.String(); !strings.Contains(got, test.want) {
				t.Errorf("stderr: got %q, want %q in it", got, test.want)
			}
		})
	}
}

// post returns the status of the reply.
func post(t *testing.T, url, body string) int {
	t.Helper()
	return send(t, request(t, url, body))
}

func request(t *testing.T, url, body string) *http.Request {
	t.Helper()
	r, err := http.NewRequest(http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// send returns the status of the reply to a request.
func send(t *testing.T, r *http.Request) int {
	t.Helper()
	client := &http.Client{Timeout: patience}
	reply, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer reply.Body.Close()
	return reply.StatusCode
}
