package cache

import (
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/rabbet-fn/rabbet/runtime/cache/internal/servertest"
	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// A hit is one request to the server and its answer, for an entry and all of its
// tags; the pools keep the connection.
func TestHitIsOneRoundTrip(t *testing.T) {
	remote(t, func(t *testing.T, url string) {
		scheme, address, _ := strings.Cut(url, "://")
		address, _, _ = strings.Cut(address, "/")
		var requests, connections atomic.Int64
		proxy := servertest.Listen(t, func(c net.Conn) {
			server, err := net.Dial("tcp", address)
			if err != nil {
				t.Error(err)
				return
			}
			connections.Add(1)
			var both sync.WaitGroup
			both.Go(func() { io.Copy(&counted{server, &requests}, c); server.Close() })
			both.Go(func() { io.Copy(c, server); c.Close() })
			both.Wait()
		})
		r := open(t, scheme+"://"+proxy.Address)
		d := with(func(p *contract.CachePolicy) { p.Tags = []string{"thing:{id}", "things", "all"} })
		ask(t, r, &function{}, d, input, contract.CacheDirectives{})
		ask(t, r, &function{}, d, input, contract.CacheDirectives{})
		r.wait()
		before, connected := requests.Load(), connections.Load()
		const hits = 50
		for range hits {
			if got := ask(t, r, &function{}, d, input, contract.CacheDirectives{}); !got.Hit {
				t.Fatalf("got %+v", got)
			}
		}
		if n := requests.Load() - before; n != hits || connections.Load() != connected {
			t.Errorf("%d hits: %d requests to the server and %d new connections, want one for each, and none", hits, n, connections.Load()-connected)
		}
	})
}

// counted counts what is written, each time.
type counted struct {
	io.Writer
	n *atomic.Int64
}

func (c *counted) Write(b []byte) (int, error) {
	c.n.Add(1)
	return c.Writer.Write(b)
}
