package jetstream

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestNews reads the log of a connection that comes and goes.
func TestNews(t *testing.T) {
	const lost, up, missed = "connection to NATS lost", "connected to NATS", "cannot connect to NATS"
	refused := func(port int) error {
		return &net.OpError{Op: "dial", Net: "tcp", Source: &net.TCPAddr{Port: port}, Err: errors.New("refused")}
	}
	gone := errors.New("gone")
	tests := []struct {
		name string
		do   func(n *news)
		want []string
	}{
		{"lost and back", func(n *news) { n.connected(); n.lost(gone); n.connected() }, []string{up, lost, up}},
		{"back before it is told", func(n *news) {
			n.connected()
			n.lost(gone)
			n.connected()
			n.lost(gone)
			n.connected()
		}, []string{up, lost, up}},
		{"told later", func(n *news) { n.connected(); n.lost(gone); n.connected(); n.lost(gone) }, []string{up, lost, up, lost}},
		{"back and lost again before it is told", func(n *news) {
			n.connected()
			n.lost(gone)
			n.connected()
			n.lost(gone)
			n.connected()
			n.lost(gone)
		}, []string{up, lost, up, lost}},
		{"ended before it is told", func(n *news) { n.connected(); n.lost(gone); n.connected(); n.lost(gone); n.end() }, []string{up, lost, up}},
		{"a cause once, whatever the port", func(n *news) { n.missed(refused(1)); n.missed(refused(2)) }, []string{missed}},
		{"a cause again after a connection", func(n *news) { n.missed(gone); n.connected(); n.lost(gone); n.missed(gone) }, []string{missed, up, lost, missed}},
		{"not for ever another cause", func(n *news) {
			for i := range 100 {
				n.missed(fmt.Errorf("cause %d", i))
			}
		}, strings.Split(strings.Repeat(missed+",", mostCauses-1)+missed, ",")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var b strings.Builder
				n := &news{log: slog.New(slog.NewTextHandler(&b, nil))}
				tt.do(n)
				time.Sleep(time.Hour)
				synctest.Wait()
				var got []string
				for line := range strings.Lines(b.String()) {
					_, line, _ = strings.Cut(line, "msg=\"")
					line, _, _ = strings.Cut(line, "\"")
					got = append(got, line)
				}
				if strings.Join(got, ",") != strings.Join(tt.want, ",") {
					t.Errorf("got %q, want %q", got, tt.want)
				}
			})
		})
	}
}

// TestQuiet: a flood of errors does not keep those of later out of the log.
func TestQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var q quiet
		lines := func() (n int) {
			for i := range 100 {
				if q.due(fmt.Errorf("event %d", i)) {
					n++
				}
			}
			return n
		}
		for range 3 {
			if n := lines(); n != mostCauses {
				t.Errorf("%d lines, want %d", n, mostCauses)
			}
			if n := lines(); n != 0 {
				t.Errorf("%d lines again", n)
			}
			time.Sleep(quietTime)
		}
		if !q.due(errors.New("another")) {
			t.Error("another error is not told")
		}
	})
}

// TestDenial: what was denied once is not wrong for ever.
func TestDenial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c connection
		c.denied.Store(&denial{errors.New("denied"), time.Now()})
		time.Sleep(deniedFor - 1)
		if c.denial() == nil {
			t.Error("what was denied is forgotten")
		}
		time.Sleep(time.Nanosecond)
		if err := c.denial(); err != nil {
			t.Errorf("after %v: %v", deniedFor, err)
		}
	})
}
