//go:build unix

package solo

import (
	"errors"
	"net"
	"syscall"
	"time"
)

// socketOf is the socket of c; nil if there is none, or none that Conn and
// Glance can read from.
func socketOf(c net.Conn) syscall.RawConn {
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
// for as long as d, and quietly while on is. Without a byte and an error it is
// the end, or nothing has come.
func readWithin(d time.Duration, fd uintptr, b []byte, on *Switch) (int, error) {
	read := plainRead
	if on.On() {
		read = quietRead
	}
	for began := time.Now(); ; {
		n, err := read(fd, b)
		if !errors.Is(err, syscall.EAGAIN) {
			return n, err
		}
		if time.Since(began) > d {
			return 0, nil
		}
	}
}

// plainRead reads from fd what is there. The error is EAGAIN when there is
// nothing yet.
func plainRead(fd uintptr, b []byte) (int, error) {
	for {
		n, err := syscall.Read(int(fd), b)
		if err != syscall.EINTR {
			return max(n, 0), err
		}
	}
}

// plainWrite writes to fd what it takes of b.
func plainWrite(fd uintptr, b []byte) int {
	n, _ := syscall.Write(int(fd), b)
	return max(n, 0)
}
