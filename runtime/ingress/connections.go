package ingress

import (
	"net"
	"net/http"
	"sync"
	"sync/atomic"
)

// connections are the open connections of a Server.
type connections struct {
	mu      sync.Mutex
	open    map[*connection]struct{}
	count   sync.WaitGroup
	closing atomic.Bool // connections are closed as soon as they are idle
}

// track is the ConnState of the server.
func (cs *connections) track(nc net.Conn, state http.ConnState) {
	c, ok := nc.(*connection)
	if !ok {
		return // not TCP: http.Server.Shutdown closes it
	}
	switch state {
	case http.StateNew:
		cs.count.Add(1)
		cs.mu.Lock()
		if cs.open == nil {
			cs.open = map[*connection]struct{}{}
		}
		cs.open[c] = struct{}{}
		cs.mu.Unlock()
	case http.StateIdle:
		c.idle.Store(true)
		if cs.closing.Load() {
			c.Close()
		}
	case http.StateClosed, http.StateHijacked:
		cs.mu.Lock()
		delete(cs.open, c)
		cs.mu.Unlock()
		cs.count.Done()
	}
}

// closed returns a channel that is closed once there are no connections. No
// connection may be added any more.
func (cs *connections) closed() <-chan struct{} {
	closed := make(chan struct{})
	go func() { // ends with the last connection
		cs.count.Wait()
		close(closed)
	}()
	return closed
}

// closeIdle closes all idle connections, and from then on each one that becomes
// idle.
func (cs *connections) closeIdle() {
	cs.closing.Store(true)
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for c := range cs.open {
		if c.idle.Load() {
			c.Close()
		}
	}
}

// connection is a TCP connection that knows whether it is idle. http.Server counts
// a connection as idle until it has read all header fields of a request;
// here it is idle until the first byte.
type connection struct {
	*net.TCPConn
	idle atomic.Bool // no byte of the next request has been read
}

func (c *connection) Read(b []byte) (int, error) {
	n, err := c.TCPConn.Read(b)
	if n > 0 && c.idle.Load() {
		c.idle.Store(false)
	}
	return n, err
}

// listener accepts connections that know whether they are idle.
type listener struct{ net.Listener }

func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	tcp, ok := c.(*net.TCPConn)
	if err != nil || !ok {
		return c, err
	}
	tracked := &connection{TCPConn: tcp}
	tracked.idle.Store(true)
	return tracked, nil
}
