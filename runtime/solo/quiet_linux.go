//go:build linux && !race

package solo

import (
	"syscall"
	"unsafe"
)

// quietRead is plainRead, of which the runtime learns nothing.
func quietRead(fd uintptr, b []byte) (int, error) {
	for {
		n, _, err := syscall.RawSyscall(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
		switch err {
		case 0:
			return int(n), nil
		case syscall.EINTR:
		default:
			return 0, err
		}
	}
}

// quietWrite is plainWrite, of which the runtime learns nothing. b is not empty.
func quietWrite(fd uintptr, b []byte) int {
	r, _, err := syscall.RawSyscall(syscall.SYS_WRITE, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	if err != 0 {
		return 0
	}
	return int(r)
}

// yield lets others run on the system's processor who can; this thread comes
// after them.
func yield() { _, _, _ = syscall.RawSyscall(syscall.SYS_SCHED_YIELD, 0, 0, 0) }
