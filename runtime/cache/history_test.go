package cache

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/cache/internal/entry"
	"github.com/rabbet-fn/rabbet/runtime/cache/internal/servertest"
	"github.com/rabbet-fn/rabbet/runtime/cache/store"
	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// The promise that the histories below are checked for:
//
// Things have versions 1, 2, 3 …. A write makes a thing's version one higher and
// then invalidates its tag, until that has been taken; it is complete then. An
// invalidation by itself counts as a write of the version that the thing had
// when it began. For every read of a thing,
//
//	the version that it returns is no less than that of any write of the thing
//	that was complete before the read began (by more than the bound, where
//	there is an in-process level), and
//	no higher than that of some write of the thing that began before it ended,
//	and what it returns is about this thing.
//
// Reads may run the function or be served in any way that a policy and a caller
// allow; what they return while a write is under way may be old or new.

// operation is one step of a history. Times are since its beginning.
type operation struct {
	thing      int
	write      bool
	version    int64
	start, end time.Duration
}

// anomalies are the reads of a history that break the promise.
func anomalies(history []operation, bound time.Duration) (found []operation) {
	type write struct {
		at      time.Duration // its end, or its start
		version int64
	}
	complete, begun := map[int][]write{}, map[int][]write{}
	for _, o := range history {
		if o.write {
			complete[o.thing] = append(complete[o.thing], write{o.end, o.version})
			begun[o.thing] = append(begun[o.thing], write{o.start, o.version})
		}
	}
	for _, writes := range []map[int][]write{complete, begun} {
		for _, w := range writes { // in order, each with the highest version so far
			slices.SortFunc(w, func(a, b write) int { return cmp.Compare(a.at, b.at) })
			for i := 1; i < len(w); i++ {
				w[i].version = max(w[i].version, w[i-1].version)
			}
		}
	}
	highest := func(writes []write, before time.Duration) int64 {
		n, _ := slices.BinarySearchFunc(writes, before, func(w write, t time.Duration) int { return cmp.Compare(w.at, t) })
		if n == 0 {
			return 0
		}
		return writes[n-1].version
	}
	for _, o := range history {
		if !o.write && (o.version < highest(complete[o.thing], o.start-bound) || o.version > highest(begun[o.thing], o.end)) {
			found = append(found, o)
		}
	}
	return found
}

func TestAnomaliesAreFound(t *testing.T) {
	const ms = time.Millisecond
	history := []operation{
		{thing: 1, write: true, version: 1, start: 1 * ms, end: 3 * ms},
		{thing: 1, write: true, version: 2, start: 10 * ms, end: 20 * ms},
		{thing: 2, write: true, version: 9, start: 2 * ms, end: 4 * ms},
	}
	for _, tt := range []struct {
		read  operation
		bound time.Duration
		bad   bool
	}{
		{operation{thing: 1, version: 0, start: 2 * ms, end: 5 * ms}, 0, false},   // the write was under way
		{operation{thing: 1, version: 1, start: 2 * ms, end: 5 * ms}, 0, false},   // the same
		{operation{thing: 1, version: 2, start: 2 * ms, end: 5 * ms}, 0, true},    // out of thin air
		{operation{thing: 1, version: 0, start: 4 * ms, end: 5 * ms}, 0, true},    // older than what was complete
		{operation{thing: 1, version: 2, start: 15 * ms, end: 16 * ms}, 0, false}, // early is no mistake
		{operation{thing: 1, version: 1, start: 21 * ms, end: 22 * ms}, 0, true},
		{operation{thing: 1, version: 1, start: 21 * ms, end: 22 * ms}, 2 * ms, false}, // within the bound
		{operation{thing: 1, version: 1, start: 23 * ms, end: 24 * ms}, 2 * ms, true},
		{operation{thing: 2, version: 9, start: 30 * ms, end: 31 * ms}, 0, false},
	} {
		if got := anomalies(append(slices.Clone(history), tt.read), tt.bound); (len(got) == 1) != tt.bad {
			t.Errorf("%+v with bound %v: got %+v, want an anomaly: %v", tt.read, tt.bound, got, tt.bad)
		}
	}
}

// world is what a history is made in: things, and two ingresses with a cache each.
type world struct {
	t         *testing.T
	began     time.Time
	versions  [50]atomic.Int64 // of the things
	ingresses [2]*Results
	board     *board
	bound     time.Duration
	restart   func() // the store, which loses what it has
	evict     func(key string)
	policy    *contract.Descriptor

	done    atomic.Int64 // operations so far
	runs    atomic.Int64 // of the function
	mu      sync.Mutex
	history []operation
}

// Call is the function: it reads a thing, and takes its time to say so.
func (w *world) Call(_ context.Context, r contract.Call) (contract.Reply, error) {
	w.runs.Add(1)
	id, err := strconv.Atoi(strings.Trim(string(r.Body), `{"id:}`))
	if err != nil {
		return contract.Reply{}, err
	}
	body := fmt.Appendf(nil, "%d %d", id, w.versions[id].Load())
	switch n := mathrand.IntN(100); {
	case n < 2:
		time.Sleep(time.Duration(mathrand.IntN(5000)) * time.Microsecond)
	case n < 20:
		time.Sleep(time.Duration(mathrand.IntN(500)) * time.Microsecond)
	case n < 22:
		return contract.Reply{}, errors.New("it failed")
	}
	return contract.Reply{Body: body}, nil
}

// client reads, writes and invalidates until there are limit operations.
func (w *world) client(limit int64) {
	var history []operation
	for w.done.Load() < limit && !w.t.Failed() {
		thing := min(mathrand.IntN(len(w.versions)), mathrand.IntN(len(w.versions))) // some more often than others
		r := w.ingresses[mathrand.IntN(2)]
		o := operation{thing: thing, start: time.Since(w.began)}
		ok := true
		switch n := mathrand.IntN(1000); {
		case n < 30:
			o.write, o.version = true, w.versions[thing].Add(1)
			w.invalidate(r, thing)
		case n < 35:
			o.write, o.version = true, w.versions[thing].Load()
			w.invalidate(r, thing)
		default:
			ok = w.read(r, &o, n)
		}
		if o.end = time.Since(w.began); ok {
			history = append(history, o)
			w.done.Add(1)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.history = append(w.history, history...)
}

func (w *world) invalidate(r *Results, thing int) {
	for r.Invalidate(w.t.Context(), fmt.Sprintf("thing:%d", thing)) != nil {
		time.Sleep(time.Millisecond) // the store is being restarted
	}
}

// read returns false for a read that shows nothing about the cache.
func (w *world) read(r *Results, o *operation, n int) bool {
	var want contract.CacheDirectives
	switch {
	case n < 45:
		want.NoCache = true
	case n < 60:
		want.MaxAge = 50 * time.Millisecond
	case n < 90:
		want.MaxStale = time.Second
	case n < 95:
		want.NoStore = true
	}
	result, err := r.Call(w.t.Context(), w, w.policy, contract.Call{Body: fmt.Appendf(nil, `{"id":"%d"}`, o.thing)}, want)
	if err != nil {
		return false // the function failed
	}
	var thing int
	if _, err := fmt.Sscan(string(result.Body), &thing, &o.version); err != nil || thing != o.thing {
		w.t.Errorf("thing %d: got %q", o.thing, result.Body)
	}
	if result.Forward == forwardBypass {
		time.Sleep(time.Millisecond) // the store is being restarted; do not use all operations up meanwhile
		return false
	}
	return true
}

// disturb evicts, restarts and cuts until the history is long enough.
func (w *world) disturb(limit int64) {
	restarts := int64(0)
	for i := 0; w.done.Load() < limit && !w.t.Failed(); i++ {
		time.Sleep(5 * time.Millisecond)
		thing := mathrand.IntN(len(w.versions))
		r := w.ingresses[0]
		if i%2 == 0 {
			w.evict(generationKey(r.namespace, fmt.Sprintf("thing:%d", thing)))
		} else {
			sum := entrySum(w.policy, "", fmt.Appendf(nil, `{"id":"%d"}`, thing))
			w.evict(entryKey(r.namespace, &sum))
		}
		w.board.setCut(i/8%4 == 0)
		if w.done.Load() > limit*(restarts+1)/3 && restarts < 2 {
			restarts++
			w.restart()
		}
	}
}

// run makes a history of at least limit operations and returns its anomalies.
func (w *world) run(limit int64) []operation {
	w.began = time.Now()
	for i := range w.versions {
		w.versions[i].Store(1)
		w.history = append(w.history, operation{thing: i, write: true, version: 1})
	}
	w.policy = with(func(p *contract.CachePolicy) {
		p.TTL, p.StaleWhileRevalidate, p.StaleIfError = 300*time.Millisecond, time.Minute, time.Minute
	})
	var clients, rest sync.WaitGroup
	rest.Go(func() { w.disturb(limit) })
	for range 24 {
		clients.Go(func() { w.client(limit) })
	}
	clients.Wait()
	rest.Wait()
	return anomalies(w.history, w.bound)
}

func (w *world) report(name string, found []operation) string {
	var reads, writes int
	for _, o := range w.history {
		if o.write {
			writes++
		} else {
			reads++
		}
	}
	var s Stats
	for _, r := range w.ingresses {
		one := r.Stats()
		s.Hits, s.Local, s.Stale, s.Collapsed, s.Fills = s.Hits+one.Hits, s.Local+one.Local, s.Stale+one.Stale, s.Collapsed+one.Collapsed, s.Fills+one.Fills
	}
	return fmt.Sprintf("%s: %d operations (%d reads, %d writes and invalidations) in %v; %d runs of the function, %d fills, %d hits, %d of them in process and %d stale by age, %d collapsed; anomalies = %d",
		name, len(w.history), reads, writes, time.Since(w.began).Round(time.Millisecond), w.runs.Load(), s.Fills, s.Hits, s.Local, s.Stale, s.Collapsed, len(found))
}

// newWorld opens two caches on url; local is the bound of their in-process level, 0 for none.
func newWorld(t *testing.T, url string, local time.Duration) *world {
	w := &world{t: t, board: &board{}, bound: local, restart: func() {}}
	cfg := Config{Namespace: "test-" + rand.Text(), Broadcast: w.board}
	if local > 0 {
		cfg.Local, cfg.localBound, cfg.heartbeatInterval, cfg.heartbeatTimeout = 1<<20, local, 10*time.Millisecond, time.Second
	}
	for i := range w.ingresses {
		r, err := openResults(url, 2*time.Second, cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close() })
		w.ingresses[i] = r
	}
	if !w.ingresses[0].store.Shared() { // two ingresses share one only in a test
		forgetful := &forgetfulStore{Store: w.ingresses[0].store}
		w.ingresses[1].store.Close()
		w.ingresses[0].store, w.ingresses[1].store = forgetful, forgetful
		w.restart = forgetful.restart
	}
	w.evict = func(key string) { _ = w.ingresses[0].store.Delete(context.WithoutCancel(t.Context()), key) }
	return w
}

// historyLength is how many operations there are for each store.
func historyLength(t *testing.T) int64 {
	text := os.Getenv("RABBET_TEST_HISTORY")
	if text == "" {
		return 100_000
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		t.Fatalf("RABBET_TEST_HISTORY=%q: write a number of operations", text)
	}
	return n
}

// TestHistories makes long histories on each store and checks them. Its report
// is shown by scripts/test -v -run TestHistories ./runtime/cache;
// RABBET_TEST_HISTORY=1000000 makes them longer.
func TestHistories(t *testing.T) {
	n := historyLength(t)
	const bound = 25 * time.Millisecond
	for _, tt := range []struct {
		name  string
		start func(*testing.T) *servertest.Process
		url   string
		local time.Duration
		n     int64
	}{
		{"memory", nil, "memory://", 0, n},
		{"redis", func(t *testing.T) *servertest.Process { return servertest.StartRedis(t) }, "redis://", 0, n / 2},
		{"redis with in-process levels", func(t *testing.T) *servertest.Process { return servertest.StartRedis(t) }, "redis://", bound, n / 2},
		{"memcached", func(t *testing.T) *servertest.Process { return servertest.StartMemcached(t) }, "memcached://", 0, n / 2},
		{"memcached with in-process levels", func(t *testing.T) *servertest.Process { return servertest.StartMemcached(t) }, "memcached://", bound, n / 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel() // they wait for their stores more than for the processor
			url, restart := tt.url, func() {}
			if tt.start != nil {
				server := tt.start(t)
				url += server.Address
				restart = func() { server.Kill(); server.Start() }
			}
			w := newWorld(t, url, tt.local)
			if tt.start != nil {
				w.restart = restart
				for _, r := range w.ingresses {
					r.store = hesitantStore{r.store}
				}
			}
			found := w.run(tt.n)
			t.Log(w.report(tt.name, found))
			for _, o := range found[:min(len(found), 5)] {
				t.Errorf("a read from %v to %v of thing %d returned version %d", o.start, o.end, o.thing, o.version)
			}
		})
	}
}

// forgetfulStore can lose all values at any moment, as a server does that starts
// again.
type forgetfulStore struct {
	store.Store
	mu   sync.Mutex
	keys map[string]bool
}

func (s *forgetfulStore) remember(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keys == nil {
		s.keys = map[string]bool{}
	}
	s.keys[key] = true
}

func (s *forgetfulStore) Set(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	s.remember(key)
	return s.Store.Set(ctx, key, value, ttl)
}

func (s *forgetfulStore) Add(ctx context.Context, key string, value []byte, ttl time.Duration) ([]byte, error) {
	s.remember(key)
	return s.Store.Add(ctx, key, value, ttl)
}

func (s *forgetfulStore) restart() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key := range s.keys {
		_ = s.Store.Delete(context.Background(), key)
	}
}

// hesitantStore takes its time now and then, before it does something and after.
type hesitantStore struct{ store.Store }

func hesitate() {
	if mathrand.IntN(50) == 0 {
		time.Sleep(time.Duration(mathrand.IntN(2000)) * time.Microsecond)
	}
}

func (s hesitantStore) Get(ctx context.Context, keys []string, values [][]byte) error {
	hesitate()
	defer hesitate()
	return s.Store.Get(ctx, keys, values)
}

func (s hesitantStore) Set(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	hesitate()
	defer hesitate()
	return s.Store.Set(ctx, key, value, ttl)
}

func (s hesitantStore) Add(ctx context.Context, key string, value []byte, ttl time.Duration) ([]byte, error) {
	hesitate()
	defer hesitate()
	return s.Store.Add(ctx, key, value, ttl)
}

func (s hesitantStore) Delete(ctx context.Context, key string) error {
	hesitate()
	defer hesitate()
	return s.Store.Delete(ctx, key)
}

func (s hesitantStore) Invalidate(ctx context.Context, key string) error {
	hesitate()
	defer hesitate()
	return s.Store.Invalidate(ctx, key)
}

// oldGenerations gives a tag the generation that it had before, again and again.
type oldGenerations struct{ store.Store }

func (s oldGenerations) Add(ctx context.Context, key string, value []byte, ttl time.Duration) ([]byte, error) {
	if strings.Contains(key, ":t:") {
		value = fmt.Appendf(nil, "%16.16s", key[len(key)-3:])
	}
	return s.Store.Add(ctx, key, value, ttl)
}

// youngGenerations stores a result under the generation that its tag has by then,
// in place of the one that it had before the function ran.
type youngGenerations struct{ store.Store }

func (s youngGenerations) Set(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	e, ok := (&entry.Codec{}).Decode(key, value)
	if !ok {
		return s.Store.Set(ctx, key, value, ttl)
	}
	thing, _, _ := strings.Cut(string(e.Body), " ")
	namespace, _, _ := strings.Cut(key, ":")
	generation := make([][]byte, 1)
	if err := s.Store.Get(ctx, []string{generationKey(namespace, "thing:"+thing)}, generation); err != nil || generation[0] == nil {
		return err
	}
	return s.Store.Set(ctx, key, (&entry.Codec{}).Encode(key, &e, generation), ttl)
}

// lateStore says that something is gone a moment before it is.
type lateStore struct{ store.Store }

func (s *lateStore) Invalidate(ctx context.Context, key string) error {
	time.AfterFunc(2*time.Millisecond, func() { _ = s.Store.Invalidate(context.WithoutCancel(ctx), key) })
	return nil
}

// The checker finds what it is there for.
func TestHistoriesShowBugs(t *testing.T) {
	for name, plant := range map[string]func(store.Store) store.Store{
		"an invalidation that returns too early":                 func(s store.Store) store.Store { return &lateStore{s} },
		"an eviction that brings an old generation back":         func(s store.Store) store.Store { return oldGenerations{s} },
		"a result under the generation after the function's run": func(s store.Store) store.Store { return youngGenerations{s} },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "memory://", 0)
			for _, r := range w.ingresses {
				r.store = plant(r.store)
			}
			found := w.run(10_000)
			if t.Log(w.report("planted: "+name, found)); len(found) == 0 {
				t.Error("nothing was found")
			}
		})
	}
	t.Run("a level that is stale for longer than it says", func(t *testing.T) {
		w := newWorld(t, "redis://"+servertest.StartRedis(t).Address, 100*time.Millisecond)
		w.bound = time.Millisecond
		w.board.setCut(true)
		found := w.run(100_000)
		if t.Log(w.report("planted: a level that is stale for longer than it says", found)); len(found) == 0 {
			t.Error("nothing was found")
		}
	})
}
