package rabbit

import (
	"bytes"
	"io"
	"net"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"
)

// proxy stands between a client and RabbitMQ and is the bad network. (The
// library for it, toxiproxy, can reset only connections that are made after it
// was told to.)
type proxy struct {
	listener net.Listener
	target   string
	running  sync.WaitGroup

	mu     sync.Mutex
	closed bool
	pairs  []*pair
	lag    [2]time.Duration // by direction: how long bytes travel on connections that are made from now on
	holes  [2]bool          // by direction: whatever is sent disappears
	lost   int              // bytes that have disappeared
	turn   chan struct{}    // closed when holes change
}

// pair is one client's connection and the one to the broker behind it.
type pair struct {
	client, broker net.Conn
	broken         bool // something of it fell into a hole
}

type direction int

const (
	upstream   direction = iota // from the client to the broker
	downstream                  // from the broker to the client
)

// startProxy starts a proxy in front of the broker at rawURL and returns it
// with the URL that leads through it.
func startProxy(t testing.TB, rawURL string) (*proxy, string) {
	t.Helper()
	u, err := url.Parse(rawURL)
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{target: u.Host, turn: make(chan struct{})}
	p.listen(t, "127.0.0.1:0")
	u.Host = p.listener.Addr().String()
	t.Cleanup(p.down)
	return p, u.String()
}

func (p *proxy) listen(t testing.TB, address string) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	p.listener, p.closed = l, false
	p.mu.Unlock()
	p.running.Go(func() { p.accept(l) })
}

// up lets the proxy listen again after down.
func (p *proxy) up(t testing.TB) { p.listen(t, p.listener.Addr().String()) }

// down is a broker that is not there: connections end, and new ones are refused.
func (p *proxy) down() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.listener.Close()
	p.hole()
	p.reset()
	p.running.Wait()
}

func (p *proxy) accept(l net.Listener) {
	for {
		client, err := l.Accept()
		if err != nil {
			return
		}
		broker, err := net.Dial("tcp", p.target)
		if err != nil {
			client.Close()
			continue
		}
		c := &pair{client: client, broker: broker}
		p.mu.Lock()
		p.pairs = append(p.pairs, c)
		if p.closed {
			c.close()
		}
		up, down := wireTo(broker, p.lag[upstream]), wireTo(client, p.lag[downstream])
		p.mu.Unlock()
		p.running.Go(func() {
			defer p.forget(c)
			defer c.close()
			defer up.Close()
			p.copy(c, up, client, upstream)
		})
		p.running.Go(func() {
			defer c.close()
			defer down.Close()
			p.copy(c, down, broker, downstream)
		})
	}
}

func (c *pair) close() {
	c.client.Close()
	c.broker.Close()
}

func (c *pair) reset() {
	_ = c.client.(*net.TCPConn).SetLinger(0)
	_ = c.broker.(*net.TCPConn).SetLinger(0)
	c.close()
}

func (p *proxy) forget(c *pair) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pairs = slices.DeleteFunc(p.pairs, func(o *pair) bool { return o == c })
}

// copy carries bytes in one direction until either side ends. A connection
// whose end falls into a hole lives on for the other side.
func (p *proxy) copy(c *pair, to io.Writer, from io.Reader, d direction) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		p.mu.Lock()
		hole, turn := p.holes[d], p.turn
		c.broken = c.broken || hole
		if hole {
			p.lost += n
		}
		p.mu.Unlock()
		switch {
		case err != nil && hole:
			<-turn
			return
		case err != nil:
			return
		case hole:
			continue
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}

// wireTo returns the way to an end on which bytes travel for so long. Closing it
// waits until all have arrived; the end itself stays open.
func wireTo(end net.Conn, lag time.Duration) io.WriteCloser {
	if lag == 0 {
		return struct {
			io.Writer
			io.Closer
		}{end, io.NopCloser(nil)}
	}
	w := &longWire{lag: lag, sent: make(chan sent, 1<<16)}
	w.arriving.Go(func() { // ends with Close
		for s := range w.sent {
			time.Sleep(time.Until(s.arrives))
			_, _ = end.Write(s.bytes) // what ends this way shows on the way back
		}
	})
	return w
}

type longWire struct {
	lag      time.Duration
	sent     chan sent
	arriving sync.WaitGroup
}

type sent struct {
	bytes   []byte
	arrives time.Time
}

func (w *longWire) Write(p []byte) (int, error) {
	w.sent <- sent{bytes.Clone(p), time.Now().Add(w.lag)}
	return len(p), nil
}

func (w *longWire) Close() error {
	close(w.sent)
	w.arriving.Wait()
	return nil
}

// hole lets all that is sent in these directions disappear, or none any more:
// then connections that have lost something are reset, as by a firewall that
// was restarted.
func (p *proxy) hole(directions ...direction) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.holes = [2]bool{}
	if len(directions) == 0 {
		for _, c := range p.pairs {
			if c.broken {
				c.reset()
			}
		}
	}
	for _, d := range directions {
		p.holes[d] = true
	}
	close(p.turn)
	p.turn = make(chan struct{})
}

// swallowed returns how many bytes have disappeared.
func (p *proxy) swallowed() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lost
}

// reset ends all connections with a TCP reset, and returns how many they were.
func (p *proxy) reset() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.pairs {
		c.reset()
	}
	return len(p.pairs)
}
