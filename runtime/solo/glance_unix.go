//go:build unix

package solo

import (
	"errors"
	"syscall"
	"time"
)

// readWithin reads from fd, which does not wait, as soon as there is something,
// for as long as d. It returns 0 for nothing, the end, and an error.
func readWithin(d time.Duration, fd uintptr, b []byte) int {
	for began := time.Now(); ; {
		n, err := syscall.Read(int(fd), b)
		if err == nil {
			return n
		}
		if !errors.Is(err, syscall.EAGAIN) && !errors.Is(err, syscall.EINTR) || time.Since(began) > d {
			return 0
		}
	}
}
