package storetest

import (
	"context"
	"crypto/rand"
	mathrand "math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/cache"
	"github.com/rabbet-fn/rabbet/runtime/cache/store"
	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// descriptor is of the function whose results are cached.
var descriptor = &contract.Descriptor{
	Name: "get", Kind: contract.KindRequest, Keys: []string{"thing.get"}, Version: "1",
	Cache: &contract.CachePolicy{TTL: time.Minute, Tags: []string{"thing:{id}"}},
}

// function returns a version number.
type function struct {
	version atomic.Int64
	runs    atomic.Int64
	started chan struct{} // if not nil, receives when a run has read the version
	release chan struct{} // if not nil, a run waits for it then
}

func (f *function) Call(context.Context, contract.Call) (contract.Reply, error) {
	f.runs.Add(1)
	body := strconv.AppendInt(nil, f.version.Load(), 10)
	if f.started != nil {
		f.started <- struct{}{}
		<-f.release
	}
	return contract.Reply{Body: body}, nil
}

// open returns results on s, which a test may replace by a store that wraps it.
func open(t *testing.T, s store.Store, namespace string) *cache.Results {
	t.Helper()
	r, err := cache.New(keepOpen{s}, cache.Config{Namespace: namespace})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// keepOpen leaves it to the harness to close the store.
type keepOpen struct{ store.Store }

func (keepOpen) Close() error { return nil }

func newNamespace() string { return "storetest-" + rand.Text() }

// call calls f for a thing, and returns the version that it gets.
func call(t *testing.T, r *cache.Results, f *function, id int) (version int64, hit bool) {
	t.Helper()
	body := []byte(`{"id":` + strconv.Itoa(id) + `}`)
	result, err := r.Call(t.Context(), f, descriptor, contract.Call{Key: "thing.get", Body: body}, contract.CacheDirectives{})
	if err != nil {
		t.Errorf("Call: %v", err)
		return 0, false
	}
	version, err = strconv.ParseInt(string(result.Body), 10, 64)
	if err != nil {
		t.Errorf("Call: got %q", result.Body)
	}
	return version, result.Hit
}

func invalidate(t *testing.T, r *cache.Results, id int) {
	t.Helper()
	if err := r.Invalidate(t.Context(), "thing:"+strconv.Itoa(id)); err != nil {
		t.Errorf("Invalidate: %v", err)
	}
}

func testHit(t *testing.T, h Harness) {
	r, f := open(t, h.Open(t), newNamespace()), &function{}
	for i, want := range []bool{false, true, true} {
		if _, hit := call(t, r, f, 1); hit != want {
			t.Errorf("call %d: got hit %v, want %v", i, hit, want)
		}
	}
	f.version.Add(1)
	invalidate(t, r, 1)
	if version, hit := call(t, r, f, 1); hit || version != 1 {
		t.Errorf("after an invalidation: got version %d, hit %v; want 1 from a run", version, hit)
	}
}

// testInvalidationDuringFill: a result that was read before an invalidation and
// is stored after it is not served.
func testInvalidationDuringFill(t *testing.T, h Harness) {
	r := open(t, h.Open(t), newNamespace())
	slow := &function{started: make(chan struct{}), release: make(chan struct{})}
	done := make(chan struct{})
	go func() { // ends with the call
		defer close(done)
		call(t, r, slow, 1)
	}()
	<-slow.started
	invalidate(t, r, 1)
	close(slow.release)
	<-done
	f := &function{}
	f.version.Store(1)
	if version, hit := call(t, r, f, 1); hit || version != 1 {
		t.Errorf("got version %d, hit %v; want 1 from a run", version, hit)
	}
}

// addRecorder records the keys and the values that Add has returned.
type addRecorder struct {
	store.Store
	mu    sync.Mutex
	added map[string][]string
}

func (s *addRecorder) Add(ctx context.Context, key string, value []byte, ttl time.Duration) ([]byte, error) {
	stored, err := s.Store.Add(ctx, key, value, ttl)
	if err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.added == nil {
			s.added = map[string][]string{}
		}
		s.added[key] = append(s.added[key], string(stored))
	}
	return stored, err
}

// evict deletes all that was added: generations, and leases.
func (s *addRecorder) evict(t *testing.T) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for key := range s.added {
		if err := s.Store.Delete(t.Context(), key); err != nil {
			t.Errorf("Delete: %v", err)
		}
	}
}

// testEvictedGeneration: a generation that was evicted never has an old value
// again, and what was stored under it is not served.
func testEvictedGeneration(t *testing.T, h Harness) {
	recorder := &addRecorder{Store: h.Open(t)}
	r, f := open(t, recorder, newNamespace()), &function{}
	for i := range 5 {
		if version, hit := call(t, r, f, 1); hit || version != int64(i) {
			t.Errorf("eviction %d: got version %d, hit %v; want a run", i, version, hit)
		}
		if _, hit := call(t, r, f, 1); !hit {
			t.Errorf("eviction %d: the second call is not a hit", i)
		}
		f.version.Add(1)
		recorder.evict(t)
	}
	recorder.mu.Lock()
	defer recorder.mu.Unlock()
	seen := map[string]bool{}
	for key, values := range recorder.added {
		for _, v := range values {
			if seen[v] {
				t.Errorf("%s had the value %x twice", key, v)
			}
			seen[v] = true
		}
	}
}

// testRandomEvictions: whatever the store loses at any time, no call gets a
// version that is older than the last invalidation that returned before it.
func testRandomEvictions(t *testing.T, h Harness) {
	const things, clients, rounds = 4, 8, 200
	recorder := &addRecorder{Store: h.Open(t)}
	r := open(t, recorder, newNamespace())
	var functions [things]function
	var complete [things]atomic.Int64 // the version that the latest invalidation made visible
	var writing [things]sync.Mutex
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			for range rounds {
				id := mathrand.IntN(things)
				switch mathrand.IntN(20) {
				case 0:
					writing[id].Lock()
					version := functions[id].version.Add(1)
					invalidate(t, r, id)
					complete[id].Store(version)
					writing[id].Unlock()
				case 1:
					recorder.evict(t)
				default:
					oldest := complete[id].Load()
					if version, _ := call(t, r, &functions[id], id); version < oldest {
						t.Errorf("got version %d after %d was invalidated", version, oldest)
					}
				}
			}
		})
	}
	all.Wait()
}

// testLease: of two processes that need the same result at the same time, one
// runs the function.
func testLease(t *testing.T, h Harness) {
	first := h.Open(t)
	if !first.Shared() {
		t.Skip("no other process uses the store")
	}
	namespace := newNamespace()
	processes := []*cache.Results{open(t, first, namespace), open(t, h.Open(t), namespace)}
	f := &function{started: make(chan struct{}, len(processes)), release: make(chan struct{})}
	var all sync.WaitGroup
	for i, r := range processes {
		all.Go(func() { call(t, r, f, 1) })
		if i == 0 {
			<-f.started // it holds the lease
		}
	}
	time.AfterFunc(50*time.Millisecond, func() { close(f.release) }) // the second one looks a few times until then
	all.Wait()
	if n := f.runs.Load(); n != 1 {
		t.Errorf("the function ran %d times, want once", n)
	}
}
