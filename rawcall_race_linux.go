//go:build race

package webhook

import (
	"slices"
	"syscall"
)

// The race detector has to see that what a receiver did before it answered came
// before what its sender does after: it knows package syscall, but no raw call.

func readSocket(fd uintptr, b []byte) (int, syscall.Errno) { return seenCall(syscall.Read, fd, b) }

func writeSocket(fd uintptr, b, more []byte) (int, syscall.Errno) {
	if len(more) > 0 {
		b = slices.Concat(b, more)
	}
	return seenCall(syscall.Write, fd, b)
}

func seenCall(call func(fd int, b []byte) (int, error), fd uintptr, b []byte) (int, syscall.Errno) {
	for {
		n, err := call(int(fd), b)
		if errno, _ := err.(syscall.Errno); errno != syscall.EINTR {
			return max(n, 0), errno
		}
	}
}
