package main

import (
	"io"
	"net"
	"sync"
	"time"
)

// proxy stands between our processes and the broker, and fails when told to.
type proxy struct {
	net.Listener
	broker string
	gate   sync.RWMutex // locked: nothing passes

	mu    sync.Mutex
	conns map[*net.TCPConn]bool
}

func newProxy(broker string) (*proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{Listener: l, broker: broker, conns: map[*net.TCPConn]bool{}}
	go p.serve() // ends with the listener
	return p, nil
}

func (p *proxy) serve() {
	for {
		client, err := p.Accept()
		if err != nil {
			return
		}
		broker, err := net.Dial("tcp", p.broker)
		if err != nil {
			client.Close()
			continue
		}
		a, b := client.(*net.TCPConn), broker.(*net.TCPConn)
		p.mu.Lock()
		p.conns[a], p.conns[b] = true, true
		p.mu.Unlock()
		go p.pump(a, b) // both end with either connection
		go p.pump(b, a)
	}
}

func (p *proxy) pump(from, to *net.TCPConn) {
	_, _ = io.Copy(gated{p, to}, from)
	p.reset(from, to)
}

type gated struct {
	p  *proxy
	to net.Conn
}

func (g gated) Write(b []byte) (int, error) {
	g.p.gate.RLock()
	defer g.p.gate.RUnlock()
	return g.to.Write(b)
}

// reset ends connections as a host does that has lost its memory.
func (p *proxy) reset(conns ...*net.TCPConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		_ = c.SetLinger(0)
		_ = c.Close()
		delete(p.conns, c)
	}
}

// cut resets all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	var all []*net.TCPConn
	for c := range p.conns {
		all = append(all, c)
	}
	p.mu.Unlock()
	p.reset(all...)
}

// swallow lets nothing through for a while, and loses what was sent meanwhile.
func (p *proxy) swallow(d time.Duration) {
	p.gate.Lock()
	time.Sleep(d)
	p.cut()
	p.gate.Unlock()
}
