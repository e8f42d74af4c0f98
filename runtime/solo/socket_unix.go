//go:build unix

package solo

import (
	"errors"
	"net"
	"syscall"
	"time"
)

// SocketOf is the socket of c; nil if there is none, or none that Conn and
// Glance can read from.
func SocketOf(c net.Conn) syscall.RawConn {
	socket, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}

// readWithin reads from fd, which does not wait, as soon as there is something,
// for as long as d, and quietly while on is. It returns 0 for nothing, the end,
// and an error.
func readWithin(d time.Duration, fd uintptr, b []byte, on *Switch) int {
	read := plainRead
	if on.On() {
		read = quietRead
	}
	for began := time.Now(); ; {
		n, wait := read(fd, b)
		if !wait || time.Since(began) > d {
			return n
		}
	}
}

// plainRead reads from fd what is there: 0 bytes of nothing, in which case it
// reports whether something may come, of the end, and of an error.
func plainRead(fd uintptr, b []byte) (n int, wait bool) {
	n, err := syscall.Read(int(fd), b)
	return max(n, 0), errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EINTR)
}

// plainWrite writes to fd what it takes of b.
func plainWrite(fd uintptr, b []byte) int {
	n, _ := syscall.Write(int(fd), b)
	return max(n, 0)
}
