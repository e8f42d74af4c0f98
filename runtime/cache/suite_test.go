package cache

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/cache/internal/servertest"
	"github.com/rabbet-fn/rabbet/runtime/cache/memcached"
	"github.com/rabbet-fn/rabbet/runtime/cache/memory"
	"github.com/rabbet-fn/rabbet/runtime/cache/redis"
	"github.com/rabbet-fn/rabbet/runtime/cache/store"
	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/faas"
)

func TestMain(m *testing.M) { servertest.Main(m) }

// schemes are the stores that the tests run on.
var schemes = store.Schemes{
	"memory": memory.Open, "memcached": memcached.Open,
	"redis": redis.Open, "redis+sentinel": redis.Open, "redis+cluster": redis.Open,
}

// stores runs test on every kind of store, each in a namespace of its own.
func stores(t *testing.T, test func(t *testing.T, r *Results)) {
	storesByURL(t, func(t *testing.T, url string) { test(t, open(t, url)) })
}

// storesByURL runs test with the URL of every kind of store.
func storesByURL(t *testing.T, test func(t *testing.T, url string)) {
	for name, url := range map[string]func(testing.TB) string{
		"memory": func(testing.TB) string { return "memory://" },
		"redis":  servertest.Redis, "redis sentinel": servertest.Sentinel, "redis cluster": servertest.Cluster,
		"memcached": servertest.Memcached, "three memcached": servertest.ThreeMemcached,
	} {
		t.Run(name, func(t *testing.T) { test(t, url(t)) })
	}
}

// open opens results in a namespace of their own. Two busy cores may be slower
// than a store should be.
func open(t *testing.T, url string) *Results {
	t.Helper()
	r, err := openResults(url, 2*time.Second, Config{Namespace: "test-" + rand.Text()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// openResults opens results on the store at url.
func openResults(url string, timeout time.Duration, cfg Config) (*Results, error) {
	s, err := schemes.Open(url, store.Options{Timeout: timeout})
	if err != nil {
		return nil, err
	}
	return New(s, cfg)
}

// function answers with its input and a version that the test increases.
type function struct {
	calls   atomic.Int32
	version atomic.Int32
	fail    error
	pad     int
	started chan struct{} // if set, receives when a run has read the version
	release chan struct{} // if set, each run waits for it
}

func (f *function) Call(ctx context.Context, r contract.Call) (contract.Reply, error) {
	f.calls.Add(1)
	body := fmt.Appendf(nil, "v%d %s%s", f.version.Load(), r.Body, strings.Repeat(".", f.pad))
	if f.started != nil {
		f.started <- struct{}{}
	}
	if f.release != nil {
		select {
		case <-f.release:
		case <-ctx.Done():
			return contract.Reply{}, contract.Expired(contract.ExecutedUnknown)
		}
	}
	return contract.Reply{Body: body}, f.fail
}

var descriptor = &contract.Descriptor{
	Name: "get", Kind: contract.KindRequest, Keys: []string{"thing.get"}, Version: "1",
	Cache: &contract.CachePolicy{TTL: time.Minute, Tags: []string{"thing:{id}"}},
}

func ask(t *testing.T, r *Results, f *function, d *contract.Descriptor, body string, want contract.CacheDirectives) contract.CacheResult {
	t.Helper()
	result, err := r.Call(t.Context(), f, d, contract.Call{Key: "thing.get", Body: []byte(body)}, want)
	if err != nil {
		t.Fatalf("call with %.60q: %v", body, err)
	}
	return result
}

const input = `{"id":"42"}`

func TestHit(t *testing.T) {
	stores(t, func(t *testing.T, r *Results) {
		f := &function{}
		first := ask(t, r, f, descriptor, input, contract.CacheDirectives{})
		if first.Hit || !first.Stored || first.Forward != forwardMiss || first.TTL != time.Minute {
			t.Errorf("the first call: got %+v", first)
		}
		second := ask(t, r, f, descriptor, input, contract.CacheDirectives{})
		if !second.Hit || second.TTL <= 0 || second.TTL > time.Minute || second.Age < 0 {
			t.Errorf("the second call: got %+v", second)
		}
		if !bytes.Equal(first.Body, second.Body) || first.ETag != second.ETag || len(first.ETag) != 22 {
			t.Errorf("got %s %s, then %s %s", first.Body, first.ETag, second.Body, second.ETag)
		}
		if n := f.calls.Load(); n != 1 {
			t.Errorf("the function ran %d times, want once", n)
		}
	})
}

func TestInvalidate(t *testing.T) {
	stores(t, func(t *testing.T, r *Results) {
		f := &function{}
		ask(t, r, f, descriptor, input, contract.CacheDirectives{})
		other := ask(t, r, f, descriptor, `{"id":"43"}`, contract.CacheDirectives{})
		for i := range 3 {
			f.version.Add(1)
			if err := r.Invalidate(t.Context(), "thing:42"); err != nil {
				t.Fatal(err)
			}
			got := ask(t, r, f, descriptor, input, contract.CacheDirectives{})
			if got.Hit || got.Forward != forwardStale || !bytes.HasPrefix(got.Body, fmt.Appendf(nil, "v%d ", i+1)) {
				t.Errorf("after invalidation %d: got %+v, %s", i+1, got, got.Body)
			}
		}
		if got := ask(t, r, f, descriptor, `{"id":"43"}`, contract.CacheDirectives{}); !got.Hit || !bytes.Equal(got.Body, other.Body) {
			t.Errorf("a result with another tag: got %+v, want it untouched", got)
		}
	})
}

// A result with several tags goes with each of them, with several at once, and
// when the generation of one is lost.
func TestSeveralTags(t *testing.T) {
	stores(t, func(t *testing.T, r *Results) {
		d := with(func(p *contract.CachePolicy) { p.Tags = []string{"thing:{id}", "owner:{owner}", "things"} })
		const input = `{"id":"42","owner":"7"}`
		f := &function{}
		ask(t, r, f, d, input, contract.CacheDirectives{})
		for _, tags := range [][]string{{"thing:42"}, {"owner:7"}, {"things"}, {"elsewhere", "things", "owner:7"}} {
			if got := ask(t, r, f, d, input, contract.CacheDirectives{}); !got.Hit {
				t.Errorf("before %q: got %+v, want a hit", tags, got)
			}
			if err := r.Invalidate(t.Context(), tags...); err != nil {
				t.Fatal(err)
			}
			if got := ask(t, r, f, d, input, contract.CacheDirectives{}); got.Hit {
				t.Errorf("after %q: got a hit", tags)
			}
		}
		for _, tag := range []string{"thing:42", "owner:7", "things"} {
			evict(t, r, generationKey(r.namespace, tag))
			for _, hit := range []bool{false, true} {
				if got := ask(t, r, f, d, input, contract.CacheDirectives{}); got.Hit != hit {
					t.Errorf("the generation of %q is lost: got hit %v, want %v", tag, got.Hit, hit)
				}
			}
		}
		if err := r.Invalidate(t.Context(), "thing:43", "owner:8", "thing"); err != nil {
			t.Fatal(err)
		}
		if got := ask(t, r, f, d, input, contract.CacheDirectives{}); !got.Hit {
			t.Errorf("after tags of other results: got %+v, want a hit", got)
		}
	})
}

// A time that is longer than a store knows (Memcached takes more than 30 days
// for a date) is as long as it does.
func TestLongTimes(t *testing.T) {
	stores(t, func(t *testing.T, r *Results) {
		const year = 365 * 24 * time.Hour
		for i, change := range []func(*contract.CachePolicy){
			func(p *contract.CachePolicy) { p.TTL = year },
			func(p *contract.CachePolicy) { p.StaleIfError = year },
			func(p *contract.CachePolicy) { p.TTL, p.StaleWhileRevalidate = 30*24*time.Hour, year },
		} {
			d, body := with(change), fmt.Sprintf(`{"id":"%d"}`, i)
			first := ask(t, r, &function{}, d, body, contract.CacheDirectives{})
			if got := ask(t, r, &function{}, d, body, contract.CacheDirectives{}); !got.Hit || got.TTL > first.TTL || first.TTL > store.MaxTTL {
				t.Errorf("%+v: got %+v after %+v, want a hit", d.Cache, got, first)
			}
		}
	})
}

// What was read before an invalidation and is stored after it must not be
// served, nor be shared with calls that come after the invalidation.
func TestInvalidateDuringFill(t *testing.T) {
	stores(t, func(t *testing.T, r *Results) {
		slow := &function{started: make(chan struct{}, 1), release: make(chan struct{})}
		done := make(chan contract.CacheResult)
		go func() { // ends with the call
			result, _ := r.Call(t.Context(), slow, descriptor, contract.Call{Body: []byte(input)}, contract.CacheDirectives{})
			done <- result
		}()
		<-slow.started
		if err := r.Invalidate(t.Context(), "thing:42"); err != nil {
			t.Fatal(err)
		}
		f := &function{}
		f.version.Store(1)
		if got := ask(t, r, f, descriptor, input, contract.CacheDirectives{NoStore: true}); got.Hit || got.Collapsed || !bytes.HasPrefix(got.Body, []byte("v1 ")) {
			t.Errorf("while the old call runs: got %+v, %s; want a call of its own", got, got.Body)
		}
		ask(t, r, f, descriptor, `{"id":"42","n":1}`, contract.CacheDirectives{}) // which gives the tag another generation
		close(slow.release)
		if old := <-done; !bytes.HasPrefix(old.Body, []byte("v0 ")) || !old.Stored {
			t.Fatalf("the old call: got %+v, %s", old, old.Body)
		}
		if got := ask(t, r, f, descriptor, input, contract.CacheDirectives{}); got.Hit || !bytes.HasPrefix(got.Body, []byte("v1 ")) {
			t.Errorf("after the old call: got %+v, %s; want v1", got, got.Body)
		}
	})
}

func TestCallsAfterInvalidationDoNotJoinOlderRuns(t *testing.T) {
	stores(t, func(t *testing.T, r *Results) {
		f := &function{started: make(chan struct{}, 2), release: make(chan struct{})}
		results := make(chan contract.CacheResult, 2)
		call := func() {
			result, _ := r.Call(t.Context(), f, descriptor, contract.Call{Body: []byte(input)}, contract.CacheDirectives{})
			results <- result
		}
		go call()
		<-f.started
		f.version.Store(1)
		if err := r.Invalidate(t.Context(), "thing:42"); err != nil {
			t.Fatal(err)
		}
		go call()
		<-f.started // it would wait for ever if the second call had joined the first
		close(f.release)
		for range 2 {
			if got := <-results; got.Collapsed {
				t.Errorf("got %+v, want a call of its own", got)
			}
		}
	})
}

func TestLostGeneration(t *testing.T) {
	stores(t, func(t *testing.T, r *Results) {
		f := &function{}
		ask(t, r, f, descriptor, input, contract.CacheDirectives{})
		evict(t, r, generationKey(r.namespace, "thing:42"))
		if got := ask(t, r, f, descriptor, input, contract.CacheDirectives{}); got.Hit {
			t.Error("an entry was trusted though its tag's generation is lost")
		}
		if got := ask(t, r, f, descriptor, input, contract.CacheDirectives{}); !got.Hit {
			t.Errorf("after a fresh generation: got %+v, want a hit", got)
		}
	})
}

// evict removes a key behind the cache's back.
func evict(t *testing.T, r *Results, key string) {
	t.Helper()
	if err := r.store.Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
}

func TestIsolation(t *testing.T) {
	stores(t, func(t *testing.T, r *Results) {
		ask(t, r, &function{}, descriptor, input, contract.CacheDirectives{})
		change := func(fn func(*contract.Descriptor)) *contract.Descriptor {
			d := *descriptor
			fn(&d)
			return &d
		}
		for name, d := range map[string]*contract.Descriptor{
			"function": change(func(d *contract.Descriptor) { d.Name = "got" }),
			"version":  change(func(d *contract.Descriptor) { d.Version = "2" }),
			"border":   change(func(d *contract.Descriptor) { d.Name, d.Version = "get1", "" }),
		} {
			if got := ask(t, r, &function{}, d, input, contract.CacheDirectives{}); got.Hit {
				t.Errorf("another %s: got a hit", name)
			}
		}
		other := &Results{namespace: r.namespace + "x", store: r.store, codec: r.codec, broadcast: r.broadcast}
		if got := ask(t, other, &function{}, descriptor, input, contract.CacheDirectives{}); got.Hit {
			t.Error("another namespace: got a hit")
		}
		if err := other.Invalidate(t.Context(), "thing:42"); err != nil {
			t.Fatal(err)
		}
		if got := ask(t, r, &function{}, descriptor, input, contract.CacheDirectives{}); !got.Hit {
			t.Error("an invalidation in another namespace: got no hit")
		}
	})
}

func TestOddInputs(t *testing.T) {
	stores(t, func(t *testing.T, r *Results) {
		f := &function{}
		ids := []string{
			`a b`, ` `, ``, `\n\r\t\u0000`, `é`, `e\u0301`, `ａ`, `а`, `a`, `K`, `\u212a`, `k`, `{id}`, `:t:x`, `<&>`, `🙂`, `"`[:0] + `\"`,
			strings.Repeat("x", 10_000), strings.Repeat("x", 10_001), strings.Repeat("ü ", 3_000),
		}
		for _, id := range ids {
			body := `{"id":"` + id + `"}`
			if got := ask(t, r, f, descriptor, body, contract.CacheDirectives{}); got.Hit || !got.Stored {
				t.Errorf("%.30q, first: got %+v", id, got.Forward)
			}
		}
		for _, id := range ids {
			body := `{"id":"` + id + `"}`
			if got := ask(t, r, f, descriptor, body, contract.CacheDirectives{}); !got.Hit || string(got.Body) != "v0 "+body {
				t.Errorf("%.30q, second: got hit %v, %.60s", id, got.Hit, got.Body)
			}
		}
		if err := r.Invalidate(t.Context(), "thing:"+strings.Repeat("x", 10_000), "thing:a b", "thing:\n\r\t\x00"); err != nil {
			t.Fatal(err)
		}
		for i, id := range ids {
			gone := i == 0 || i == 3 || len(id) == 10_000
			if got := ask(t, r, f, descriptor, `{"id":"`+id+`"}`, contract.CacheDirectives{}); got.Hit == gone {
				t.Errorf("%.30q, after invalidations: got hit %v", id, got.Hit)
			}
		}
	})
}

func TestWhatIsNotStored(t *testing.T) {
	stores(t, func(t *testing.T, r *Results) {
		failing := &function{fail: faas.NotFound("nothing here")}
		for range 2 {
			if _, err := r.Call(t.Context(), failing, descriptor, contract.Call{Body: []byte(input)}, contract.CacheDirectives{}); !errors.Is(err, contract.ErrNotFound) {
				t.Errorf("got %v, want the function's error", err)
			}
		}
		if n := failing.calls.Load(); n != 2 {
			t.Errorf("a failing function ran %d times for 2 calls", n)
		}
		event := *descriptor
		event.Kind = contract.KindEvent
		plain := *descriptor
		plain.Cache = nil
		sensitive := *descriptor
		sensitive.Sensitive = true
		session := *descriptor
		session.Session = true
		for name, c := range map[string]struct {
			d    *contract.Descriptor
			body string
			pad  int
		}{
			"too large":                    {descriptor, `{"id":"large"}`, contract.DefaultMaxSize},
			"not a request":                {&event, input, 0},
			"not cached":                   {&plain, input, 0},
			"sensitive":                    {&sensitive, input, 0},
			"with a session":               {&session, input, 0},
			"no JSON":                      {descriptor, `{"id":`, 0},
			"more than one value":          {descriptor, `{"id":"42"}{}`, 0},
			"no object":                    {descriptor, `["id"]`, 0},
			"tag without a value":          {descriptor, `{}`, 0},
			"tag that is null":             {descriptor, `{"id":null}`, 0},
			"tag of several spellings":     {descriptor, `{"id":1e3}`, 0},
			"tag of two zeros":             {descriptor, `{"id":-0}`, 0},
			"the same member twice":        {descriptor, `{"id":"1","id":"2"}`, 0},
			"the same member in two cases": {descriptor, `{"ID":"1","id":"2"}`, 0},
			"twice further in":             {descriptor, `{"a":{"x":1,"X":2},"id":"2"}`, 0},
		} {
			f := &function{pad: c.pad}
			for range 2 {
				if got := ask(t, r, f, c.d, c.body, contract.CacheDirectives{}); got.Hit || got.Stored {
					t.Errorf("%s: got hit %v, stored %v", name, got.Hit, got.Stored)
				}
			}
		}
	})
}

func TestDirectives(t *testing.T) {
	stores(t, func(t *testing.T, r *Results) {
		f := &function{}
		if _, err := r.Call(t.Context(), f, descriptor, contract.Call{Body: []byte(input)}, contract.CacheDirectives{OnlyIfCached: true}); !errors.Is(err, contract.ErrUnavailable) || f.calls.Load() != 0 {
			t.Errorf("only-if-cached and nothing stored: got %v after %d runs", err, f.calls.Load())
		}
		if got := ask(t, r, f, descriptor, input, contract.CacheDirectives{NoStore: true}); got.Stored || got.Hit {
			t.Errorf("no-store: got %+v", got)
		}
		ask(t, r, f, descriptor, input, contract.CacheDirectives{})
		if got := ask(t, r, f, descriptor, input, contract.CacheDirectives{OnlyIfCached: true}); !got.Hit {
			t.Errorf("only-if-cached: got %+v, want a hit", got)
		}
		f.version.Add(1)
		if got := ask(t, r, f, descriptor, input, contract.CacheDirectives{NoCache: true, NoStore: true}); got.Hit || got.Stored || got.Forward != forwardRequest {
			t.Errorf("no-cache, no-store: got %+v", got)
		}
		if got := ask(t, r, f, descriptor, input, contract.CacheDirectives{MaxAge: time.Hour}); !got.Hit {
			t.Errorf("max-age of an hour: got %+v, want a hit", got)
		}
		if got := ask(t, r, f, descriptor, input, contract.CacheDirectives{MaxAge: time.Nanosecond}); got.Hit || got.Forward != forwardRequest {
			t.Errorf("max-age of next to nothing: got %+v", got)
		}
		f.version.Add(1)
		if got := ask(t, r, f, descriptor, input, contract.CacheDirectives{NoCache: true}); got.Hit || !got.Stored {
			t.Errorf("no-cache: got %+v", got)
		}
		if got := ask(t, r, f, descriptor, input, contract.CacheDirectives{}); !got.Hit || !bytes.HasPrefix(got.Body, []byte("v2 ")) {
			t.Errorf("after no-cache: got %+v, %s; want what it stored", got, got.Body)
		}
	})
}

func TestSingleflight(t *testing.T) {
	stores(t, func(t *testing.T, r *Results) {
		f := &function{started: make(chan struct{}, 1), release: make(chan struct{})}
		request := contract.Call{Body: []byte(input)}
		first, giveUp := context.WithCancel(t.Context())
		left := make(chan error)
		go func() { // ends when the first caller gives up
			_, err := r.Call(first, f, descriptor, request, contract.CacheDirectives{})
			left <- err
		}()
		<-f.started
		const callers = 100
		var all sync.WaitGroup
		var collapsed, hits atomic.Int32
		for range callers {
			all.Go(func() {
				result, err := r.Call(t.Context(), f, descriptor, request, contract.CacheDirectives{})
				if err != nil {
					t.Error(err)
				}
				if result.Collapsed {
					collapsed.Add(1)
				}
				if result.Hit {
					hits.Add(1)
				}
			})
		}
		for waiting(r) < 2 { // another call must wait before the first caller gives up
			time.Sleep(time.Millisecond)
		}
		giveUp()
		if err := <-left; contract.AsError(err).Code != contract.CodeCanceled {
			t.Errorf("the caller that gave up: got %v", err)
		}
		close(f.release)
		all.Wait()
		if n := f.calls.Load(); n != 1 || collapsed.Load()+hits.Load() != callers {
			t.Errorf("%d runs, %d collapsed, %d hits; want 1 run and %d others", n, collapsed.Load(), hits.Load(), callers)
		}
	})
}

// A caller that waits for an equal call waits no longer than for its own.
func TestDeadlineWhileWaiting(t *testing.T) {
	stores(t, func(t *testing.T, r *Results) {
		f := &function{started: make(chan struct{}, 1), release: make(chan struct{})}
		patient := make(chan error)
		go func() { // ends with the call
			_, err := r.Call(t.Context(), f, descriptor, contract.Call{Body: []byte(input)}, contract.CacheDirectives{})
			patient <- err
		}()
		<-f.started
		hurried := contract.Call{Body: []byte(input), Deadline: time.Now().Add(20 * time.Millisecond)}
		if _, err := r.Call(t.Context(), f, descriptor, hurried, contract.CacheDirectives{}); !errors.Is(err, contract.ErrExpired) {
			t.Errorf("got %v, want %v", err, contract.ErrExpired)
		}
		close(f.release)
		if err := <-patient; err != nil {
			t.Errorf("the other one: %v", err)
		}
	})
}

func waiting(r *Results) int { return r.fills.Waiting() }
