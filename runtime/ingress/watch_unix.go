//go:build unix && !aix

package ingress

import (
	"cmp"
	"errors"
	"syscall"

	"github.com/rabbet-fn/rabbet/runtime/solo"
)

// peekable is the socket of c, if there is one.
func peekable(c *solo.Conn) syscall.RawConn { return c.Socket() }

// left reports whether the client has closed the connection, or its half. It
// cannot see past a request that the client has sent ahead.
func (c *clientConn) left() bool {
	n, err := c.peek()
	return err == nil && n == 0 || err != nil && !errors.Is(err, syscall.EAGAIN) && !errors.Is(err, syscall.EINTR)
}

// pending reports whether the client has sent something that is not read yet.
func (c *clientConn) pending() bool {
	n, err := c.peek()
	return err == nil && n > 0
}

// peek reads a byte, and leaves it there, without waiting for one.
func (c *clientConn) peek() (n int, err error) {
	if c.raw == nil {
		return 0, syscall.EAGAIN
	}
	controlErr := c.raw.Control(func(fd uintptr) {
		var b [1]byte
		n, _, err = syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	})
	return n, cmp.Or(controlErr, err)
}
