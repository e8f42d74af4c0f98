package cache

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"os"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/cache/internal/entry"
	"github.com/rabbet-fn/rabbet/runtime/cache/internal/servertest"
	"github.com/rabbet-fn/rabbet/runtime/cache/store"
	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// board is a Broadcaster for the processes of a test. While it is cut, no message
// arrives, and senders do not notice.
type board struct {
	mu        sync.Mutex
	cut       bool
	listeners map[string]map[int]func([]byte)
	last      int
}

func (b *board) Broadcast(_ context.Context, topic string, body []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.cut {
		for _, fn := range b.listeners[topic] {
			go fn(body)
		}
	}
	return nil
}

func (b *board) Listen(topic string, fn func([]byte)) func() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.last++
	id := b.last
	if b.listeners == nil {
		b.listeners = map[string]map[int]func([]byte){}
	}
	if b.listeners[topic] == nil {
		b.listeners[topic] = map[int]func([]byte){}
	}
	b.listeners[topic][id] = fn
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.listeners[topic], id)
	}
}

func (b *board) setCut(cut bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cut = cut
}

// processes opens two caches on one store, each with a level of its own.
func processes(t *testing.T, url string, cfg Config) (a, b *Results) {
	t.Helper()
	cfg.Namespace, cfg.Local = "test-"+rand.Text(), 1<<20
	cfg.heartbeatTimeout = cmp.Or(cfg.heartbeatTimeout, time.Hour) // however slow the machine is
	var both [2]*Results
	for i := range both {
		r, err := openResults(url, 2*time.Second, cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close() })
		servertest.Eventually(t, "a heartbeat arrives", func() bool { return r.Stats().LocalOn })
		both[i] = r
	}
	return both[0], both[1]
}

// remote runs test on the stores that several processes share.
func remote(t *testing.T, test func(t *testing.T, url string)) {
	for name, url := range map[string]func(testing.TB) string{"redis": servertest.Redis, "memcached": servertest.Memcached} {
		t.Run(name, func(t *testing.T) { test(t, url(t)) })
	}
}

func TestLocalLevel(t *testing.T) {
	remote(t, func(t *testing.T, url string) {
		a, b := processes(t, url, Config{Broadcast: &board{}, localBound: time.Hour})
		f := &function{}
		ask(t, a, f, descriptor, input, contract.CacheDirectives{})
		ask(t, b, f, descriptor, input, contract.CacheDirectives{}) // from the store
		read := b.Stats().Read
		for range 10 {
			if got := ask(t, b, f, descriptor, input, contract.CacheDirectives{}); !got.Hit || string(got.Body) != "v0 "+input || got.TTL <= 0 {
				t.Fatalf("got %+v, %s", got, got.Body)
			}
		}
		if s := b.Stats(); s.Local != 10 || s.Read != read {
			t.Errorf("got %+v, want 10 hits in process and nothing read for them", s)
		}
		servertest.Eventually(t, "the level knows its size", func() bool { return b.Stats().LocalBytes > 0 })
		f.version.Add(1)
		if got := ask(t, b, f, descriptor, input, contract.CacheDirectives{NoCache: true}); got.Hit {
			t.Error("no-cache: got a hit")
		}

		f.version.Add(1)
		if err := a.Invalidate(t.Context(), "thing:42"); err != nil {
			t.Fatal(err)
		}
		if got := ask(t, a, f, descriptor, input, contract.CacheDirectives{}); got.Hit {
			t.Error("the process that invalidated it serves it still")
		}
		servertest.Eventually(t, "the invalidation arrives", func() bool {
			return string(ask(t, b, f, descriptor, input, contract.CacheDirectives{}).Body) == "v2 "+input
		})
	})
}

// With nothing broadcast, an entry is served for the bound and not longer.
func TestLocalBound(t *testing.T) {
	remote(t, func(t *testing.T, url string) {
		silent := &board{}
		const bound = 100 * time.Millisecond
		a, b := processes(t, url, Config{Broadcast: silent, localBound: bound})
		silent.setCut(true)
		f := &function{}
		for version := range 5 {
			want := "v" + strconv.Itoa(version) + " " + input
			servertest.Eventually(t, "the level has it", func() bool {
				before := b.Stats().Local
				return string(ask(t, b, f, descriptor, input, contract.CacheDirectives{}).Body) == want && b.Stats().Local > before
			})
			f.version.Add(1)
			if err := a.Invalidate(t.Context(), "thing:42"); err != nil {
				t.Fatal(err)
			}
			invalidated := time.Now()
			for {
				began := time.Now()
				if string(ask(t, b, f, descriptor, input, contract.CacheDirectives{}).Body) != want {
					break
				}
				if stale := began.Sub(invalidated); stale > bound {
					t.Fatalf("stale after %v, want at most %v", stale, bound)
				}
			}
		}
	})
}

func TestLocalLevelIsOffWithoutBroadcast(t *testing.T) {
	remote(t, func(t *testing.T, url string) {
		messages := &board{}
		a, b := processes(t, url, Config{Broadcast: messages, localBound: time.Hour, heartbeatInterval: 5 * time.Millisecond, heartbeatTimeout: 500 * time.Millisecond})
		f := &function{}
		ask(t, a, f, descriptor, input, contract.CacheDirectives{})
		servertest.Eventually(t, "a hit in process", func() bool { ask(t, b, f, descriptor, input, contract.CacheDirectives{}); return b.Stats().Local > 0 })
		messages.setCut(true)
		servertest.Eventually(t, "it is off", func() bool { return !b.Stats().LocalOn })
		f.version.Add(1)
		if err := a.Invalidate(t.Context(), "thing:42"); err != nil {
			t.Fatal(err)
		}
		if got := ask(t, b, f, descriptor, input, contract.CacheDirectives{}); string(got.Body) != "v1 "+input {
			t.Errorf("while no broadcast arrives: got %s", got.Body)
		}
		if s := b.Stats(); s.LocalOn {
			t.Errorf("got %+v", s)
		}
		messages.setCut(false)
		servertest.Eventually(t, "it is on again", func() bool { return b.Stats().LocalOn })
	})
}

// slowStore holds up what it has read.
type slowStore struct {
	store.Store
	read, release chan struct{}
}

func (s *slowStore) Get(ctx context.Context, keys []string, values [][]byte) error {
	err := s.Store.Get(ctx, keys, values)
	s.read <- struct{}{}
	<-s.release
	return err
}

// downStore is one that cannot be read.
type downStore struct{ store.Store }

func (*downStore) Get(context.Context, []string, [][]byte) error { return os.ErrDeadlineExceeded }

// What was read before an invalidation and arrives after it is not kept.
func TestInvalidateDuringLook(t *testing.T) {
	remote(t, func(t *testing.T, url string) {
		a, b := processes(t, url, Config{Broadcast: &board{}, localBound: time.Hour})
		f := &function{}
		ask(t, a, f, descriptor, input, contract.CacheDirectives{})
		slow := &slowStore{b.store, make(chan struct{}), make(chan struct{})}
		b.store = slow
		done := make(chan error)
		go func() { // ends with the call
			_, err := b.Call(t.Context(), f, descriptor, contract.Call{Body: []byte(input)}, contract.CacheDirectives{})
			done <- err
		}()
		<-slow.read
		f.version.Add(1)
		slot := b.local.slot(generationKey(b.namespace, "thing:42"))
		before := b.local.counts[slot].Load()
		if err := a.Invalidate(t.Context(), "thing:42"); err != nil {
			t.Fatal(err)
		}
		servertest.Eventually(t, "the invalidation arrives", func() bool { return b.local.counts[slot].Load() != before })
		close(slow.release)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		b.store = slow.Store
		if got := ask(t, b, f, descriptor, input, contract.CacheDirectives{}); string(got.Body) != "v1 "+input {
			t.Errorf("got %s", got.Body)
		}
	})
}

// A result that is in use is read again before it expires: no call waits for the
// store.
func TestRefreshAhead(t *testing.T) {
	remote(t, func(t *testing.T, url string) {
		_, b := processes(t, url, Config{Broadcast: &board{}, localBound: time.Hour})
		f := &function{}
		ask(t, b, f, descriptor, input, contract.CacheDirectives{})
		ask(t, b, f, descriptor, input, contract.CacheDirectives{})
		c := call{results: b, function: descriptor, request: contract.Call{Body: []byte(input)}}
		if !c.identify() {
			t.Fatal("the input has no key")
		}
		k, _ := b.local.entries.GetIfPresent(c.sum)
		k.refreshAt = time.Now()
		before := b.Stats()
		for range 10 {
			ask(t, b, f, descriptor, input, contract.CacheDirectives{})
		}
		b.wait()
		s := b.Stats()
		if s.Local != before.Local+10 || s.Read <= before.Read {
			t.Errorf("got %+v after %+v, want 10 hits in process and a read", s, before)
		}
		if again, _ := b.local.entries.GetIfPresent(c.sum); again == k || !again.expiresAt.After(k.expiresAt) {
			t.Error("it is not kept for longer")
		}

		k, _ = b.local.entries.GetIfPresent(c.sum)
		k.refreshAt = time.Now()
		answers := b.store
		b.store = &downStore{answers}
		ask(t, b, f, descriptor, input, contract.CacheDirectives{})
		b.wait()
		b.store = answers
		if still, _ := b.local.entries.GetIfPresent(c.sum); still != k || b.Stats().Errors != before.Errors+1 {
			t.Errorf("the store did not answer: got %+v, want what was kept", still)
		}

		k.refreshing.Store(false)
		if err := b.store.Invalidate(t.Context(), generationKey(b.namespace, "thing:42")); err != nil { // without a broadcast
			t.Fatal(err)
		}
		ask(t, b, f, descriptor, input, contract.CacheDirectives{})
		b.wait()
		if k, ok := b.local.entries.GetIfPresent(c.sum); ok {
			t.Errorf("what the store does not have any more is kept: %+v", k)
		}
	})
}

func TestLocalLevelIsBounded(t *testing.T) {
	for size, atLeast := range map[int]int{10: 3_000, 10_000: 150} { // by weight, not by number
		t.Run(strconv.Itoa(size), func(t *testing.T) { offerLocally(t, 4*atLeast, size, atLeast) })
	}
}

// BenchmarkLocalLevelIsBounded offers ten million results. It takes half a minute.
func BenchmarkLocalLevelIsBounded(b *testing.B) {
	for b.Loop() {
		b.ReportMetric(float64(offerLocally(b, 10_000_000, 100, 3_000))/(1<<20), "MiB")
	}
}

// offerLocally offers n distinct results of size bytes to a level that is
// bounded at 2 MiB, and returns how much of the heap it took at the most.
func offerLocally(t testing.TB, n, size, atLeast int) (peak uint64) {
	const limit = 2 << 20
	heap := func() uint64 {
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc
	}
	before := heap()
	l := newLocal(limit, time.Hour, newBroadcast(Config{}, nil))
	defer l.close()
	for i := range n {
		sum := entrySum(descriptor, "", []byte(strconv.Itoa(i)))
		l.keep(&sum, entry.Entry{Body: make([]byte, size), Generations: make([]byte, entry.GenerationSize)}, l.observe([]string{"tag"}), time.Now())
		if i%(n/10) == n/10-1 {
			l.entries.CleanUp() // some hundred may wait to be weighed
			peak = max(peak, heap()-before)
		}
	}
	if peak > 2*limit {
		t.Errorf("%d KiB of heap for %d results offered, want at most the limit of 2 MiB and a little", peak>>10, n)
	}
	l.entries.CleanUp()
	if kept := l.entries.EstimatedSize(); kept < atLeast || l.entries.WeightedSize() > limit {
		t.Errorf("%d results of %d bytes kept, want at least %d, and at most %d bytes", kept, l.entries.WeightedSize(), atLeast, limit)
	}
	return peak
}

func TestStatsOfAll(t *testing.T) {
	messages := &board{}
	for _, process := range []string{"two", "one"} {
		r, err := openResults("memory://", 0, Config{Process: process, Broadcast: messages, Local: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		f := &function{}
		for range 3 {
			ask(t, r, f, descriptor, input, contract.CacheDirectives{})
		}
		ask(t, r, f, descriptor, `{}`, contract.CacheDirectives{})
		r.Call(t.Context(), f, descriptor, contract.Call{Body: []byte(`{"id":"1"}`)}, contract.CacheDirectives{OnlyIfCached: true})
		if err := r.Invalidate(t.Context(), "thing:42"); err != nil {
			t.Fatal(err)
		}
	}
	var all []Stats
	servertest.Eventually(t, "both answer", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		var err error
		if all, err = AskStats(ctx, messages); err != nil {
			t.Fatal(err)
		}
		return len(all) == 2
	})
	for i, process := range []string{"one", "two"} {
		s := all[i]
		if s.Read == 0 || s.Written == 0 {
			t.Errorf("%s: no bytes: %+v", process, s)
		}
		s.Read, s.Written = 0, 0
		if want := (Stats{Process: process, Hits: 2, Misses: 2, Bypasses: 1, Fills: 1, Invalidated: 1}); s != want {
			t.Errorf("got %+v, want %+v", s, want)
		}
	}
}

// failingBoard cannot broadcast.
type failingBoard struct{ board }

func (*failingBoard) Broadcast(context.Context, string, []byte) error {
	return errors.New("no connection")
}

// The store decides: an invalidation that cannot be broadcast has been made.
func TestInvalidateWithoutBroadcast(t *testing.T) {
	r, err := openResults("memory://", 0, Config{Broadcast: &failingBoard{}})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	f := &function{}
	ask(t, r, f, descriptor, input, contract.CacheDirectives{})
	if err := r.Invalidate(t.Context(), "thing:42"); err != nil {
		t.Error(err)
	}
	if ask(t, r, f, descriptor, input, contract.CacheDirectives{}).Hit {
		t.Error("it is served still")
	}
}
