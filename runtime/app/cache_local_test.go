package app_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/app/internal/config"
	"github.com/rabbet-fn/rabbet/runtime/app/internal/services"
	"github.com/rabbet-fn/rabbet/runtime/cache"
	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// callerFunc is a function that is called without a broker.
type callerFunc func(context.Context, contract.Call) (contract.Reply, error)

func (f callerFunc) Call(ctx context.Context, r contract.Call) (contract.Reply, error) {
	return f(ctx, r)
}

// await waits until ok holds.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within a minute", what)
		}
	}
}

// A proxy forwards connections to a server. While it is closed, it refuses new
// connections, and the earlier ones are gone.
type proxy struct {
	t           *testing.T
	address, to string

	mu      sync.Mutex
	l       net.Listener // nil: shut
	conns   []net.Conn
	running sync.WaitGroup
}

func newProxy(t *testing.T, to string) *proxy {
	g := &proxy{t: t, address: "127.0.0.1:0", to: to}
	g.open()
	t.Cleanup(g.close)
	return g
}

func (g *proxy) open() {
	l, err := net.Listen("tcp", g.address)
	if err != nil {
		g.t.Fatal(err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.l, g.address = l, l.Addr().String()
	g.running.Go(func() { // ends with the listener
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", g.to)
			if err != nil {
				c.Close()
				continue
			}
			g.mu.Lock()
			g.conns = append(g.conns, c, server)
			if g.l == nil {
				c.Close()
				server.Close()
			}
			g.mu.Unlock()
			g.running.Go(func() { io.Copy(server, c); server.Close() })
			g.running.Go(func() { io.Copy(c, server); c.Close() })
		}
	})
}

func (g *proxy) close() {
	g.mu.Lock()
	if g.l != nil {
		g.l.Close()
	}
	for _, c := range g.conns {
		c.Close()
	}
	g.l, g.conns = nil, nil
	g.mu.Unlock()
	g.running.Wait()
}

// Two processes with levels of their own, on RabbitMQ and Redis: an invalidation
// is broadcast, and a process that RabbitMQ is out of reach for serves nothing
// from its own memory.
func TestInProcessLevelOverRabbitMQ(t *testing.T) {
	amqp, store, namespace := service(t, "RABBET_TEST_AMQP_URL"), service(t, "RABBET_TEST_REDIS_URL"), "test-"+contract.NewID()[:10]
	address, err := url.Parse(amqp)
	if err != nil {
		t.Fatal(err)
	}
	way := newProxy(t, address.Host)
	address.Host = way.address
	open := func(url string) *cache.Results {
		b, err := services.OpenBroker(&config.Config{BrokerURL: url, Namespace: namespace, Declare: true}, zap.NewNop())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { b.Close() })
		r, err := openResults(store, 5*time.Second, cache.Config{Namespace: namespace, Broadcast: b, Local: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close() })
		return r
	}
	writer, reader := open(amqp), open(address.String())

	var version atomic.Int64
	function := callerFunc(func(context.Context, contract.Call) (contract.Reply, error) {
		return contract.Reply{Body: fmt.Append(nil, version.Load())}, nil
	})
	d := &contract.Descriptor{Name: "get", Kind: contract.KindRequest, Keys: []string{"get"}, Version: "1", Cache: &contract.CachePolicy{TTL: time.Hour, Tags: []string{"thing"}}}
	read := func() string {
		t.Helper()
		result, err := reader.Call(t.Context(), function, d, contract.Call{Key: "get"}, contract.CacheDirectives{})
		if err != nil {
			t.Fatal(err)
		}
		return string(result.Body)
	}
	local := func() bool { before := reader.Stats().Local; read(); return reader.Stats().Local > before }
	invalidate := func() (at time.Time) {
		version.Add(1)
		if err := writer.Invalidate(t.Context(), "thing"); err != nil {
			t.Fatal(err)
		}
		return time.Now()
	}

	var slowest time.Duration
	for range 20 {
		await(t, "a hit in process", local)
		at := invalidate()
		for began := time.Now(); read() != fmt.Sprint(version.Load()); began = time.Now() {
			if slowest = max(slowest, began.Sub(at)); slowest > cache.LocalBound {
				t.Fatalf("a result is served that was invalidated %v ago, want at most %v", slowest, cache.LocalBound)
			}
		}
	}
	t.Logf("20 invalidations: the last stale hit in another process began %v after one had returned, at the most", slowest)

	await(t, "a hit in process", local)
	way.close()
	await(t, "the level is off", func() bool { return !reader.Stats().LocalOn })
	invalidate()
	if got := read(); got != fmt.Sprint(version.Load()) {
		t.Errorf("RabbitMQ is out of reach: got version %s, want %d", got, version.Load())
	}
	if local() {
		t.Error("RabbitMQ is out of reach: got a hit in process")
	}
	way.open()
	await(t, "a hit in process again", local)
}
