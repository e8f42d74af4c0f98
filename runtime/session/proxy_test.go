package session

import (
	"io"
	"net"
	"sync"
	"testing"
)

// proxy is a way to Redis that can be cut, and one that swallows what is sent.
type proxy struct {
	net.Listener
	target string
	mute   bool
	work   sync.WaitGroup

	mu    sync.Mutex
	conns []net.Conn
	over  bool
}

// newProxy listens at address until it is cut, at the latest when the test ends.
func newProxy(t *testing.T, address, target string, mute bool) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{Listener: l, target: target, mute: mute}
	p.work.Go(p.serve)
	t.Cleanup(p.cut)
	return p
}

func (p *proxy) serve() {
	for {
		client, err := p.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.target)
		if err != nil || !p.keep(client, server) {
			client.Close()
			continue
		}
		to := io.Writer(server)
		if p.mute {
			to = io.Discard
		}
		p.work.Go(func() { io.Copy(to, client); server.Close() })
		p.work.Go(func() { io.Copy(client, server); client.Close() })
	}
}

// keep notes the connections, or closes the second when there is nothing more to keep.
func (p *proxy) keep(client, server net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		server.Close()
		return false
	}
	p.conns = append(p.conns, client, server)
	return true
}

// cut ends all connections, and takes no others.
func (p *proxy) cut() {
	p.Close()
	p.mu.Lock()
	p.over = true
	for _, c := range p.conns {
		c.Close()
	}
	p.mu.Unlock()
	p.work.Wait()
}
