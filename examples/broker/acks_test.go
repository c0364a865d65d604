package main

import (
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const (
	puback1 = "\x40\x02\x00\x01"
	puback2 = "\x40\x02\x00\x02"
	pubrec3 = "\x50\x02\x00\x03"
	pubrel3 = "\x62\x02\x00\x03"
	pubcomp = "\x70\x02\x00\x04"
	message = "\x30\x04\x00\x01t!"
	pong    = "\xd0\x00"
)

// ackTest runs a test with the broker's end of a connection, and a channel that
// has what the other end reads, one value for each write. Every read takes reading.
func ackTest(t *testing.T, reading time.Duration, test func(conn *ackConn, got <-chan string)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		broker, client := net.Pipe()
		got := make(chan string, 10) // more than a test writes
		go func() {
			defer close(got)
			for b := make([]byte, 100); ; {
				time.Sleep(reading)
				n, err := client.Read(b)
				if err != nil {
					return
				}
				got <- string(b[:n])
			}
		}()
		conn := &ackConn{Conn: broker}
		conn.several.Store(true)
		test(conn, got)
		_ = broker.Close()
		for rest := range got {
			t.Errorf("%q was written, too", rest)
		}
	})
}

func write(t *testing.T, conn net.Conn, packets ...string) {
	t.Helper()
	for _, p := range packets {
		if n, err := conn.Write([]byte(p)); n != len(p) || err != nil {
			t.Errorf("Write(%q) = %d, %v", p, n, err)
		}
	}
}

func TestAcksAreWrittenAtOnce(t *testing.T) {
	tests := []struct {
		name  string
		write []string
		then  func(conn *ackConn)
		want  string
		after time.Duration
	}{
		{"when the broker reads", []string{puback1, puback2, pubrec3}, func(conn *ackConn) {
			_ = conn.SetReadDeadline(time.Now().Add(time.Microsecond))
			_, _ = conn.Read(make([]byte, 1))
		}, puback1 + puback2 + pubrec3, 0},
		{"before a message", []string{puback1, puback2, message}, nil, puback1 + puback2 + message, 0},
		{"after a while", []string{puback1, puback2}, nil, puback1 + puback2, ackDelay},
		{"at the end", []string{puback1, puback2}, func(conn *ackConn) { _ = conn.Close() }, puback1 + puback2, 0},
		{"of QoS 2", []string{pubrec3, pubrel3, pubcomp}, nil, pubrec3 + pubrel3 + pubcomp, ackDelay},
		{"but a message alone", []string{message}, nil, message, 0},
		{"but the answer to a ping alone", []string{pong}, nil, pong, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ackTest(t, 0, func(conn *ackConn, got <-chan string) {
				begin := time.Now()
				write(t, conn, tt.write...)
				if tt.then != nil {
					tt.then(conn)
				}
				if s := <-got; s != tt.want {
					t.Errorf("%q was written, want %q", s, tt.want)
				}
				if after := time.Since(begin).Truncate(ackDelay); after != tt.after {
					t.Errorf("after %v, want %v", after, tt.after)
				}
				time.Sleep(time.Second) // a timer that was not stopped would write again
			})
		})
	}
}

// TestAckOfOneMessage checks that who waits for each acknowledgement has it at
// once.
func TestAckOfOneMessage(t *testing.T) {
	long := "\x32\x80\x01" + strings.Repeat("x", 128)
	tests := []struct {
		name, read, want string // what comes first of two acknowledgements
	}{
		{"one", message, puback1},
		{"two", message + message, puback1 + puback2},
		{"a long one", long, puback1},
		{"a long one and the next", long + "\x32", puback1 + puback2},
		{"part of one", long[:100], puback1},
		{"part of a header", long[:2], puback1},
		{"hardly anything", long[:1], puback1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				broker, client := net.Pipe()
				defer client.Close()
				conn := &ackConn{Conn: broker}
				defer conn.Close()
				go func() { _, _ = client.Write([]byte(tt.read)) }()
				if _, err := conn.Read(make([]byte, 1000)); err != nil {
					t.Fatal(err)
				}
				go write(t, conn, puback1, puback2)
				got := make([]byte, 1000)
				n, err := client.Read(got)
				if string(got[:n]) != tt.want || err != nil {
					t.Errorf("%q came first, want %q; %v", got[:n], tt.want, err)
				}
				go func() { _, _ = io.Copy(io.Discard, client) }()
				synctest.Wait()
			})
		})
	}
}

// TestAcksWaitTheirTime checks that the time of one acknowledgement does not count
// for the next.
func TestAcksWaitTheirTime(t *testing.T) {
	ackTest(t, 0, func(conn *ackConn, got <-chan string) {
		for range 3 {
			write(t, conn, puback1)
			time.Sleep(ackDelay * 2 / 3)
			write(t, conn, puback2, message)
			if s := <-got; s != puback1+puback2+message {
				t.Errorf("%q was written", s)
			}
		}
	})
}

// TestReadFromOneThatDoesNotRead checks that a client which takes nothing because it
// is writing itself is read from.
func TestReadFromOneThatDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker, client := net.Pipe()
		conn := &ackConn{Conn: broker}
		go func() { _, _ = conn.Write([]byte(message)) }() // ends with the connection
		synctest.Wait()
		go write(t, client, message)
		read := make(chan error, 1)
		go func() {
			_, err := conn.Read(make([]byte, len(message)))
			read <- err
		}()
		select {
		case err := <-read:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(time.Minute):
			t.Error("what the client writes is not read")
		}
		_ = conn.Close()
	})
}

// TestCloseOfOneThatDoesNotRead checks that a client that takes nothing does not
// keep the broker from closing its connection.
func TestCloseOfOneThatDoesNotRead(t *testing.T) {
	for _, tt := range []struct {
		name  string
		after time.Duration // the timer writes already
		want  time.Duration
	}{
		{"acknowledgements wait", 0, lastAcks},
		{"acknowledgements are being written", 2 * ackDelay, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ackTest(t, time.Hour, func(conn *ackConn, _ <-chan string) {
				write(t, conn, puback1)
				time.Sleep(tt.after)
				begin := time.Now()
				if err := conn.Close(); err != nil {
					t.Error(err)
				}
				if took := time.Since(begin); took != tt.want {
					t.Errorf("Close took %v, want %v", took, tt.want)
				}
			})
		})
	}
}

// TestWriteAfterClose: who still writes to a connection that was closed does not hang.
func TestWriteAfterClose(t *testing.T) {
	ackTest(t, 0, func(conn *ackConn, got <-chan string) {
		write(t, conn, puback1)
		_ = conn.Close()
		if s := <-got; s != puback1 {
			t.Errorf("%q was written, want %q", s, puback1)
		}
		if _, err := conn.Write([]byte(message)); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("got %v, want an error", err)
		}
	})
}

// TestNothingFollowsATornPacket has a client take a part of a packet only, for longer
// than the broker waits.
func TestNothingFollowsATornPacket(t *testing.T) {
	for name, torn := range map[string]func(conn *ackConn){
		"a message": func(conn *ackConn) { _, _ = conn.Write([]byte(message)) },
		"acknowledgements": func(conn *ackConn) {
			_, _ = conn.Write([]byte(puback1))
			time.Sleep(time.Minute)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				broker, client := net.Pipe()
				defer client.Close()
				conn := &ackConn{Conn: broker}
				conn.several.Store(true)
				go func() { _, _ = client.Read(make([]byte, 1)) }()
				_ = conn.SetDeadline(time.Now().Add(time.Second))
				torn(conn)
				_ = conn.SetDeadline(time.Now().Add(time.Hour)) // the client has sent something
				_, _ = conn.Write([]byte(puback2))
				go func() {
					begin := time.Now()
					_, err := conn.Read(make([]byte, 1))
					if took := time.Since(begin); !errors.Is(err, os.ErrDeadlineExceeded) || took > 0 {
						t.Errorf("Read: %v after %v", err, took)
					}
					_ = conn.Close()
				}()
				if rest, _ := io.ReadAll(client); len(rest) > 0 {
					t.Errorf("%q was written after a part of a packet", rest)
				}
			})
		})
	}
}

// TestReadAfterReset: of a client that is gone, so that nothing can be written any more,
// the broker reads what it sent before.
func TestReadAfterReset(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("other systems may throw away what was not read")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	broker, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	conn := &ackConn{Conn: broker}
	const disconnect = "\xe0\x00"
	if _, err := client.Write([]byte(disconnect)); err != nil {
		t.Fatal(err)
	}
	_ = client.(*net.TCPConn).SetLinger(0) // as when it has not read all
	_ = client.Close()
	for late := time.Now().Add(5 * time.Second); time.Now().Before(late); time.Sleep(time.Millisecond) {
		if _, err = conn.Write([]byte(message)); err != nil {
			break
		}
	}
	if err == nil {
		t.Fatal("writing to a client that is gone goes on")
	}
	b := make([]byte, 64)
	if n, err := conn.Read(b); string(b[:n]) != disconnect {
		t.Errorf("read %q, %v; want %q", b[:n], err, disconnect)
	}
}

// TestAcksAgain: the broker takes long to read, again and again.
func TestAcksAgain(t *testing.T) {
	ackTest(t, 0, func(conn *ackConn, got <-chan string) {
		for range 3 {
			write(t, conn, puback1, puback2)
			time.Sleep(2 * ackDelay)
			select {
			case s := <-got:
				if s != puback1+puback2 {
					t.Errorf("%q was written", s)
				}
			default:
				t.Fatal("acknowledgements are not written")
			}
		}
	})
}
