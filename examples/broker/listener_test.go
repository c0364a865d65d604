package main

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A failingListener fails as often as it is told to, and then has one connection.
type failingListener struct {
	net.Listener
	failures int
	conn     net.Conn
}

func (l *failingListener) Accept() (conn net.Conn, err error) {
	if l.failures > 0 {
		l.failures--
		return nil, errors.New("too many open files")
	}
	if conn, l.conn = l.conn, nil; conn == nil {
		return nil, net.ErrClosed
	}
	return conn, nil
}

// TestListenerStaysUp: accepting fails for a while. The log says so, at most once a
// second in the long run.
func TestListenerStaysUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker, client := net.Pipe()
		defer client.Close()
		var log strings.Builder
		const failures = 20
		l := newListener(&failingListener{failures: failures, conn: broker}, slog.New(slog.NewTextHandler(&log, nil)))
		begin := time.Now()
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if n := strings.Count(log.String(), `msg="accepting a connection failed" error="too many open files"`); n != failures {
			t.Errorf("%d log lines, want %d:\n%s", n, failures, &log)
		}
		if took := time.Since(begin); took < (failures-10)*time.Second || took > failures*time.Second {
			t.Errorf("took %v for %d failures", took, failures)
		}
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("from a listener that is closed: %v", err)
		}
	})
}

// TestListenerWantsAConnect: who connects and sends nothing is not waited for.
func TestListenerWantsAConnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker, client := net.Pipe()
		defer client.Close()
		conn, err := newListener(&failingListener{conn: broker}, nil).Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		begin := time.Now()
		_, err = conn.Read(make([]byte, 1))
		if took := time.Since(begin); !errors.Is(err, os.ErrDeadlineExceeded) || took != connectTimeout {
			t.Errorf("got %v after %v, want the end after %v", err, took, connectTimeout)
		}
	})
}
