package cache

import (
	"context"
	"net"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
)

// conns are the connections to a store's servers, which cost a read less than
// plain ones do: most of a read's time goes into waking whoever waits for the
// answer.
type conns struct {
	dial   func(ctx context.Context, network, address string) (net.Conn, error)
	failed atomic.Int64 // when one of them failed last, in Unix nanoseconds
	asking atomic.Int32 // how many of them wait for an answer
	alone  atomic.Int32 // questions in a row that were asked while no other was under way
}

type conn struct {
	net.Conn
	all      *conns
	raw      syscall.RawConn // of the socket; nil for TLS
	asked    atomic.Bool     // and nobody has looked for the answer yet
	answered time.Time       // when something came last
	skip     int             // how many of the next glances are left out
	skipped  int             // how many were before the last one
}

// A question that is alone, as the many before it were, glances at its
// connection, for as long, before it sleeps: a server that is near answers
// within that time, and to be woken takes nearly as long once more. It costs no
// CPU time, since the runtime's threads would look for work in vain meanwhile.
const (
	glance     = 100 * time.Microsecond
	aloneSince = 32 // questions
	maxSkip    = 63 // glances are left out at the most, for one that is in vain
)

// trusted is how long after an answer a connection is taken for sound, unless
// another one has failed meanwhile, as all do when the server starts anew. What
// is not after all is replaced, see again.
const trusted = time.Second

func (a *conns) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	socket, err := a.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: socket, all: a}
	if s, ok := socket.(syscall.Conn); ok {
		if c.raw, err = s.SyscallConn(); err != nil {
			socket.Close()
			return nil, err
		}
	}
	return c, nil
}

func (c *conn) Write(b []byte) (int, error) {
	if !c.asked.Swap(true) {
		if c.all.asking.Add(1) == 1 {
			c.all.alone.Add(1)
		} else {
			c.all.alone.Store(0)
		}
	}
	n, err := c.Conn.Write(b)
	if err != nil {
		c.all.failed.Store(time.Now().UnixNano())
	}
	return n, err
}

// Read lets others go on, if there are any, before it waits for an answer: just
// after the question it would look in vain, and have to be woken.
func (c *conn) Read(b []byte) (n int, err error) {
	if c.asked.Swap(false) {
		defer c.all.asking.Add(-1)
		if c.all.alone.Load() >= aloneSince {
			n = c.glance(b)
		} else {
			runtime.Gosched()
		}
	}
	if n == 0 {
		n, err = c.Conn.Read(b)
	}
	now := time.Now()
	if err != nil {
		c.all.failed.Store(now.UnixNano())
	} else {
		c.answered = now
	}
	return n, err
}

func (c *conn) Close() error {
	if c.asked.Swap(false) {
		c.all.asking.Add(-1)
	}
	return c.Conn.Close()
}

// glance reads what comes within a moment, and returns how much: 0 leaves all,
// errors too, to a read that waits. The more glances in a row are in vain, the
// more are left out.
func (c *conn) glance(b []byte) (n int) {
	if c.raw == nil {
		return 0
	}
	if c.skip > 0 {
		c.skip--
		return 0
	}
	_ = c.raw.Read(func(fd uintptr) bool { // an error shows with the read that waits
		n = readWithin(glance, fd, b)
		return true
	})
	if n > 0 {
		c.skipped = 0
	} else {
		c.skipped = min(2*c.skipped+1, maxSkip)
	}
	c.skip = c.skipped
	return n
}

// SyscallConn is what go-redis looks through before each use, for the end of
// the connection or an answer that nobody asked for. A TLS connection has none,
// and is not looked through.
func (c *conn) SyscallConn() (syscall.RawConn, error) {
	if c.raw == nil || time.Since(c.answered) < trusted && c.answered.UnixNano() > c.all.failed.Load() {
		return unseen{}, nil
	}
	return c.raw, nil
}

// unseen is a socket at which there is nothing to see.
type unseen struct{}

func (unseen) Control(func(fd uintptr)) error    { return nil }
func (unseen) Read(func(fd uintptr) bool) error  { return nil }
func (unseen) Write(func(fd uintptr) bool) error { return nil }
