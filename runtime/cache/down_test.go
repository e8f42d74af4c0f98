package cache

import (
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/cache/internal/servertest"
	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// Each address is one that a store may be found at on a bad day.
func TestStoreDown(t *testing.T) {
	hung := servertest.Listen(t, func(c net.Conn) { io.Copy(io.Discard, c) })
	rubbish := servertest.Listen(t, func(c net.Conn) {
		for {
			if _, err := io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n"); err != nil {
				return
			}
			if _, err := c.Read(make([]byte, 512)); err != nil {
				return
			}
		}
	})
	dead := servertest.Listen(t, func(net.Conn) {})
	dead.Close()
	for name, l := range map[string]*servertest.Listener{"hung": hung, "rubbish": rubbish, "dead": dead} {
		for _, scheme := range []string{"redis://", "memcached://"} {
			t.Run(scheme+name, func(t *testing.T) {
				r, err := openResults(scheme+l.Address, 30*time.Millisecond, Config{})
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
					t.Error("Invalidate: got nil, want an error")
				}
			})
		}
	}
}

// A store that is cut off and comes back: no call fails, and what was
// invalidated meanwhile is known to have failed.
func TestStoreComesBack(t *testing.T) {
	for scheme, url := range map[string]func(testing.TB) string{"redis://": servertest.Redis, "memcached://": servertest.Memcached} {
		t.Run(scheme, func(t *testing.T) {
			_, address, _ := strings.Cut(url(t), "://")
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
			l := servertest.Listen(t, forward)
			r := open(t, scheme+l.Address)
			f := &function{}
			ask(t, r, f, descriptor, input, contract.CacheDirectives{})
			if got := ask(t, r, f, descriptor, input, contract.CacheDirectives{}); !got.Hit {
				t.Fatalf("before: got %+v, want a hit", got)
			}
			l.Close()
			for range 20 {
				if got := ask(t, r, f, descriptor, input, contract.CacheDirectives{}); got.Hit {
					t.Fatal("a hit out of nowhere")
				}
			}
			if err := r.Invalidate(t.Context(), "thing:42"); err == nil {
				t.Error("Invalidate while it is cut off: got nil")
			}
			l.ListenAgain(t, forward)
			for deadline := time.Now().Add(20 * time.Second); !ask(t, r, f, descriptor, input, contract.CacheDirectives{}).Hit; {
				if time.Now().After(deadline) {
					t.Fatal("no hit within 20 s of its return")
				}
				time.Sleep(5 * time.Millisecond) // between calls
			}
			if err := r.Invalidate(t.Context(), "thing:42"); err != nil {
				t.Errorf("Invalidate after its return: %v", err)
			}
		})
	}
}
