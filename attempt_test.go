package webhook

import (
	"crypto/tls"
	"errors"
	"math"
	"net"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"
)

func TestClassify(t *testing.T) {
	// The table of outcomes, row by row; what a row does not name is in
	// the class of its first digit.
	rows := map[verdict][]int{
		failed:        {408, 425},
		refused:       {400, 413, 415, 422, 501},
		misconfigured: {401, 403, 404, 405, 407, 410},
	}
	classes := map[int]verdict{1: failed, 2: delivered, 3: misconfigured, 4: refused, 5: failed}
	for status := 100; status < 600; status++ {
		want := classes[status/100]
		for v, named := range rows {
			if slices.Contains(named, status) {
				want = v
			}
		}
		if status == 429 {
			want = failed // without a pause
		}
		if got := classify(status, 0); got != want {
			t.Errorf("classify(%d, 0) = %d, want %d", status, got, want)
		}
		if status == 429 || status == 503 {
			want = paused
		}
		if got := classify(status, time.Second); got != want {
			t.Errorf("classify(%d, 1s) = %d, want %d", status, got, want)
		}
	}
	for _, status := range []int{0, 600, 999} {
		if got := classify(status, 0); got != failed {
			t.Errorf("classify(%d, 0) = %d, want failed", status, got)
		}
	}
}

func TestParseRetryAfter(t *testing.T) {
	now := time.Date(2025, 11, 5, 8, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		value string
		want  time.Duration
	}{
		{"120", 2 * time.Minute},
		{" 5\t", 5 * time.Second},
		{"0", 0},
		{"", 0},
		{"-1", 0},
		{"+1", 0},
		{"1.5", 0},
		{"1e3", 0},
		{"soon", 0},
		{"9223372036", 9223372036 * time.Second},
		{"9223372037", math.MaxInt64},
		{"9223372036854775808", math.MaxInt64},
		{"99999999999999999999999999999999", math.MaxInt64},
		{"Wed, 05 Nov 2025 08:01:00 GMT", time.Minute},
		{"Wednesday, 05-Nov-25 08:01:00 GMT", time.Minute},
		{"Wed Nov  5 08:01:00 2025", time.Minute},
		{"Wed, 05 Nov 2025 07:59:59 GMT", 0},
		{"Fri, 31 Dec 9999 23:59:59 GMT", math.MaxInt64},
		{"Mon, 01 Jan 0001 00:00:00 GMT", 0},
	} {
		t.Run(tt.value, func(t *testing.T) {
			if got := parseRetryAfter(tt.value, now); got != tt.want {
				t.Errorf("parseRetryAfter(%q) = %v, want %v", tt.value, got, tt.want)
			}
		})
	}
}

func TestErrorOutcome(t *testing.T) {
	addr := &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 80}
	refusal := &net.OpError{Op: "dial", Net: "tcp", Addr: addr, Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	reset := &net.OpError{Op: "read", Net: "tcp", Source: addr, Addr: addr, Err: os.NewSyscallError("read", syscall.ECONNRESET)}
	pipe := &net.OpError{Op: "writev", Net: "tcp", Source: addr, Addr: addr, Err: os.NewSyscallError("writev", syscall.EPIPE)} // of net.Buffers
	alert := &net.OpError{Op: "remote error", Err: tls.AlertError(42)}
	for _, tt := range []struct {
		name    string
		err     error
		verdict verdict
		text    string
	}{
		{"dial", &attemptError{"dial", refusal}, failed, "dial 10.0.0.1:80: connection refused"},
		{"read", &attemptError{"read", reset}, failed, "read: connection reset by peer"},
		{"long write", &attemptError{"write", pipe}, failed, "write: broken pipe"},
		{"timeout", &attemptError{"read", newTimeoutError(4999999 * time.Microsecond)}, failed, "read: timeout after 5s"},
		{"malformed", malformedError("not HTTP/1"), failed, "malformed reply: not HTTP/1"},
		{"lookup", &attemptError{"dial", &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "a.test", IsNotFound: true}}},
			failed, "dial: lookup a.test: no such host"},
		{"alert", &attemptError{"tls handshake", alert}, misconfigured, "tls handshake: remote error: tls: bad certificate"},
		{"broken pipe and reset", exchangeError(pipe, reset), failed, "write: broken pipe"},
		{"broken pipe and alert", exchangeError(pipe, alert), misconfigured, "read: remote error: tls: bad certificate"},
		{"broken pipe and garbage", exchangeError(pipe, malformedError("not HTTP/1")), failed, "malformed reply: not HTTP/1"},
		{"ended write and reset", exchangeError(os.ErrDeadlineExceeded, reset), failed, "read: connection reset by peer"},
		{"proxy auth", &attemptError{"proxy connect", proxyStatusError(407)}, misconfigured, "proxy connect: the proxy answered CONNECT with status 407"},
		{"proxy", &attemptError{"proxy connect", proxyStatusError(502)}, failed, "proxy connect: the proxy answered CONNECT with status 502"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := errorOutcome(tt.err)
			if o.verdict != tt.verdict || o.status != 0 || o.err.Error() != tt.text {
				t.Errorf("got verdict %d, %q; want %d, %q", o.verdict, o.err, tt.verdict, tt.text)
			}
		})
	}
	if err := (&attemptError{"read", newTimeoutError(time.Second)}); !errors.Is(err, os.ErrDeadlineExceeded) || !isTimeout(err) {
		t.Errorf("%v is not known as a timeout", err)
	}
}
