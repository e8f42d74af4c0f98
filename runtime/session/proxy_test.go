package session

import (
	"io"
	"net"
	"sync"
	"testing"
)

// proxy is a way to Redis that can be cut, and one that swallows what is sent.
// It keeps its port for as long as the test lasts.
type proxy struct {
	net.Listener
	target string
	mute   bool
	work   sync.WaitGroup

	mu    sync.Mutex
	conns []net.Conn
	isCut bool
}

func newProxy(t *testing.T, target string, mute bool) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{Listener: l, target: target, mute: mute}
	p.work.Go(p.serve)
	t.Cleanup(func() {
		p.Close()
		p.cut()
		p.work.Wait()
	})
	return p
}

func (p *proxy) url() string { return "redis://" + p.Addr().String() }

func (p *proxy) serve() {
	for {
		client, err := p.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.target)
		if err != nil {
			client.Close()
			continue
		}
		if !p.keep(client, server) {
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

// keep notes both ends, or closes them while the way is cut.
func (p *proxy) keep(ends ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns = append(p.conns, ends...)
	if p.isCut {
		p.closeAll()
	}
	return !p.isCut
}

// cut ends all connections, and each new one at once, until it is mended.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.isCut = true
	p.closeAll()
}

func (p *proxy) mend() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.isCut = false
}

// closeAll is called with p.mu held.
func (p *proxy) closeAll() {
	for _, c := range p.conns {
		c.Close()
	}
	p.conns = nil
}
