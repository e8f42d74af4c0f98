package rabbit

import (
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// bufferedConn is a connection whose Write never blocks: a goroutine writes what
// was buffered. The AMQP client holds its locks while it writes, so a broker that
// reads nothing would otherwise block callers beyond the end of their ctx. The
// buffer is bounded by its users: each of them bounds what it has in flight.
//
// Under load, what several messages write while a write is in flight shares the
// next one; the client would make a system call for each message.
type bufferedConn struct {
	net.Conn
	reads atomic.Uint64 // that returned data

	mu      sync.Mutex
	changed sync.Cond // pending or closing has changed
	pending []byte
	spare   []byte // the buffer of the last write, to be used again
	err     error
	closing bool
	done    chan struct{} // closed when the writer has ended
}

// maxSpare is the largest buffer that is used again, in bytes. A larger one, of
// a burst, is left to the garbage collector.
const maxSpare = 1 << 20

// newBufferedConn starts the writer. It ends with Close, which waits for it.
func newBufferedConn(conn net.Conn) *bufferedConn {
	c := &bufferedConn{Conn: conn, done: make(chan struct{})}
	c.changed.L = &c.mu
	go c.write()
	return c
}

// Write buffers p. An error of the connection is returned by a later Write.
func (c *bufferedConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return 0, c.err
	}
	if c.closing {
		return 0, net.ErrClosed
	}
	c.pending = append(c.pending, p...)
	c.changed.Signal()
	return len(p), nil
}

// Read ends the writer when the peer is gone.
func (c *bufferedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.reads.Add(1)
	}
	if err != nil {
		c.fail(err)
	}
	return n, err
}

// Close writes what is pending, for 100 ms at most, and closes the connection.
func (c *bufferedConn) Close() error {
	_ = c.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	c.mu.Lock()
	c.closing = true
	c.changed.Signal()
	c.mu.Unlock()
	<-c.done
	return c.Conn.Close()
}

// giveUp ends reads and writes, because the peer does not answer.
func (c *bufferedConn) giveUp() { c.fail(os.ErrDeadlineExceeded) }

func (c *bufferedConn) write() {
	defer close(c.done)
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		for len(c.pending) == 0 && !c.closing {
			c.changed.Wait()
		}
		if len(c.pending) == 0 {
			return
		}
		batch := c.pending
		c.pending, c.spare = c.spare[:0], nil
		c.mu.Unlock()
		_, err := c.Conn.Write(batch)
		c.mu.Lock()
		if cap(batch) <= maxSpare {
			c.spare = batch[:0]
		}
		if err != nil {
			c.failLocked(err)
			return
		}
	}
}

func (c *bufferedConn) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failLocked(err)
}

// failLocked ends reads and writes. The caller must hold c.mu.
func (c *bufferedConn) failLocked(err error) {
	if c.err == nil {
		c.err = err
	}
	c.pending, c.closing = nil, true
	c.changed.Signal()
	_ = c.SetDeadline(time.Now())
}
