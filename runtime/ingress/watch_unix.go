//go:build unix && !aix

package ingress

import (
	"net"
	"syscall"
)

// peekable is the socket of c, if there is one.
func peekable(c net.Conn) syscall.RawConn {
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

// left reports whether the client has closed the connection, or its half. It
// cannot see past a request that the client has sent ahead.
func (c *clientConn) left() bool {
	gone := false
	err := c.raw.Control(func(fd uintptr) {
		var b [1]byte
		n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		gone = err == nil && n == 0 || err != nil && err != syscall.EAGAIN && err != syscall.EINTR
	})
	return gone || err != nil
}
