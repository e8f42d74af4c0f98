package rabbit

import (
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/solo"
)

// gatherWrites is how close together writes come for them to leave together.
const gatherWrites = 50 * time.Microsecond

// gatheringConn never makes who writes to it wait: what the kernel does not
// take at once is kept and written as soon as it does. The AMQP client holds its
// locks while it writes, so a broker that reads nothing would otherwise hold up
// callers past the end of their ctx. What is kept is bounded by those who write:
// each of them bounds what it has under way.
//
// A write that comes alone leaves at once; under load, writes that come close
// together share a system call, where the client would make one for each message.
type gatheringConn struct {
	*solo.Conn

	mu      sync.Mutex
	last    time.Time // of the last write
	pending []byte
	spare   []byte
	err     error
	closing bool
	writing bool      // a write of what was pending is under way
	work    sync.Cond // something is pending, or the connection is closing
	done    chan struct{}
	reads   atomic.Uint64 // that brought something
}

func newGatheringConn(c net.Conn, alone *solo.Switch) *gatheringConn {
	g := &gatheringConn{Conn: solo.NewConn(c, alone), done: make(chan struct{})}
	g.work.L = &g.mu
	go g.write() // ended and awaited by Close
	return g
}

// Write takes p over, or has written it. An error of the connection shows with
// the next Write.
func (g *gatheringConn) Write(p []byte) (int, error) {
	now := time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err != nil {
		return 0, g.err
	}
	if g.closing {
		return 0, net.ErrClosed
	}
	rest := p
	if alone := now.Sub(g.last) > gatherWrites; alone && !g.writing && len(g.pending) == 0 {
		rest = p[g.WriteSome(p):]
	}
	g.last = now
	if len(rest) > 0 {
		g.pending = append(g.pending, rest...)
		g.work.Signal()
	}
	return len(p), nil
}

// Close writes what is pending, for a moment, and closes the connection.
func (g *gatheringConn) Close() error {
	_ = g.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	g.mu.Lock()
	g.closing = true
	g.work.Signal()
	g.mu.Unlock()
	<-g.done
	return g.Conn.Close()
}

func (g *gatheringConn) write() {
	defer close(g.done)
	g.mu.Lock()
	defer g.mu.Unlock()
	for {
		for len(g.pending) == 0 && !g.closing {
			g.work.Wait()
		}
		if len(g.pending) == 0 {
			return
		}
		g.writing = true
		batch := g.pending
		g.pending, g.spare = g.spare[:0], nil
		g.mu.Unlock()
		_, err := g.Conn.Write(batch)
		g.mu.Lock()
		g.writing = false
		if cap(batch) <= keepBuffer { // a burst is not kept for ever
			g.spare = batch[:0]
		}
		if err != nil {
			g.fail(err)
			return
		}
	}
}

// keepBuffer is the largest buffer that is used again, in bytes.
const keepBuffer = 1 << 20

// Read ends the writing when the peer is gone.
func (g *gatheringConn) Read(p []byte) (int, error) {
	n, err := g.Conn.Read(p)
	if n > 0 {
		g.reads.Add(1)
	}
	if err != nil {
		g.mu.Lock()
		g.fail(err)
		g.mu.Unlock()
	}
	return n, err
}

// giveUp ends reading and writing: the peer does not answer.
func (g *gatheringConn) giveUp() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.fail(os.ErrDeadlineExceeded)
}

// fail ends reading and writing. g.mu is held.
func (g *gatheringConn) fail(err error) {
	if g.err == nil {
		g.err = err
	}
	g.pending, g.closing = nil, true
	g.work.Signal()
	_ = g.SetDeadline(time.Now())
}
