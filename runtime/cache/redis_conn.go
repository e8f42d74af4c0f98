package cache

import (
	"context"
	"net"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

// redisConns dials connections to Redis that cost a call less: two system calls
// that find nothing, most of the time.
type redisConns struct {
	dial   func(ctx context.Context, network, address string) (net.Conn, error)
	failed atomic.Int64              // when one of them failed last, in Unix nanoseconds
	latest atomic.Pointer[redisConn] // that asked
}

type redisConn struct {
	net.Conn
	all      *redisConns
	asked    atomic.Bool // and nobody has looked for the answer yet
	answered time.Time   // when something came last
}

// trusted is how long after an answer a connection is taken for sound, unless
// another one has failed meanwhile, as all do when the server starts anew. What
// is not after all is replaced, see again.
const trusted = time.Second

func newRedisConns(o *redis.UniversalOptions) *redisConns {
	return &redisConns{dial: redis.NewDialer(&redis.Options{DialTimeout: o.DialTimeout, TLSConfig: o.TLSConfig})}
}

func (a *redisConns) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := a.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &redisConn{Conn: conn, all: a}, nil
}

func (c *redisConn) Write(b []byte) (int, error) {
	c.asked.Store(true)
	n, err := c.Conn.Write(b)
	if err != nil {
		c.all.failed.Store(time.Now().UnixNano())
	}
	return n, err
}

// Read lets others go on, if there are any, before it looks for an answer: just
// after the question it would look in vain, and have to be woken.
func (c *redisConn) Read(b []byte) (int, error) {
	if c.asked.Swap(false) && c.all.latest.Swap(c) != c {
		runtime.Gosched()
	}
	n, err := c.Conn.Read(b)
	now := time.Now()
	if err != nil {
		c.all.failed.Store(now.UnixNano())
	} else {
		c.answered = now
	}
	return n, err
}

// SyscallConn is what the client looks through before each use, for the end of
// the connection or an answer that nobody asked for. A TLS connection has none,
// and is not looked through.
func (c *redisConn) SyscallConn() (syscall.RawConn, error) {
	socket, ok := c.Conn.(syscall.Conn)
	if !ok || time.Since(c.answered) < trusted && c.answered.UnixNano() > c.all.failed.Load() {
		return unseen{}, nil
	}
	return socket.SyscallConn()
}

// unseen is a socket at which there is nothing to see.
type unseen struct{}

func (unseen) Control(func(fd uintptr)) error    { return nil }
func (unseen) Read(func(fd uintptr) bool) error  { return nil }
func (unseen) Write(func(fd uintptr) bool) error { return nil }
