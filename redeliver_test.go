package webhook

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// letterLine is a line of a dead letter file.
func letterLine(endpoint string, n int, body string) string {
	return fmt.Sprintf(`{"id":"0197f3c0-0000-7000-8000-%012d","time":"2024-01-31T12:22:04.96Z","endpoint":%q,"event":"on_message_publish",`+
		`"client":"c","attempts":3,"status":422,"error":"refused","content_type":"text/x-test","body":%q}`, n, endpoint, body)
}

func redeliverConfig(url string) *Config {
	return &Config{Endpoints: []Endpoint{{Name: "Audit", URL: url, Events: []Rule{{Event: OnMessagePublish}}}}}
}

// redeliveryTo is a redelivery that has not begun.
func redeliveryTo(t *testing.T, cfg *Config) *redelivery {
	t.Helper()
	cfg, err := cfg.resolve()
	if err != nil {
		t.Fatal(err)
	}
	r, err := newRedelivery(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func writeLetterFile(t *testing.T, lines ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "dead.jsonl")
	write(t, path, strings.Join(lines, "\n"))
	return path
}

func TestRedeliver(t *testing.T) {
	checkLeaks(t)
	var mu sync.Mutex
	var got []string
	server := newRawServer(t, func(c *rawConn, _ int) {
		for {
			req, err := c.read()
			if err != nil {
				return
			}
			mu.Lock()
			got = append(got, strings.Join([]string{req.value("webhook-id")[24:], req.value("content-type") + req.value("Content-Type"), req.body}, " "))
			mu.Unlock()
			if c.say(replyOK) != nil {
				return
			}
		}
	})
	path := writeLetterFile(t,
		letterLine("audit", 1, "one"),
		"",
		"not JSON",
		letterLine("nobody", 2, "x"),
		letterLine("AUDIT", 3, "three")+"\r",
		strings.Replace(letterLine("audit", 4, "x"), "0197f3c0-", "0197f3c0", 1),
		strings.Replace(letterLine("audit", 5, "x"), "text/x-test", `text\r\nX-Evil: 1`, 1),
		strings.Replace(letterLine("audit", 6, "AP8="), `"body"`, `"body_encoding":"base64","body"`, 1),
		strings.Replace(letterLine("audit", 7, "x"), `"body"`, `"body_encoding":"rot13","body"`, 1),
		strings.Replace(letterLine("audit", 8, "x"), "on_message_publish", "on_nothing", 1),
		letterLine("audit", 9, "nine"),
		letterLine("audit", 10, ""),
		strings.Replace(letterLine("audit", 11, "x"), `"body":"x"`, `"tail":"x"`, 1),
		strings.Replace(letterLine("audit", 12, "x"), `"body":"x"`, `"body":null`, 1),
		letterLine("audit", 13, "torn")[:50],
	)
	stats, err := Redeliver(t.Context(), redeliverConfig(server.url()), path)
	if err == nil || !strings.HasPrefix(err.Error(), "webhook: "+path) {
		t.Errorf("got %v", err)
	}
	for _, n := range []int{3, 4, 6, 7, 9, 10, 13, 14, 15} {
		if !strings.Contains(fmt.Sprint(err), fmt.Sprintf("line %d: ", n)) {
			t.Errorf("line %d is not in the error:\n%v", n, err)
		}
	}
	if n := strings.Count(fmt.Sprint(err), "\n") + 1; n != 9 {
		t.Errorf("%d lines in the error, want 9:\n%v", n, err)
	}
	want := []string{
		"000000000001 text/x-test one", "000000000003 text/x-test three",
		"000000000006 text/x-test \x00\xff", "000000000009 text/x-test nine", "000000000010 text/x-test ",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if s := stats.Endpoints["Audit"]; s.Delivered != 5 || s.Offered != 5 {
		t.Errorf("stats %+v", s)
	}
}

func TestRedeliverRefused(t *testing.T) {
	checkLeaks(t)
	server := newRawServer(t, func(c *rawConn, _ int) {
		for {
			if _, err := c.read(); err != nil || c.say(replyText(422, "")) != nil {
				return
			}
		}
	})
	path := writeLetterFile(t, letterLine("audit", 1, "one"), letterLine("audit", 2, "two"))
	stats, err := Redeliver(t.Context(), redeliverConfig(server.url()), path)
	if err == nil || !strings.Contains(err.Error(), "2 of 2 events not delivered, the last one refused: status 422") || stats.Endpoints["Audit"].Dead != 2 {
		t.Errorf("error %v, stats %+v", err, stats)
	}
}

// TestRedeliverManyOfOneClient sends letters for longer than max_age: those that wait
// for others of their client do not grow old while these get an answer.
func TestRedeliverManyOfOneClient(t *testing.T) {
	const letters, took, maxAge = 100, time.Second, 10 * time.Second
	for _, tt := range []struct {
		name      string
		answer    func(n int) outcome
		delivered uint64
		within    time.Duration
	}{
		{"the endpoint is well", func(int) outcome { return outcome{status: 200} }, letters, letters*took + maxAge},
		{"it refuses some", func(n int) outcome {
			if n%2 == 0 {
				return outcome{verdict: refused, status: 400}
			}
			return outcome{status: 200}
		}, letters / 2, letters*took + maxAge},
		{"it is down", func(int) outcome { return outcome{verdict: failed, status: 503} }, 0, 2 * maxAge},
		{"it puts off everything", func(int) outcome { return outcome{verdict: paused, status: 429, retryAfter: took} }, 0, 2 * maxAge},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := redeliverConfig("http://127.0.0.1:1/")
				cfg.Endpoints[0].Retry.MaxAge = maxAge
				r := redeliveryTo(t, cfg)
				n := 0
				for _, w := range r.endpoints["audit"].pool.workers {
					w.poster = &fakePoster{stop: make(chan struct{}), answer: func(*request, time.Time, <-chan struct{}) outcome {
						time.Sleep(took)
						n++
						return tt.answer(n)
					}}
				}
				var lines []string
				for i := range letters {
					lines = append(lines, letterLine("audit", i, "x"))
				}
				begin := time.Now()
				stats, _ := r.run(t.Context(), strings.NewReader(strings.Join(lines, "\n")))
				if s := stats.Endpoints["Audit"]; s.Offered != letters || s.Delivered != tt.delivered {
					t.Errorf("stats %+v", s)
				}
				if took := time.Since(begin); took > tt.within {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
}

// TestRedeliverInBatches sends letters of several formats to an endpoint that has
// batches: those of another format than its own go alone, as they were.
func TestRedeliverInBatches(t *testing.T) {
	letter := func(n int, contentType, body, more string) string {
		l := strings.Replace(letterLine("audit", n, body), "text/x-test", contentType, 1)
		return strings.TrimSuffix(l, "}") + more + "}"
	}
	const id = "0197f3c0-0000-7000-8000-00000000000"
	lines := []string{
		letter(1, "application/json", `{"a":1}`, ""),
		letter(2, "application/json", `{"b":2,"id":"own"}`, ""),
		letter(3, "application/json", `{"c":3}`, `,"headers":{"ce-specversion":"1.0"}`),
		letter(4, "text/plain", `{"d":4}`, ""),
		letter(5, cloudEventType, `{"e":5,"id":"`+id+`5"}`, ""),
	}
	for _, tt := range []struct {
		format Format
		want   []string // content-type and body
	}{
		{FormatNanoMQ, []string{
			`application/json [{"a":1,"id":"` + id + `1"},{"b":2,"id":"own"}]`,
			`application/json {"c":3}`,
			`text/plain {"d":4}`,
			cloudEventType + ` {"e":5,"id":"` + id + `5"}`,
		}},
		{FormatCloudEvents, []string{
			`application/json {"a":1}`,
			`application/json {"b":2,"id":"own"}`,
			`application/json {"c":3}`,
			`text/plain {"d":4}`,
			cloudEventsBatchType + ` [{"e":5,"id":"` + id + `5"}]`,
		}},
	} {
		t.Run(string(tt.format), func(t *testing.T) {
			var got []string // all are of one client: one after the other
			server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				if err != nil {
					t.Error(err)
				}
				got = append(got, r.Header.Get("Content-Type")+" "+string(body))
			}))
			defer server.Close()
			cfg := redeliverConfig(server.URL)
			cfg.Endpoints[0].Body.Format = tt.format
			cfg.Endpoints[0].Batch = Batch{MaxEvents: 10, Linger: time.Second}
			if _, err := Redeliver(t.Context(), cfg, writeLetterFile(t, lines...)); err != nil {
				t.Error(err)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
			}
		})
	}
}

func TestRedeliverGivenUp(t *testing.T) {
	checkLeaks(t)
	server := newRawServer(t, func(c *rawConn, _ int) {
		for {
			if _, err := c.read(); err != nil || c.say(replyText(401, "")) != nil {
				return
			}
		}
	})
	cfg := redeliverConfig(server.url())
	cfg.Endpoints[0].Retry = Retry{MinBackoff: 10 * time.Millisecond, MaxAge: 200 * time.Millisecond}
	_, err := Redeliver(t.Context(), cfg, writeLetterFile(t, letterLine("audit", 1, "one")))
	if err == nil || !strings.Contains(err.Error(), "1 of 1 events not delivered, the last one given up: ") || !strings.Contains(err.Error(), "status 401") {
		t.Errorf("got %v", err)
	}
}

func TestRedeliverCanceled(t *testing.T) {
	checkLeaks(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	server := newRawServer(t, func(c *rawConn, _ int) {
		_, _ = c.read()
		cancel()
		c.wait()
	})
	var lines []string
	for i := range 5000 { // more than wait in memory at a time
		lines = append(lines, letterLine("audit", i, "x"))
	}
	cfg := redeliverConfig(server.url())
	cfg.Endpoints[0].Timeout = time.Hour
	begin := time.Now()
	stats, err := Redeliver(ctx, cfg, writeLetterFile(t, lines...))
	if s := stats.Endpoints["Audit"]; s.Dead != 0 || s.Dropped["shutdown"]+s.Dropped["stopped"]+uint64(s.InFlight) != s.Offered {
		t.Errorf("stats %+v", s)
	}
	if !errors.Is(err, context.Canceled) || time.Since(begin) > rawTimeout {
		t.Errorf("after %v: %v", time.Since(begin), err)
	}
}

// TestRedeliverCanceledWhileFull cancels while the reader waits for room in the
// queue, which nothing makes: it does not wait for ever.
func TestRedeliverCanceledWhileFull(t *testing.T) {
	checkLeaks(t)
	server := newRawServer(t, func(c *rawConn, _ int) {
		_, _ = c.read()
		c.wait()
	})
	cfg := redeliverConfig(server.url())
	cfg.Endpoints[0].Timeout = time.Hour
	r := redeliveryTo(t, cfg)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, err := r.run(ctx, strings.NewReader(strings.Repeat(letterLine("audit", 1, "x")+"\n", 5000)))
		ended <- err
	}()
	q := r.endpoints["audit"].queue
	awaitTrue(t, "the reader waits", func() bool {
		q.mu.Lock()
		defer q.mu.Unlock()
		return len(q.blocked) > 0
	})
	cancel()
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want %v", err, context.Canceled)
		}
	case <-time.After(rawTimeout):
		t.Fatal("the reader still waits")
	}
}

// TestRedeliverLong has bodies that are longer than any payload that the endpoint, or
// the rule, takes: those limits are for events, and the body was made under others.
func TestRedeliverLong(t *testing.T) {
	inBase62 := Rule{Event: OnMessagePublish, Topic: "a", Encoding: Base62}
	for _, tt := range []struct {
		name   string
		change func(*Endpoint)
		length int
	}{
		{"than max_payload", func(e *Endpoint) { e.Body.MaxPayload = 10 }, 1000},
		{"than base62 may be", func(e *Endpoint) { e.Events = []Rule{inBase62} }, longestBase62 + 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newRequestLog(t)
			cfg := redeliverConfig(l.url())
			tt.change(&cfg.Endpoints[0])
			body := strings.Repeat("x", tt.length)
			letter := strings.TrimSuffix(letterLine("audit", 1, body), "}") + fmt.Sprintf(`,"rule":"%08x"}`, inBase62.key())
			stats, err := Redeliver(t.Context(), cfg, writeLetterFile(t, letter))
			if got := l.all(); err != nil || len(got) != 1 || got[0].body != body {
				t.Errorf("%d requests, error %v, stats %+v", len(got), err, stats)
			}
		})
	}
}

func TestRedeliverDisabled(t *testing.T) {
	server := newRawServer(t, serveOK)
	cfg := redeliverConfig(server.url())
	cfg.Endpoints[0].Disabled = true
	_, err := Redeliver(t.Context(), cfg, writeLetterFile(t, letterLine("audit", 1, "x")))
	if err == nil || !strings.Contains(err.Error(), `endpoint "audit" is not configured or not enabled`) || server.accepted() > 0 {
		t.Errorf("%d connections, error %v", server.accepted(), err)
	}
}

func TestRedeliverErrors(t *testing.T) {
	if _, err := Redeliver(t.Context(), redeliverConfig("http://127.0.0.1:1/"), filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want os.ErrNotExist", err)
	}
	if _, err := Redeliver(t.Context(), nil, "x"); err == nil {
		t.Error("no error without a configuration")
	}
}

// TestRedeliverManyBadLines: an error does not grow with the file.
func TestRedeliverManyBadLines(t *testing.T) {
	file := filepath.Join(t.TempDir(), "dead.jsonl")
	write(t, file, strings.Repeat("x\n", 1000))
	_, err := Redeliver(t.Context(), redeliverConfig("http://127.0.0.1:1/"), file)
	if err == nil || strings.Count(err.Error(), "\n") != 100 || !strings.HasSuffix(err.Error(), "900 more lines cannot be sent") {
		t.Errorf("got %v, want a hundred lines and how many more", err)
	}
}
