//go:build !race

package webhook

import (
	"syscall"
	"unsafe"
)

func readSocket(fd uintptr, b []byte) (int, syscall.Errno) {
	return rawCall(syscall.SYS_READ, fd, unsafe.Pointer(unsafe.SliceData(b)), len(b))
}

// writeSocket writes b, which is not empty, and more behind it.
func writeSocket(fd uintptr, b, more []byte) (int, syscall.Errno) {
	if len(more) == 0 {
		return rawCall(syscall.SYS_WRITE, fd, unsafe.Pointer(unsafe.SliceData(b)), len(b))
	}
	both := [2]syscall.Iovec{{Base: unsafe.SliceData(b)}, {Base: unsafe.SliceData(more)}}
	both[0].SetLen(len(b))
	both[1].SetLen(len(more))
	return rawCall(syscall.SYS_WRITEV, fd, unsafe.Pointer(&both), len(both))
}

// rawCall makes a system call about what lies at p, which must not block and not
// take long: the processor is not given to other goroutines meanwhile. n is 0
// after an error.
func rawCall(number, fd uintptr, p unsafe.Pointer, length int) (n int, errno syscall.Errno) {
	for {
		n, _, errno := syscall.RawSyscall(number, fd, uintptr(p), uintptr(length))
		switch errno {
		case 0:
			return int(n), 0
		case syscall.EINTR:
		default:
			return 0, errno
		}
	}
}
