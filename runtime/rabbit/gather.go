package rabbit

import (
	"net"
	"sync"
	"time"
)

// gatherLimit bounds what waits to be written: beyond it a writer waits as on
// any connection.
const gatherLimit = 1 << 20

// gatheringConn lets what is written while an earlier write is under way leave
// with one system call. The AMQP client flushes after every message; under
// load several messages share a flush this way.
type gatheringConn struct {
	net.Conn
	mu      sync.Mutex
	pending []byte
	spare   []byte
	err     error
	closing bool
	writing bool      // a write is under way
	work    sync.Cond // something is pending, or the connection is closing
	room    sync.Cond // pending has been taken
	done    chan struct{}
}

func newGatheringConn(c net.Conn) *gatheringConn {
	g := &gatheringConn{Conn: c, done: make(chan struct{})}
	g.work.L, g.room.L = &g.mu, &g.mu
	go g.write() // ended and awaited by Close
	return g
}

// Write writes p at once when nothing else is being written. Otherwise it takes
// p over, and an error of the connection shows with the next Write.
func (g *gatheringConn) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for len(g.pending) > gatherLimit && g.err == nil && !g.closing {
		g.room.Wait()
	}
	if g.err != nil {
		return 0, g.err
	}
	if g.closing {
		return 0, net.ErrClosed
	}
	if g.writing || len(g.pending) > 0 {
		g.pending = append(g.pending, p...)
		g.work.Signal()
		return len(p), nil
	}
	g.writing = true // nobody is: this goroutine may as well
	g.mu.Unlock()
	n, err := g.Conn.Write(p)
	g.mu.Lock()
	g.writing = false
	if err != nil {
		g.fail(err)
	} else if len(g.pending) > 0 || g.closing {
		g.work.Signal()
	}
	return n, err
}

// Close writes what is pending, for a moment, and closes the connection.
func (g *gatheringConn) Close() error {
	_ = g.Conn.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	g.mu.Lock()
	g.closing = true
	g.work.Signal()
	g.room.Broadcast()
	g.mu.Unlock()
	<-g.done
	return g.Conn.Close()
}

func (g *gatheringConn) write() {
	defer close(g.done)
	g.mu.Lock()
	defer g.mu.Unlock()
	for {
		for g.writing || len(g.pending) == 0 && !g.closing {
			g.work.Wait()
		}
		if len(g.pending) == 0 {
			return
		}
		g.writing = true
		batch := g.pending
		g.pending, g.spare = g.spare[:0], nil
		g.room.Broadcast()
		g.mu.Unlock()
		_, err := g.Conn.Write(batch)
		g.mu.Lock()
		g.writing = false
		if cap(batch) <= gatherLimit { // a burst is not kept for ever
			g.spare = batch[:0]
		}
		if err != nil {
			g.fail(err)
			return
		}
	}
}

// Read ends writers that are stuck when the peer is gone or mute: the client
// cannot take a connection down while one of them holds its channel.
func (g *gatheringConn) Read(p []byte) (int, error) {
	n, err := g.Conn.Read(p)
	if err != nil {
		g.mu.Lock()
		g.fail(err)
		g.mu.Unlock()
	}
	return n, err
}

// fail ends reading and writing. g.mu is held.
func (g *gatheringConn) fail(err error) {
	if g.err == nil {
		g.err = err
	}
	g.pending, g.closing = nil, true
	g.work.Signal()
	g.room.Broadcast()
	_ = g.Conn.SetDeadline(time.Now())
}
