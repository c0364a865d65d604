//go:build unix

package webhook

import (
	"errors"
	"net"
	"os"
	"syscall"
)

// An idleLook looks at a kept-alive socket before it is used again.
type idleLook struct {
	conn syscall.RawConn
	read func(fd uintptr) bool // made once, so that a look does not allocate
	b    [1]byte
	some bool // what read found
}

// rawConnOf returns nil for what is no socket.
func rawConnOf(conn net.Conn) syscall.RawConn {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}

// lookAt returns nil for what is no socket.
func lookAt(conn net.Conn) *idleLook {
	raw := rawConnOf(conn)
	if raw == nil {
		return nil
	}
	l := &idleLook{conn: raw}
	l.read = func(fd uintptr) bool {
		_, err := syscall.Read(int(fd), l.b[:])
		l.some = err != syscall.EAGAIN && err != syscall.EWOULDBLOCK
		return true // do not wait
	}
	return l
}

// readable reports whether there is anything to read: the end, an error, or a
// byte, which is then lost. It does not wait. A deadline that has passed says
// nothing about the connection.
func (l *idleLook) readable() bool {
	if l == nil {
		return false
	}
	l.some = false
	err := l.conn.Read(l.read)
	return l.some || err != nil && !errors.Is(err, os.ErrDeadlineExceeded)
}
