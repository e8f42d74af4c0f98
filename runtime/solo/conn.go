package solo

import (
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
)

// Conn is a connection that does not wake the runtime's monitor while a switch
// is on. That thread sleeps when there is nothing to do, as it is between two
// lone requests, and every ordinary system call wakes it, to look after those
// that take long. What a socket has, and what it takes at once, is a matter of
// microseconds. What is written so makes way for who is to read it, see way.
//
// It is a net.Conn in all, for many goroutines at once.
type Conn struct {
	net.Conn
	on  *Switch
	raw syscall.RawConn // nil: there is no socket to read from
	way way             // guarded by the lock that writing takes

	reading sync.Mutex
	b       []byte // is read into
	n       int    // bytes of it
	err     error
	some    func(fd uintptr) bool
}

// maxQuiet is how much is written at once, in bytes: a garbage collection waits
// for it.
const maxQuiet = 64 << 10

// NewConn returns c as a Conn. One that is no socket is as c is, and so is any
// with a nil switch.
func NewConn(c net.Conn, on *Switch) *Conn {
	quick := &Conn{Conn: c, on: on, raw: socketOf(c)}
	quick.some = quick.readSome
	return quick
}

// Socket returns what SyscallConn would; nil where there is no socket that can
// be read from so.
func (c *Conn) Socket() syscall.RawConn { return c.raw }

// Read reads as the connection within does.
func (c *Conn) Read(b []byte) (int, error) {
	if c.raw != nil && c.on.On() {
		if n, err := c.readQuietly(b); n > 0 || err != nil {
			return n, err
		}
	}
	return c.Conn.Read(b) // the end, and what waiting fails with
}

func (c *Conn) readQuietly(b []byte) (int, error) {
	c.reading.Lock()
	defer c.reading.Unlock()
	c.b, c.n, c.err = b, 0, nil
	_ = c.raw.Read(c.some) // waits; that it fails shows with the read that follows
	c.b = nil
	return c.n, c.readError(c.err)
}

// readSome reports whether there is no more to wait for.
func (c *Conn) readSome(fd uintptr) bool {
	for c.on.On() {
		n, err := quietRead(fd, c.b)
		if !errors.Is(err, syscall.EAGAIN) {
			c.n, c.err = n, err
			return true
		}
		if !c.on.staysAwake() {
			return false
		}
	}
	return true
}

// readError is what a read fails with when the system says err, which it does
// once only; nil for nil.
func (c *Conn) readError(err error) error {
	if err == nil {
		return nil
	}
	return &net.OpError{
		Op: "read", Net: c.RemoteAddr().Network(), Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: os.NewSyscallError("read", err),
	}
}

// Write writes as the connection within does.
func (c *Conn) Write(b []byte) (int, error) {
	n := 0
	if c.on.On() {
		n = c.WriteSome(b)
	}
	if n == len(b) && n > 0 {
		return n, nil
	}
	rest, err := c.Conn.Write(b[n:])
	return n + rest, err
}

// WriteSome writes what the socket takes of b at once, and returns how much: 0
// too where there is no socket, and leaves an error to a Write.
func (c *Conn) WriteSome(b []byte) (n int) {
	if c.raw == nil || len(b) == 0 {
		return 0
	}
	quiet := c.on.On() && len(b) <= maxQuiet
	_ = c.raw.Write(func(fd uintptr) bool {
		if !quiet {
			n = plainWrite(fd, b)
		} else if n = quietWrite(fd, b); n > 0 {
			c.way.make(yield)
		}
		return true // whatever came of it: do not wait
	})
	return n
}
