package cache

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/rabbet-fn/rabbet/runtime/cache/internal/server"
	"github.com/rabbet-fn/rabbet/runtime/cache/internal/servertest"
	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// openFaulty opens a cache as in production, but for a timeout that a busy
// machine does not run into by itself.
func openFaulty(t *testing.T, url string, timeout time.Duration) *Results {
	t.Helper()
	r, err := openResults(url, timeout, Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// load calls the function for n inputs out of 100 with 16 clients, and fails
// the test for each call that fails. It returns how many were hits.
func load(t *testing.T, what string, r *Results, n int) (hits int) {
	t.Helper()
	f, before, began := &function{}, r.Stats(), time.Now()
	latencies := make([]time.Duration, n)
	var next, hit atomic.Int64
	var clients sync.WaitGroup
	for range 16 {
		clients.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				body, start := fmt.Sprintf(`{"id":"%d"}`, i%100), time.Now()
				result, err := r.Call(t.Context(), f, descriptor, contract.Call{Body: []byte(body)}, contract.CacheDirectives{})
				latencies[i] = time.Since(start)
				if err != nil || string(result.Body) != "v0 "+body {
					t.Errorf("%s: got %s, %v", what, result.Body, err)
				}
				if result.Hit {
					hit.Add(1)
				}
			}
		})
	}
	clients.Wait()
	slices.Sort(latencies)
	failed := "0 failed"
	if t.Failed() {
		failed = "some failed"
	}
	t.Logf("%s: %d calls in %v, %d hits, %s; %v at the median, %v at 99%%, %v at most; the store was tried in vain for %d of them",
		what, n, time.Since(began).Round(time.Millisecond), hit.Load(), failed, latencies[n/2], latencies[n*99/100], latencies[n-1], r.Stats().Errors-before.Errors)
	return int(hit.Load())
}

// expectOpenBreaker fails the test unless the circuit breaker of a store that does
// not answer opens: the calls that were in flight have tried it, and then one call
// a second.
func expectOpenBreaker(t *testing.T, r *Results, fn func()) {
	t.Helper()
	before, began := r.Stats().Errors, time.Now()
	fn()
	limit := 100 + 5*int(time.Since(began)/server.BreakerPause)
	if tried := int(r.Stats().Errors - before); tried > limit {
		t.Errorf("a store that does not answer was tried %d times, want at most %d", tried, limit)
	}
}

// back waits until calls are hits again.
func back(t *testing.T, r *Results) {
	t.Helper()
	began := time.Now()
	servertest.Eventually(t, "hits again", func() bool {
		return ask(t, r, &function{}, descriptor, `{"id":"1"}`, contract.CacheDirectives{}).Hit
	})
	t.Logf("hits again after %v", time.Since(began).Round(time.Millisecond))
}

func TestServerFaults(t *testing.T) {
	for scheme, start := range map[string]func(*testing.T) *servertest.Process{
		"redis://":     func(t *testing.T) *servertest.Process { return servertest.StartRedis(t) },
		"memcached://": func(t *testing.T) *servertest.Process { return servertest.StartMemcached(t) },
	} {
		t.Run(scheme, func(t *testing.T) {
			server := start(t)
			r := openFaulty(t, scheme+server.Address, 300*time.Millisecond)
			load(t, "well", r, 2000)

			server.Hang()
			expectOpenBreaker(t, r, func() {
				if load(t, "hung", r, 2000) > 0 {
					t.Error("hits out of nowhere")
				}
			})
			if err := r.Invalidate(t.Context(), "thing:1"); err == nil {
				t.Error("Invalidate on a store that hangs: got nil")
			}
			server.Resume()
			back(t, r)
			load(t, "after it hung", r, 500)

			server.Kill()
			expectOpenBreaker(t, r, func() {
				if load(t, "killed", r, 2000) > 0 {
					t.Error("hits out of nowhere")
				}
			})
			if err := r.Invalidate(t.Context(), "thing:1"); err == nil {
				t.Error("Invalidate on a store that is dead: got nil")
			}
			server.Start()
			back(t, r)
		})
		t.Run(scheme+"slow", func(t *testing.T) {
			server := start(t)
			proxy := servertest.Listen(t, func(c net.Conn) {
				upstream, err := net.Dial("tcp", server.Address)
				if err != nil {
					return
				}
				var both sync.WaitGroup
				both.Go(func() { io.Copy(upstream, c); upstream.Close() })
				both.Go(func() { copySlowly(c, upstream, 200*time.Millisecond); c.Close() })
				both.Wait()
			})
			r := openFaulty(t, scheme+proxy.Address, 100*time.Millisecond)
			expectOpenBreaker(t, r, func() {
				if load(t, "200 ms slow", r, 2000) > 0 {
					t.Error("hits that took longer than the timeout")
				}
			})
		})
	}
}

// copySlowly copies what arrives, each part a while later.
func copySlowly(to io.Writer, from io.Reader, late time.Duration) {
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		if n > 0 {
			time.Sleep(late)
			if _, err := to.Write(b[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// A store that is full serves what it has, and takes invalidations.
func TestFullStore(t *testing.T) {
	for scheme, start := range map[string]func(*testing.T) *servertest.Process{
		"redis://": func(t *testing.T) *servertest.Process {
			return servertest.StartRedis(t, "--maxmemory", "5mb", "--maxmemory-policy", "noeviction")
		},
		"memcached://": func(t *testing.T) *servertest.Process { return servertest.StartMemcached(t, "-M", "-m", "2") },
	} {
		t.Run(scheme, func(t *testing.T) {
			r := openFaulty(t, scheme+start(t).Address, 5*time.Second)
			load(t, "room enough", r, 200)
			junk := make([]byte, 10_000)
			for i := 0; r.store.Set(t.Context(), fmt.Sprint("junk", i), junk, time.Hour) == nil; i++ {
				if i == 10_000 {
					t.Fatal("it is never full")
				}
			}
			if hits := load(t, "full", r, 1000); hits < 900 {
				t.Errorf("%d hits out of 1000 of what was there before", hits)
			}
			f := &function{}
			f.version.Add(1)
			if err := r.Invalidate(t.Context(), "thing:1"); err != nil {
				t.Errorf("Invalidate: %v", err)
			}
			if got := ask(t, r, f, descriptor, `{"id":"1"}`, contract.CacheDirectives{}); got.Hit {
				t.Errorf("after the invalidation: got %+v, %s", got, got.Body)
			}
		})
	}
}

// expectHits waits until each of the inputs of load is hit, if present says that
// the keys it needs are in reach; the others must not be.
func expectHits(t *testing.T, r *Results, present func(keys []string) bool) {
	t.Helper()
	for i := range 100 {
		body := fmt.Sprintf(`{"id":"%d"}`, i)
		c := call{results: r, function: descriptor, request: contract.Call{Body: []byte(body)}}
		if !c.identify() || !c.locate() {
			t.Fatal("no keys for " + body)
		}
		if present(c.keys) {
			servertest.Eventually(t, body+" is hit", func() bool { return ask(t, r, &function{}, descriptor, body, contract.CacheDirectives{}).Hit })
		} else if got := ask(t, r, &function{}, descriptor, body, contract.CacheDirectives{}); got.Hit || got.Stored {
			t.Errorf("%s: got %+v, though one of its keys is out of reach", body, got)
		}
	}
}

func all([]string) bool { return true }

func TestOneOfThreeMemcachedIsGone(t *testing.T) {
	servers := []*servertest.Process{servertest.StartMemcached(t), servertest.StartMemcached(t), servertest.StartMemcached(t)}
	url := "memcached://" + servers[0].Address + "," + servers[1].Address + "," + servers[2].Address
	r := openFaulty(t, url, 300*time.Millisecond)
	load(t, "all there", r, 500)
	for name, fault := range map[string]struct {
		gone       int
		begin, end func()
	}{
		"hung":   {0, servers[0].Hang, servers[0].Resume},
		"killed": {1, servers[1].Kill, servers[1].Start},
	} {
		fault.begin()
		expectOpenBreaker(t, r, func() { load(t, "one "+name, r, 3000) })
		expectHits(t, r, func(keys []string) bool { // an entry and its tag: both are elsewhere for 4 of 9
			return !slices.ContainsFunc(keys, func(key string) bool { return memcachedAddress(url, key) == servers[fault.gone].Address })
		})
		fault.end()
		expectHits(t, r, all)
	}
}

func TestSentinelFailover(t *testing.T) {
	url, master, replica := servertest.StartSentinel(t)
	r := openFaulty(t, url, 300*time.Millisecond)
	load(t, "well", r, 500)
	for _, id := range []string{"dropped", "kept"} {
		servertest.Eventually(t, id+" is hit", func() bool {
			return ask(t, r, &function{}, descriptor, `{"id":"`+id+`"}`, contract.CacheDirectives{}).Hit
		})
	}

	// What a replica has not taken may come back with it: that is no success.
	replica.Hang()
	if err := r.Invalidate(t.Context(), "thing:1"); err == nil || !strings.Contains(err.Error(), "0 of 1 replicas") {
		t.Errorf("Invalidate with a replica that hangs: got %v", err)
	}
	replica.Resume()
	servertest.Eventually(t, "the replica has taken it", func() bool { return r.Invalidate(t.Context(), "thing:1", "thing:dropped") == nil })

	master.Kill()
	began := time.Now()
	load(t, "the master is gone", r, 2000)
	back(t, r)
	t.Logf("failover: hits again %v after the master was killed", time.Since(began).Round(time.Millisecond))
	f := &function{}
	f.version.Add(1)
	for id, hit := range map[string]bool{"dropped": false, "kept": true} {
		if got := ask(t, r, f, descriptor, `{"id":"`+id+`"}`, contract.CacheDirectives{}); got.Hit != hit {
			t.Errorf("what was %s before the failover: got hit %v, want %v", id, got.Hit, hit)
		}
	}
	servertest.Eventually(t, "invalidations are taken", func() bool { return r.Invalidate(t.Context(), "thing:kept") == nil })
}

func TestClusterLosesANode(t *testing.T) {
	url, nodes := servertest.StartCluster(t)
	r := openFaulty(t, url, 300*time.Millisecond)
	load(t, "well", r, 500)
	expectHits(t, r, all)
	gone := nodes[2].Address
	cluster := redisClient(t, url).(*redis.ClusterClient)
	nodes[2].Kill()
	expectOpenBreaker(t, r, func() { load(t, "one of three is gone", r, 3000) })
	expectHits(t, r, func(keys []string) bool {
		return !slices.ContainsFunc(keys, func(key string) bool {
			client, err := cluster.MasterForKey(context.Background(), key)
			return err != nil || client.Options().Addr == gone
		})
	})
}
