package cache

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/cache/internal/servertest"
	"github.com/rabbet-fn/rabbet/runtime/cache/store"
	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// several opens caches of n processes on one store.
func several(t *testing.T, url string, n int) []*Results {
	first := open(t, url)
	all := []*Results{first}
	for range n - 1 {
		r, err := openResults(url, 2*time.Second, Config{Namespace: first.namespace})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close() })
		all = append(all, r)
	}
	return all
}

// stampede makes n calls in each process at once, and returns when the function
// has started to run and all calls wait. all.Wait waits for the answers, none of
// which may be older than oldest.
func stampede(t *testing.T, all *sync.WaitGroup, processes []*Results, f *function, n int, oldest string) {
	t.Helper()
	for _, r := range processes {
		for range n {
			all.Go(func() {
				result, err := r.Call(t.Context(), f, descriptor, contract.Call{Body: []byte(input)}, contract.CacheDirectives{})
				if err != nil || string(result.Body) < oldest {
					t.Errorf("got %s, %v", result.Body, err)
				}
			})
		}
	}
	<-f.started
	for _, r := range processes {
		servertest.Eventually(t, "all wait", func() bool { return waiting(r) == n })
	}
}

func TestOneRunOverAllProcesses(t *testing.T) {
	remote(t, func(t *testing.T, url string) {
		processes := several(t, url, 2)
		f := &function{started: make(chan struct{}, 100), release: make(chan struct{})}
		var all sync.WaitGroup
		stampede(t, &all, processes, f, 500, "v0")
		close(f.release)
		all.Wait()
		if n := f.calls.Load(); n != 1 {
			t.Errorf("1,000 misses: the function ran %d times, want once", n)
		}

		// After an invalidation, no call waits for a run that started before it.
		f.version.Add(1)
		f.release = make(chan struct{})
		if err := processes[0].Invalidate(t.Context(), "thing:42"); err != nil {
			t.Fatal(err)
		}
		stampede(t, &all, processes, f, 10, "v1")
		f.version.Add(1)
		if err := processes[1].Invalidate(t.Context(), "thing:42"); err != nil {
			t.Fatal(err)
		}
		late := &function{}
		late.version.Store(2)
		if got := ask(t, processes[0], late, descriptor, input, contract.CacheDirectives{}); string(got.Body) != "v2 "+input {
			t.Errorf("while the older one runs: got %s", got.Body)
		}
		close(f.release)
		all.Wait()
	})
}

// lateLease delays requests for a lease.
type lateLease struct {
	store.Store
	asked, release chan struct{}
}

func (s *lateLease) Add(ctx context.Context, key string, value []byte, ttl time.Duration) ([]byte, error) {
	if strings.Contains(key, ":l:") {
		s.asked <- struct{}{}
		<-s.release
	}
	return s.Store.Add(ctx, key, value, ttl)
}

// A process that gets the lease when another one has just stored the result and
// let go of it does not run the function again.
func TestLeaseAfterTheResult(t *testing.T) {
	remote(t, func(t *testing.T, url string) {
		processes := several(t, url, 2)
		a, b := processes[0], processes[1]
		late := &lateLease{b.store, make(chan struct{}), make(chan struct{})}
		b.store = late
		f := &function{}
		done := make(chan contract.CacheResult)
		go func() { // ends with the call
			result, err := b.Call(t.Context(), f, descriptor, contract.Call{Body: []byte(input)}, contract.CacheDirectives{})
			if err != nil {
				t.Error(err)
			}
			done <- result
		}()
		<-late.asked // its lookup found nothing
		ask(t, a, f, descriptor, input, contract.CacheDirectives{})
		a.wait()
		close(late.release)
		if got := <-done; !got.Collapsed || got.Hit || got.Stored || got.Forward != forwardMiss || string(got.Body) != "v0 "+input {
			t.Errorf("got %+v, %s; want what the other process made", got, got.Body)
		}
		if n := f.calls.Load(); n != 1 {
			t.Errorf("the function ran %d times, want once", n)
		}
	})
}

// tornStore reads an entry, and its lease some time later.
type tornStore struct {
	store.Store
	between chan struct{} // receives after the first read, and again before the second one
}

func (s *tornStore) Get(ctx context.Context, keys []string, values [][]byte) error {
	n := len(keys) - 1
	if !strings.Contains(keys[n], ":l:") {
		return s.Store.Get(ctx, keys, values)
	}
	if err := s.Store.Get(ctx, keys[:n], values[:n]); err != nil {
		return err
	}
	s.between <- struct{}{}
	<-s.between
	return s.Store.Get(ctx, keys[n:], values[n:])
}

// Entry and lease may be on two servers: a process that waits sees the lease
// gone, and not yet the result that was stored before that.
func TestLeaseIsGoneBeforeTheResultIsSeen(t *testing.T) {
	remote(t, func(t *testing.T, url string) {
		processes := several(t, url, 2)
		a, b := processes[0], processes[1]
		torn := &tornStore{b.store, make(chan struct{})}
		b.store = torn
		f := &function{started: make(chan struct{}, 100), release: make(chan struct{})}
		var all sync.WaitGroup
		call := func(r *Results) {
			all.Go(func() {
				if _, err := r.Call(t.Context(), f, descriptor, contract.Call{Body: []byte(input)}, contract.CacheDirectives{}); err != nil {
					t.Error(err)
				}
			})
		}
		call(a)
		<-f.started
		call(b)
		<-torn.between // it has seen no result
		close(f.release)
		a.wait() // there is one now, and the lease is gone
		torn.between <- struct{}{}
		<-torn.between
		torn.between <- struct{}{}
		all.Wait()
		if n := f.calls.Load(); n != 1 {
			t.Errorf("the function ran %d times, want once", n)
		}
	})
}

func TestLeaseOutlivesItsTime(t *testing.T) {
	remote(t, func(t *testing.T, url string) {
		t.Parallel()
		processes := several(t, url, 2)
		f := &function{started: make(chan struct{}, 100), release: make(chan struct{})}
		var all sync.WaitGroup
		stampede(t, &all, processes, f, 1, "v0")
		time.Sleep(leaseTTL + leaseRenewal) // what it is about
		close(f.release)
		all.Wait()
		if n := f.calls.Load(); n != 1 {
			t.Errorf("the function ran %d times while it was slow, want once", n)
		}
	})
}

func TestCrashedHolder(t *testing.T) {
	remote(t, func(t *testing.T, url string) {
		t.Parallel()
		r, f := open(t, url), &function{}
		ask(t, r, f, descriptor, input, contract.CacheDirectives{})
		r.wait() // its own lease is gone
		c := call{results: r, function: descriptor, request: contract.Call{Body: []byte(input)}}
		if !c.identify() || !c.locate() {
			t.Fatal("the input has no key")
		}
		if err := r.store.Get(t.Context(), c.keys, c.values); err != nil {
			t.Fatal(err)
		}
		if err := r.store.Set(t.Context(), leaseKey(r.namespace, &c.sum, c.values[1:]), []byte("of a process that is dead"), leaseTTL); err != nil {
			t.Fatal(err)
		}
		evict(t, r, c.keys[0])
		f.version.Add(1)
		began := time.Now()
		got := ask(t, r, f, descriptor, input, contract.CacheDirectives{})
		if took := time.Since(began); string(got.Body) != "v1 "+input || !got.Stored || took > leaseTTL+5*time.Second {
			t.Errorf("got %s, %+v after %v", got.Body, got, took)
		}
	})
}

// A holder that has nothing to store delays no other process.
func TestLeaseInVain(t *testing.T) {
	remote(t, func(t *testing.T, url string) {
		processes := several(t, url, 2)
		broken := &function{fail: errors.New("broken"), started: make(chan struct{}, 100), release: make(chan struct{})}
		var all sync.WaitGroup
		call := func(r *Results) {
			all.Go(func() {
				if _, err := r.Call(t.Context(), broken, descriptor, contract.Call{Body: []byte(input)}, contract.CacheDirectives{}); err == nil {
					t.Error("got no error")
				}
			})
		}
		call(processes[0])
		<-broken.started
		call(processes[1])
		servertest.Eventually(t, "it waits", func() bool { return waiting(processes[1]) == 1 })
		close(broken.release)
		all.Wait()
		if n := broken.calls.Load(); n != 2 {
			t.Errorf("the function ran %d times, want each process to have its own try", n)
		}

		began := time.Now()
		const more = 20
		for i := range more {
			call(processes[i%2])
			all.Wait()
		}
		if took := time.Since(began); broken.calls.Load() != 2+more || took > more*leaseTTL/2 {
			t.Errorf("%d more calls: %d runs in %v", more, broken.calls.Load()-2, took)
		}

		// What runs in the background is left out for a while.
		d := with(func(p *contract.CachePolicy) { p.StaleWhileRevalidate = time.Minute })
		f := &function{}
		ask(t, processes[0], f, d, `{"id":"43"}`, contract.CacheDirectives{})
		older(t, processes[0], d, `{"id":"43"}`, 90*time.Second)
		processes[0].wait()
		f.fail = errors.New("broken")
		for range 20 {
			if got := ask(t, processes[0], f, d, `{"id":"43"}`, contract.CacheDirectives{}); !got.Hit {
				t.Fatalf("got %+v, want the stale result", got)
			}
			processes[0].wait()
		}
		if n := f.calls.Load(); n > 3 {
			t.Errorf("%d runs for 20 stale hits on a broken function", n-1)
		}
	})
}
