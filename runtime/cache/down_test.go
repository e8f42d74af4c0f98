package cache

import (
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// Each address is one that a store may be found at on a bad day.
func TestStoreDown(t *testing.T) {
	hung := listen(t, func(c net.Conn) { io.Copy(io.Discard, c) })
	rubbish := listen(t, func(c net.Conn) {
		for {
			if _, err := io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n"); err != nil {
				return
			}
			if _, err := c.Read(make([]byte, 512)); err != nil {
				return
			}
		}
	})
	dead := listen(t, func(net.Conn) {})
	dead.close()
	for name, l := range map[string]*listener{"hung": hung, "rubbish": rubbish, "dead": dead} {
		for _, scheme := range []string{"redis://", "memcached://"} {
			t.Run(scheme+name, func(t *testing.T) {
				r, err := Open(scheme+l.address, Config{Timeout: 30 * time.Millisecond})
				if err != nil {
					t.Fatal(err)
				}
				defer r.Close()
				f := &function{}
				began := time.Now()
				for range 200 {
					if got := ask(t, r, f, descriptor, input, contract.CacheDirectives{}); got.Hit || got.Stored || got.Forward != forwardBypass {
						t.Fatalf("got %+v, want a bypass", got)
					}
				}
				if took := time.Since(began); took > 2*time.Second {
					t.Errorf("200 calls took %v: a dead cache must cost nothing after the first moments", took)
				}
				if err := r.Invalidate(t.Context(), "thing:42"); err == nil {
					t.Error("Invalidate: got nil, want an error: nobody took it")
				}
			})
		}
	}
}

// A store that is cut off and comes back: no call fails, and what was
// invalidated meanwhile is known to have failed.
func TestStoreComesBack(t *testing.T) {
	for scheme, variable := range map[string]string{"redis://": "RABBET_TEST_REDIS_URL", "memcached://": "RABBET_TEST_MEMCACHED_URL"} {
		t.Run(scheme, func(t *testing.T) {
			_, address, _ := strings.Cut(service(t, variable), "://")
			address, _, _ = strings.Cut(address, "/")
			forward := func(c net.Conn) {
				server, err := net.Dial("tcp", address)
				if err != nil {
					t.Error(err)
					return
				}
				var both sync.WaitGroup
				both.Go(func() { io.Copy(server, c); server.Close() })
				both.Go(func() { io.Copy(c, server); c.Close() })
				both.Wait()
			}
			l := listen(t, forward)
			r := open(t, scheme+l.address)
			f := &function{}
			ask(t, r, f, descriptor, input, contract.CacheDirectives{})
			if got := ask(t, r, f, descriptor, input, contract.CacheDirectives{}); !got.Hit {
				t.Fatalf("before: got %+v, want a hit", got)
			}
			l.close()
			for range 20 {
				if got := ask(t, r, f, descriptor, input, contract.CacheDirectives{}); got.Hit {
					t.Fatal("a hit out of nowhere")
				}
			}
			if err := r.Invalidate(t.Context(), "thing:42"); err == nil {
				t.Error("Invalidate while it is cut off: got nil")
			}
			l.listenAgain(t, forward)
			for deadline := time.Now().Add(20 * time.Second); !ask(t, r, f, descriptor, input, contract.CacheDirectives{}).Hit; {
				if time.Now().After(deadline) {
					t.Fatal("no hit within 20 s of its return")
				}
				time.Sleep(5 * time.Millisecond) // between looks
			}
			if err := r.Invalidate(t.Context(), "thing:42"); err != nil {
				t.Errorf("Invalidate after its return: %v", err)
			}
		})
	}
}

// listener hands each connection to a function, until it is closed with all of them.
type listener struct {
	address string
	l       net.Listener
	mu      sync.Mutex
	conns   []net.Conn
	closed  bool
	running sync.WaitGroup
}

func listen(t *testing.T, handle func(net.Conn)) *listener {
	t.Helper()
	l := &listener{address: "127.0.0.1:0"}
	l.listenAgain(t, handle)
	t.Cleanup(l.close)
	return l
}

func (l *listener) listenAgain(t *testing.T, handle func(net.Conn)) {
	t.Helper()
	var err error
	if l.l, err = net.Listen("tcp", l.address); err != nil {
		t.Fatal(err)
	}
	l.address, l.closed = l.l.Addr().String(), false
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

func (l *listener) close() {
	l.mu.Lock()
	l.l.Close()
	for _, c := range l.conns {
		c.Close()
	}
	l.conns, l.closed = nil, true
	l.mu.Unlock()
	l.running.Wait()
}
