//go:build !race

package webhook

import (
	"syscall"
	"unsafe"
)

func readSocket(fd uintptr, b []byte) (int, syscall.Errno) {
	return rawCall(syscall.SYS_READ, fd, b)
}

func writeSocket(fd uintptr, b []byte) (int, syscall.Errno) {
	return rawCall(syscall.SYS_WRITE, fd, b)
}

// rawCall makes a system call that does not block on b, which is not empty. n is
// 0 after an error.
func rawCall(number, fd uintptr, b []byte) (n int, errno syscall.Errno) {
	for {
		n, _, errno := syscall.RawSyscall(number, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
		switch errno {
		case 0:
			return int(n), 0
		case syscall.EINTR:
		default:
			return 0, errno
		}
	}
}
