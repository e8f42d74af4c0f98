package cache

import (
	"context"
	"net"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/solo"
)

// conns are the connections to a store's servers, which cost a read less than
// plain ones do: most of a read's time goes into waking whoever waits for the
// answer.
type conns struct {
	dial   func(ctx context.Context, network, address string) (net.Conn, error)
	failed atomic.Int64 // when one of them failed last, in Unix nanoseconds
	asking atomic.Int32 // how many of them wait for an answer
	alone  atomic.Int32 // questions in a row that were asked while no other was under way; aloneSince stands for more
}

type conn struct {
	*solo.Conn // one without a switch
	all        *conns
	asked      atomic.Bool // and nobody has looked for the answer yet
	answered   time.Time   // when something came last
	glance     solo.Glance
}

// aloneSince is how many questions in a row were alone before one is worth a
// glance.
const aloneSince = 32

// trusted is how long after an answer a connection is taken for sound, unless
// another one has failed meanwhile, as all do when the server starts anew. What
// is not after all is replaced, see again.
const trusted = time.Second

func (a *conns) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	socket, err := a.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &conn{Conn: solo.NewConn(socket, nil), all: a}, nil
}

func (c *conn) Write(b []byte) (int, error) {
	if !c.asked.Swap(true) {
		if c.all.asking.Add(1) > 1 {
			c.all.alone.Store(0)
		} else if c.all.alone.Load() < aloneSince {
			c.all.alone.Add(1)
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
		if c.all.alone.Load() < aloneSince {
			runtime.Gosched()
		} else {
			n, err = c.glance.Read(c.Conn, b)
		}
	}
	if n == 0 && err == nil {
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

// SyscallConn is what go-redis looks through before each use, for the end of
// the connection or an answer that nobody asked for. A TLS connection has none,
// and is not looked through.
func (c *conn) SyscallConn() (syscall.RawConn, error) {
	if c.Socket() == nil || time.Since(c.answered) < trusted && c.answered.UnixNano() > c.all.failed.Load() {
		return unseen{}, nil
	}
	return c.Socket(), nil
}

// unseen is a socket at which there is nothing to see.
type unseen struct{}

func (unseen) Control(func(fd uintptr)) error    { return nil }
func (unseen) Read(func(fd uintptr) bool) error  { return nil }
func (unseen) Write(func(fd uintptr) bool) error { return nil }
