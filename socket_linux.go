package webhook

import (
	"net"
	"os"
	"syscall"
)

// A socket exchanges a request and a reply over a TCP connection with as little
// as that takes.
//
// A Read of package net looks first, and waits when there is nothing yet, as
// there never is right after a request was written. Here waiting comes first: one
// system call less.
//
// And the scheduler is not told that a system call begins and ends. That is for
// calls that may block, which those of package net do not, as they wait in the
// poller. It costs more than it seems under load: a write that wakes the process
// at the other end takes long enough for the scheduler to give the processor to
// another thread meanwhile, for nothing.
//
// Together that is about a fifth of the processor time of a webhook.
type socket struct {
	conn syscall.RawConn
	talk func(fd uintptr) bool // made once, so that an exchange does not allocate

	out, body, in []byte
	written       bool
	wrote         int
	read          int
	writeErr      error
	readErr       error
}

// socketOf returns nil for what is no TCP connection.
func socketOf(conn net.Conn) *socket {
	if _, ok := conn.(*net.TCPConn); !ok {
		return nil
	}
	raw := rawConnOf(conn)
	if raw == nil {
		return nil
	}
	s := &socket{conn: raw}
	s.talk = s.step
	return s
}

// exchange writes out and body, waits, and reads into in what has come of the
// reply.
//
// It does only part of that, without an error, when something else ends it: a
// full socket, the end of the connection, a deadline. The rest is for Write and
// Read of the connection, which meet the same. Nor does it notice what was there
// to read before it began: whoever calls it sees to it that a deadline ends it
// soon, and looks then.
func (s *socket) exchange(out, body, in []byte) (wrote, read int, writeErr, readErr error) {
	if s == nil {
		return 0, 0, nil, nil
	}
	s.out, s.body, s.in, s.written, s.wrote, s.read = out, body, in, false, 0, 0
	s.writeErr, s.readErr = nil, nil
	_ = s.conn.Read(s.talk)
	s.out, s.body, s.in = nil, nil, nil
	return s.wrote, s.read, s.writeErr, s.readErr
}

// step writes when it is called for the first time, and then reads. A RawConn's
// Read calls it again whenever there may be something to read, until it returns
// true; it forgets what was to be read before the first call, not after.
func (s *socket) step(fd uintptr) (done bool) {
	if !s.written {
		s.written = true
		n, errno := writeSocket(fd, s.out, s.body)
		s.wrote = n
		if errno != 0 && errno != syscall.EAGAIN {
			s.writeErr = os.NewSyscallError("write", errno)
		}
		return n < len(s.out)+len(s.body)
	}
	n, errno := readSocket(fd, s.in)
	s.read = n
	if errno != 0 && errno != syscall.EAGAIN {
		s.readErr = os.NewSyscallError("read", errno)
	}
	return errno != syscall.EAGAIN
}
