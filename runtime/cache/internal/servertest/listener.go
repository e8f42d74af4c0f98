package servertest

import (
	"net"
	"sync"
	"testing"
)

// A Listener passes each connection to a function, until it is closed with all of
// them.
type Listener struct {
	Address string // host:port
	l       net.Listener
	mu      sync.Mutex
	conns   []net.Conn
	closed  bool
	running sync.WaitGroup
}

// Listen opens a Listener that calls handle for each connection.
func Listen(t testing.TB, handle func(net.Conn)) *Listener {
	t.Helper()
	l := &Listener{Address: "127.0.0.1:0"}
	l.ListenAgain(t, handle)
	t.Cleanup(l.Close)
	return l
}

// ListenAgain opens the listener again, at the same address.
func (l *Listener) ListenAgain(t testing.TB, handle func(net.Conn)) {
	t.Helper()
	var err error
	if l.l, err = net.Listen("tcp", l.Address); err != nil {
		t.Fatal(err)
	}
	l.Address, l.closed = l.l.Addr().String(), false
	l.running.Go(func() { // ends with the listener
		for {
			c, err := l.l.Accept()
			if err != nil {
				return
			}
			l.mu.Lock()
			if l.closed {
				c.Close()
			}
			l.conns = append(l.conns, c)
			l.mu.Unlock()
			l.running.Go(func() { handle(c); c.Close() })
		}
	})
}

// Close closes the listener and its connections.
func (l *Listener) Close() {
	l.mu.Lock()
	l.l.Close()
	for _, c := range l.conns {
		c.Close()
	}
	l.conns, l.closed = nil, true
	l.mu.Unlock()
	l.running.Wait()
}
