package solo

import (
	"net"
	"sync"
	"syscall"
)

// Conn is a connection that does not wake the runtime's monitor while a switch
// is on. That thread sleeps when there is nothing to do, as it is between two
// lone requests, and every ordinary system call wakes it, to look after those
// that take long. What a socket has, and what it takes at once, is a matter of
// microseconds.
//
// It is a net.Conn in all, for many goroutines at once.
type Conn struct {
	net.Conn
	on  *Switch
	raw syscall.RawConn // nil: there is no socket to read from

	reading sync.Mutex
	b       []byte // is read into
	n       int    // bytes of it
	some    func(fd uintptr) bool
}

// maxQuiet is how much is written at once, in bytes: a garbage collection waits
// for it.
const maxQuiet = 64 << 10

// NewConn returns c as a Conn. One that is no socket is as c is.
func NewConn(c net.Conn, on *Switch) *Conn {
	quick := &Conn{Conn: c, on: on, raw: SocketOf(c)}
	quick.some = quick.readSome
	return quick
}

// Read reads as the connection within does, but that a reset may show as the end:
// the system tells of it once.
func (c *Conn) Read(b []byte) (int, error) {
	if c.raw != nil && c.on.On() {
		if n := c.readQuietly(b); n > 0 {
			return n, nil
		}
	}
	return c.Conn.Read(b) // the end, and errors
}

func (c *Conn) readQuietly(b []byte) int {
	c.reading.Lock()
	defer c.reading.Unlock()
	c.b, c.n = b, 0
	_ = c.raw.Read(c.some) // waits; an error shows with the read that follows
	c.b = nil
	return c.n
}

// readSome reports whether there is no more to wait for.
func (c *Conn) readSome(fd uintptr) bool {
	if !c.on.On() { // any more
		return true
	}
	n, wait := quietRead(fd, c.b)
	c.n = n
	return !wait
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
		if quiet {
			n = quietWrite(fd, b)
		} else {
			n = plainWrite(fd, b)
		}
		return true // whatever came of it: do not wait
	})
	return n
}
