package webhook

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// A verdict is what an attempt means for its event.
type verdict uint8

const (
	delivered     verdict = iota // 2xx
	refused                      // this event is at fault: dead letter at once
	failed                       // the endpoint is at fault: retry with backoff
	paused                       // the endpoint asked for a pause (Retry-After)
	misconfigured                // endpoint or configuration at fault: retry, one Warn
	canceled                     // this side stopped the attempt
)

// An outcome is what came of one attempt.
type outcome struct {
	verdict    verdict
	status     int           // HTTP status, 0 when none was read
	retryAfter time.Duration // of paused, always positive and not yet capped
	err        error         // why there is no status; names no secret, no URL
}

// text describes an outcome.
func (o *outcome) text() string {
	if o.status != 0 {
		return fmt.Sprintf("status %d", o.status)
	}
	return o.err.Error()
}

// A poster sends requests one at a time; a worker owns one. http1Conn is the
// usual one, roundTripConn serves Options.Transport.
type poster interface {
	// post makes one attempt, which starts now, and returns what came of
	// it, at the latest at the deadline. It does not keep req.
	post(req *request, now, deadline time.Time) outcome
	// cancel aborts a post in progress and makes later ones return
	// canceled at once. Safe from any goroutine.
	cancel()
	// closeIdle closes the kept-alive connection, if there is one; the
	// next post dials. Only the owner calls it, and not during post.
	closeIdle()
}

// A request is one POST under construction. A worker owns one and reuses its
// slices.
type request struct {
	id          []byte // webhook-id
	head        uint32 // of client.heads
	contentType string // overrides the head's content-type if not ""
	header      []byte // more header lines, each ending in CRLF
	body        []byte
	partition   int // of a stream
}

// classify says what a status means. retryAfter is the pause that the reply asks
// for, 0 for none: after a 429 or 503 without a usable Retry-After the backoff says
// how long to wait.
func classify(status int, retryAfter time.Duration) verdict {
	switch status {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		if retryAfter > 0 {
			return paused
		}
		return failed
	case http.StatusRequestTimeout, http.StatusTooEarly:
		return failed
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound,
		http.StatusMethodNotAllowed, http.StatusProxyAuthRequired, http.StatusGone:
		return misconfigured
	case http.StatusNotImplemented:
		return refused
	}
	switch status / 100 {
	case 2:
		return delivered
	case 3:
		return misconfigured
	case 4:
		return refused
	default:
		return failed
	}
}

// statusOutcome is the outcome of a reply.
func statusOutcome(status int, retryAfter time.Duration) outcome {
	o := outcome{verdict: classify(status, retryAfter), status: status}
	if o.verdict == paused {
		o.retryAfter = retryAfter
	}
	return o
}

// parseRetryAfter reads a Retry-After value, seconds or an HTTP date
// (RFC 9110, 10.2.3). It returns 0 for a pause that is not positive and for
// what is neither; a number too large for a Duration is the longest one.
func parseRetryAfter(value string, now time.Time) time.Duration {
	value = strings.Trim(value, " \t")
	if value != "" && strings.Trim(value, "0123456789") == "" {
		seconds, err := strconv.ParseInt(value, 10, 64)
		if err != nil || seconds > math.MaxInt64/int64(time.Second) {
			return math.MaxInt64
		}
		return time.Duration(seconds) * time.Second
	}
	date, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	return max(0, date.Sub(now)) // Sub saturates
}

// An attemptError says in which phase an attempt broke, and why.
type attemptError struct {
	phase string // dial, tls handshake, write, read; proxy dial, proxy connect, …; transport
	err   error
}

// Error leaves out what the phase says already, so that a line reads
// "read: connection reset by peer".
func (e *attemptError) Error() string {
	phase, err := e.phase, e.err
	if op, ok := err.(*net.OpError); ok && (op.Op == "dial" || op.Op == "read" || op.Op == "write" || op.Op == "writev") {
		if op.Op == "dial" && op.Addr != nil {
			phase += " " + op.Addr.String()
		}
		err = op.Err
	}
	if sys, ok := err.(*os.SyscallError); ok {
		err = sys.Err
	}
	return phase + ": " + err.Error()
}

func (e *attemptError) Unwrap() error { return e.err }

// A timeoutError is an attempt that reached its deadline, after the duration
// that it had.
type timeoutError time.Duration

func (e timeoutError) Error() string { return "timeout after " + time.Duration(e).String() }
func (e timeoutError) Timeout() bool { return true }
func (e timeoutError) Unwrap() error { return os.ErrDeadlineExceeded }

func newTimeoutError(allowed time.Duration) timeoutError {
	return timeoutError(max(0, allowed.Round(time.Millisecond)))
}

// isTimeout reports whether a deadline, a context's or a connection's, caused
// err.
func isTimeout(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.As(err, &timeout) && timeout.Timeout()
}

// errorOutcome is the outcome of an attempt that got no status, although this
// side did not cancel it.
func errorOutcome(err error) outcome {
	if isVerification(err) || isProxyAuth(err) {
		return outcome{verdict: misconfigured, err: err}
	}
	return outcome{verdict: failed, err: err}
}

// canceledOutcome is the outcome of an attempt that this side canceled.
func canceledOutcome() outcome {
	return outcome{verdict: canceled, err: context.Canceled}
}

// isVerification reports whether one side of a TLS connection would not accept
// what the other showed: our verdict on the certificate, or an alert of the
// server, which mostly is its verdict on ours. In TLS 1.3 that one comes only
// after the handshake, in place of the reply.
func isVerification(err error) bool {
	var (
		verification *tls.CertificateVerificationError
		authority    x509.UnknownAuthorityError
		invalid      x509.CertificateInvalidError
		hostname     x509.HostnameError
		op           *net.OpError
	)
	return errors.As(err, &verification) || errors.As(err, &authority) ||
		errors.As(err, &invalid) || errors.As(err, &hostname) ||
		errors.As(err, &op) && op.Op == remoteAlert
}

// remoteAlert is the Op of the net.OpError that crypto/tls makes of an alert.
const remoteAlert = "remote error"
