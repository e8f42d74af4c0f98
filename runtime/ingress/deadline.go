package ingress

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// lenientListener accepts connections whose deadlines are cheap to move.
//
// net/http moves them eight times for each request, there and back, mostly to
// a later time and while nobody reads. Each move of a socket's deadline is a
// timer and two looks at the clock; together they took 8 % of the CPU that a
// result costs which is at hand.
type lenientListener struct{ net.Listener }

func (l lenientListener) Accept() (net.Conn, error) {
	socket, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &lenientConn{Conn: socket}
	c.read.apply, c.write.apply = socket.SetReadDeadline, socket.SetWriteDeadline
	return c, nil
}

// lenientConn is a connection that tells its socket only of a deadline that
// comes earlier than the one it has. So the socket may end an operation too
// early, which then goes on.
type lenientConn struct {
	net.Conn
	read, write deadline
}

func (c *lenientConn) Read(b []byte) (int, error) {
	for {
		if err := c.read.begin(); err != nil {
			return 0, err
		}
		n, err := c.Conn.Read(b)
		if !c.read.tooEarly(err) {
			return n, err
		}
	}
}

func (c *lenientConn) Write(b []byte) (written int, err error) {
	for {
		if err := c.write.begin(); err != nil {
			return written, err
		}
		n, err := c.Conn.Write(b[written:])
		written += n
		if !c.write.tooEarly(err) {
			return written, err
		}
	}
}

func (c *lenientConn) SetReadDeadline(t time.Time) error  { return c.read.move(t) }
func (c *lenientConn) SetWriteDeadline(t time.Time) error { return c.write.move(t) }

func (c *lenientConn) SetDeadline(t time.Time) error {
	return errors.Join(c.read.move(t), c.write.move(t))
}

// CloseWrite is what net/http looks for to close a connection without losing
// the response that it has just sent.
func (c *lenientConn) CloseWrite() error {
	if socket, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return socket.CloseWrite()
	}
	return errors.ErrUnsupported
}

// deadline is a deadline of a connection. The zero time is never.
type deadline struct {
	apply func(time.Time) error // sets the socket's

	mu      sync.Mutex
	want    time.Time
	socket  time.Time // the socket's; never later than want while an operation is under way
	expired bool      // an operation ran into the socket's
	busy    int       // operations under way
}

// move sets the deadline, for an operation that is under way, too.
func (d *deadline) move(t time.Time) error {
	d.mu.Lock()
	d.want = t
	cut := d.busy > 0 && earlier(t, d.socket)
	if cut {
		d.socket = t
	}
	d.mu.Unlock()
	for cut {
		if err := d.apply(t); err != nil { // without the lock: it wakes somebody who wants it
			return err
		}
		d.mu.Lock()
		cut, t = earlier(d.socket, t), d.socket // moved by another meanwhile, and perhaps put back by this one
		d.mu.Unlock()
	}
	return nil
}

// begin is called before an operation. It fails if it is too late for one.
func (d *deadline) begin() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.expired || earlier(d.want, d.socket) {
		if d.passed() {
			return os.ErrDeadlineExceeded
		}
		if err := d.apply(d.want); err != nil {
			return err
		}
		d.socket, d.expired = d.want, false
	}
	d.busy++
	return nil
}

// tooEarly is called after an operation with its error. It reports whether the
// socket's deadline ended it, and not the one that is wanted.
func (d *deadline) tooEarly(err error) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.busy--
	if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	d.expired = true
	return !d.passed()
}

func (d *deadline) passed() bool { return !d.want.IsZero() && !time.Now().Before(d.want) }

func earlier(a, b time.Time) bool { return !a.IsZero() && (b.IsZero() || a.Before(b)) }
