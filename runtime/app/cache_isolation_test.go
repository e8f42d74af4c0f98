package app_test

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bradfitz/gomemcache/memcache"
	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/app/internal/config"
	"github.com/rabbet-fn/rabbet/runtime/app/internal/serve"
	"github.com/rabbet-fn/rabbet/runtime/app/internal/services"
	"github.com/rabbet-fn/rabbet/runtime/cache"
	"github.com/rabbet-fn/rabbet/runtime/cache/memcached"
	cachememory "github.com/rabbet-fn/rabbet/runtime/cache/memory"
	cacheredis "github.com/rabbet-fn/rabbet/runtime/cache/redis"
	"github.com/rabbet-fn/rabbet/runtime/cache/store"
	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/faas"
	"github.com/rabbet-fn/rabbet/runtime/memory"
)

// pair is two ingresses, each with a results cache of its own, on one store and
// one broker.
type pair struct {
	t         *testing.T
	broker    *memory.Broker
	namespace string
	ingresses [2]http.Handler
	results   [2]*cache.Results
}

// sharedStores runs test on the stores that several processes share.
func sharedStores(t *testing.T, test func(t *testing.T, url string)) {
	for name, variable := range map[string]string{"redis": "RABBET_TEST_REDIS_URL", "memcached": "RABBET_TEST_MEMCACHED_URL"} {
		t.Run(name, func(t *testing.T) {
			test(t, storeURL(t, variable))
		})
	}
}

// storeURL is the real store that variable names.
func storeURL(t *testing.T, variable string) string {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a service")
	}
	store := os.Getenv(variable)
	if store == "" {
		t.Fatalf("set %s, or run scripts/test, which starts one", variable)
	}
	return store
}

// newPair starts a pair on the store, in a namespace of its own.
func newPair(t *testing.T, store string) *pair {
	t.Helper()
	p := &pair{t: t, namespace: "test-" + rand.Text(), broker: memory.New(memory.Config{})}
	t.Cleanup(func() { p.broker.Close() })
	for i := range p.ingresses {
		p.ingresses[i], p.results[i] = p.ingress(store, p.namespace)
	}
	return p
}

// ingress opens one more, which may be of another namespace.
func (p *pair) ingress(store, namespace string) (http.Handler, *cache.Results) {
	p.t.Helper()
	// Two busy cores may be slower than a store should be.
	results, err := openResults(store, 5*time.Second, cache.Config{Namespace: namespace, Broadcast: p.broker})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { results.Close() })
	return serve.NewIngress(&config.Config{Namespace: namespace}, p.broker, results, nil, zap.NewNop()), results
}

// serve hosts the functions of set until stop is called.
func (p *pair) serve(set *faas.Set[struct{}]) (stop func()) {
	p.t.Helper()
	fns, err := set.With(&struct{}{})
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(p.t.Context())
	served := make(chan error, 1)
	go func() { served <- p.broker.Serve(ctx, fns) }() // ends with stop
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-served; err != nil {
			p.t.Error(err)
		}
	})
	p.t.Cleanup(stop)
	for _, f := range fns {
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
			if live, ok := p.broker.Directory().Find(f.Name); ok && live.Version == f.Version && len(live.Workers) == 1 {
				break
			}
			if time.Now().After(deadline) {
				p.t.Fatalf("%s is not announced after a minute", f.Name)
			}
		}
	}
	return stop
}

// input is a message with values of every kind that JSON knows several
// spellings of.
type input struct {
	ID    string         `json:"id"`
	Large int64          `json:"large,omitempty"`
	Ratio float64        `json:"ratio,omitempty"`
	More  map[string]any `json:"more,omitempty"`
	User  string         `json:"user,omitempty" header:"X-User"`
}

type (
	keptInput  struct{ input }
	otherInput struct{ input }
	plainInput struct{ input }
	ownInput   struct { // nothing in it identifies the client: only the cache does
		ID string `json:"id"`
	}
)

func (keptInput) RoutingKey() string  { return "kept" }
func (otherInput) RoutingKey() string { return "other" }
func (ownInput) RoutingKey() string   { return "own" }
func (plainInput) RoutingKey() string { return "plain" }

// telling is a set of functions that answer with their name and all that they were
// given. A caller that gets something else got the result of another call.
func telling(version string, runs *atomic.Int64) *faas.Set[struct{}] {
	tell := func(name string, in input) (string, error) {
		runs.Add(1)
		return fmt.Sprintf("%s %s %+q %d %v %+q %+q", name, version, in.ID, in.Large, in.Ratio, fmt.Sprint(in.More), in.User), nil
	}
	set := &faas.Set[struct{}]{}
	cached := contract.CachePolicy{TTL: time.Hour, Tags: []string{"thing:{id}"}}
	own := cached
	own.Identity = []string{"X-User", "cookie:user"}
	faas.OnRequest(set, "kept", func(_ context.Context, _ *struct{}, in keptInput) (string, error) { return tell("cached", in.input) },
		faas.HTTP("GET /kept/{id}"), faas.Version(version), cached)
	faas.OnRequest(set, "other", func(_ context.Context, _ *struct{}, in otherInput) (string, error) { return tell("another", in.input) },
		faas.HTTP("GET /other/{id}"), faas.Version(version), cached)
	faas.OnRequest(set, "own", func(_ context.Context, _ *struct{}, in ownInput) (string, error) {
		return tell("own", input{ID: in.ID})
	},
		faas.HTTP("GET /own/{id}"), faas.Version(version), own)
	faas.OnRequest(set, "plain", func(_ context.Context, _ *struct{}, in plainInput) (string, error) { return tell("cached", in.input) },
		faas.HTTP("GET /plain/{id}"), faas.Version(version))
	return set
}

// oddIDs are ids that a careless cache takes for one another.
var oddIDs = []string{
	"a", "A", " a", "a ", "a\t", "a\n", "a\r\n", "a\x00", "a\x7f", "\u00e1", "a\u0301", "\u0430", "\uff41", "a\u200b", "\u202ea", "\ufeffa", "a\ufffd",
	"k", "K", "\u212a", "s", "\u017f", "\u00df", "ss", "ı", "i", "İ", "\U0001f642", "\U0001d41a", `"a"`, `\a`, "{id}", "%61", "+", "a b", "a+b", "a%20b",
	":t:a", "thing:a", "a,b", "a;b", "0", "00", "-0", "1", "1.0", "1e0", "null", "true", "..", "a/b",
	strings.Repeat("x", 10_000), strings.Repeat("x", 9_999) + "y", strings.Repeat("x", 9_999), strings.Repeat("\u00e1", 5_000), strings.Repeat("a\u0301", 5_000),
}

// oddBodies are messages that mean something else each, or the same in another
// spelling.
var oddBodies = []string{
	`{"id":"n"}`, `{ "id" : "n" }`, `{"id":"\u006e"}`, `{"ID":"n"}`, `{"Id":"n"}`,
	`{"id":"n","ratio":1}`, `{"id":"n","ratio":1.0}`, `{"id":"n","ratio":1e0}`, `{"id":"n","ratio":10E-1}`, `{"ratio":1,"id":"n"}`, `{"id":"n","ratio":1.0000000000000002}`,
	`{"id":"n","ratio":0}`, `{"id":"n","ratio":-0}`, `{"id":"n","ratio":-0.0}`, `{"id":"n","ratio":1e-400}`,
	`{"id":"n","large":9007199254740992}`, `{"id":"n","large":9007199254740993}`, `{"id":"n","large":-9007199254740993}`, `{"id":"n","large":9223372036854775807}`,
	`{"id":"n","more":{"x":9007199254740992}}`, `{"id":"n","more":{"x":"1"}}`, `{"id":"n","more":{"x":1}}`, `{"id":"n","more":{"X":1}}`, `{"id":"n","more":{"x":1,"X":2}}`,
	`{"id":"n","more":{"x":2,"X":1}}`, `{"id":"n","more":{"X":1,"x":2}}`, `{"id":"n","more":{"x":1,"x":2}}`, `{"id":"n","more":{"x":2,"x":1}}`, `{"id":"n","more":{"k":1}}`, `{"id":"n","more":{"\u212a":1}}`,
	`{"id":"n","more":{"a":[1,2]}}`, `{"id":"n","more":{"a":[2,1]}}`, `{"id":"n","more":{"a":[12]}}`, `{"id":"n","more":{"a":null}}`, `{"id":"n","more":{}}`, `{"id":"n","more":null}`,
	`{"id":"a","id":"b"}`, `{"id":"b","id":"a"}`, `{"id":"a","ID":"b"}`, `{"ID":"b","id":"a"}`, `{"id":"\ud83d\ude42"}`, `{"id":"\ud83d"}`,
}

// answered is one answer of an ingress: its status and body, and whether it came
// from the store.
type answered struct {
	text string
	hit  bool
}

func askFor(h http.Handler, method, target, body string, fields ...string) answered {
	r := httptest.NewRequest(method, "/", strings.NewReader(body))
	r.RequestURI = target
	r.URL, _ = url.ParseRequestURI(target)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, field := range fields {
		name, value, _ := strings.Cut(field, ": ")
		r.Header.Add(name, value)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	text := w.Body.String()
	if w.Code != http.StatusOK {
		text = fmt.Sprint(w.Code)
	}
	return answered{text, strings.Contains(w.Header().Get("Cache-Status"), "; hit")}
}

// Whatever is asked for, through whichever ingress and however often: the answer
// is the one that a function which is not cached gives.
func TestNoAnswerIsAnothers(t *testing.T) {
	sharedStores(t, func(t *testing.T, store string) {
		p := newPair(t, store)
		var runs atomic.Int64
		p.serve(telling("1", &runs))
		type question struct{ method, target, body string }
		var questions []question
		for _, id := range oddIDs {
			questions = append(questions, question{"GET", "/*/" + url.PathEscape(id), ""})
		}
		for _, body := range oddBodies {
			questions = append(questions, question{"POST", "/functions/*", body})
		}
		hits := 0
		for round := range 2 {
			for i, q := range questions {
				want := askFor(p.ingresses[0], q.method, strings.Replace(q.target, "*", "plain", 1), q.body)
				got := askFor(p.ingresses[(i+round)%2], q.method, strings.Replace(q.target, "*", "kept", 1), q.body)
				if got.text != want.text {
					t.Errorf("round %d, %s %.60s %.60s: got %.100s, want %.100s", round+1, q.method, q.target, q.body, got.text, want.text)
				}
				if got.hit {
					hits++
				}
			}
		}
		// All but those that are no requests, or say a thing twice, and the other spellings at once.
		if hits < len(questions)*8/10 {
			t.Errorf("%d hits for %d questions asked twice: this proves little", hits, len(questions))
		}
	})
}

func TestNobodyGetsAnothersResult(t *testing.T) {
	sharedStores(t, func(t *testing.T, store string) {
		p := newPair(t, store)
		var runs atomic.Int64
		stop := p.serve(telling("1", &runs))
		expect := func(what string, h http.Handler, target, want string, hit bool, fields ...string) {
			t.Helper()
			if got := askFor(h, "GET", target, "", fields...); got.hit != hit || !strings.HasPrefix(got.text, `"`+want+" ") {
				t.Errorf("%s: got hit %v, %s; want hit %v, %s", what, got.hit, got.text, hit, want)
			}
		}
		const target = "/kept/42"
		for round, hit := range []bool{false, true} {
			h := p.ingresses[round]
			expect("a function", h, target, "cached 1", hit)
			expect("another function", h, "/other/42", "another 1", hit)
		}
		foreign, _ := p.ingress(store, p.namespace+"x")
		expect("another namespace", foreign, target, "cached 1", false)
		for round := range 2 {
			for i, users := range [][]string{
				{"X-User: ada"}, {"X-User: Ada"}, {"X-User: ada,"}, {"X-User: ad", "X-User: a"}, {"X-User: a", "X-User: da"}, {"X-User: \u0430da"},
				{"X-User: " + strings.Repeat("a", 10_000)}, {"X-User: " + strings.Repeat("a", 10_001)}, {"X-User: ada", "Cookie: user=bob"}, {"Cookie: user=ada"}, {"Cookie: user=Ada"},
			} {
				got := askFor(p.ingresses[(i+round)%2], "GET", "/own/42", "", users...)
				if got.hit != (round == 1) || !strings.HasPrefix(got.text, `"own `) {
					t.Errorf("round %d, %.40q: got hit %v, %.80s", round+1, users, got.hit, got.text)
				}
			}
			for _, anonymous := range [][]string{nil, {"X-User: "}, {"Cookie: other=ada"}, {"Authorization: Bearer ada"}} {
				if got := askFor(p.ingresses[0], "GET", "/own/42", "", anonymous...); got.hit {
					t.Errorf("%q, which identifies no user, got %s", anonymous, got.text)
				}
			}
		}
		before := runs.Load()
		askFor(p.ingresses[1], "GET", "/own/42", "", "X-User: ada")
		if n := runs.Load() - before; n != 0 {
			t.Errorf("a user that has asked before: %d runs, want a hit", n)
		}
		stop()
		p.serve(telling("2", &runs))
		expect("another version", p.ingresses[0], target, "cached 2", false)
		expect("another version, then", p.ingresses[1], target, "cached 2", true)
	})
}

// A thousand requests at the same moment, over two ingresses: the function runs
// once.
func TestOneRunForAThousandRequests(t *testing.T) {
	sharedStores(t, func(t *testing.T, store string) {
		p := newPair(t, store)
		var runs atomic.Int64
		p.serve(telling("1", &runs))
		for id := range 3 {
			runs.Store(0)
			var all sync.WaitGroup
			begin := make(chan struct{})
			var collapsed atomic.Int64
			for i := range 1000 {
				all.Go(func() {
					<-begin
					got := askFor(p.ingresses[i%2], "GET", fmt.Sprintf("/kept/%d", id), "")
					if !strings.HasPrefix(got.text, fmt.Sprintf(`"cached 1 \"%d\" `, id)) {
						t.Errorf("got %s", got.text)
					}
					if !got.hit {
						collapsed.Add(1)
					}
				})
			}
			close(begin)
			all.Wait()
			t.Logf("1,000 requests: %d runs, %d did not find it stored", runs.Load(), collapsed.Load())
			if n := runs.Load(); n != 1 {
				t.Errorf("the function ran %d times, want once", n)
			}
		}
	})
}

// With RABBET_CACHE_KEY results cannot be read in the store, and a secret is
// replaced without one process that cannot read what another has stored.
func TestResultsAreSealed(t *testing.T) {
	sharedStores(t, func(t *testing.T, store string) {
		p := newPair(t, store)
		var runs atomic.Int64
		p.serve(telling("1", &runs))
		kept, _ := p.broker.Directory().Find("kept")
		secret := func() string { return base64.StdEncoding.EncodeToString([]byte(rand.Text() + rand.Text())[:32]) }
		old, young := secret(), secret()
		for i, step := range []struct {
			keys   []string
			opens  bool // what the step before has stored
			sealed bool // in the store, afterwards
		}{
			{nil, false, false}, {[]string{old}, false, true}, {[]string{young, old}, true, true}, {[]string{old}, true, true},
			{[]string{young}, false, true}, {[]string{old, young}, true, true}, {nil, false, false},
		} {
			c := &config.Config{CacheURL: store, CacheKeys: step.keys, Namespace: p.namespace}
			results, err := services.OpenCache(c, p.broker, "", zap.NewNop())
			if err != nil {
				t.Fatal(err)
			}
			var stored cache.Stored
			await(t, "the store answers", func() bool { // a busy machine may be slower than the cache waits
				stored, err = results.Inspect(t.Context(), &kept.Descriptor, contract.Call{Body: []byte(`{"id":"confidential"}`)})
				return err == nil
			})
			if stored.Found != step.opens {
				t.Errorf("step %d: what is stored can be read: %v, want %v", i+1, stored.Found, step.opens)
			}
			front := serve.NewIngress(c, p.broker, results, nil, zap.NewNop())
			await(t, "a hit", func() bool { return askFor(front, "GET", "/kept/confidential", "").hit })
			if sealed := !strings.Contains(valueIn(t, store, stored.Key), "confidential"); sealed != step.sealed {
				t.Errorf("step %d: what is stored is sealed: %v, want %v", i+1, sealed, step.sealed)
			}
			results.Close()
		}
	})
}

// valueIn is what a store has under key.
func valueIn(t *testing.T, store, key string) string {
	t.Helper()
	if address, ok := strings.CutPrefix(store, "memcached://"); ok {
		client := memcache.New(address)
		defer client.Close()
		it, err := client.Get(key)
		if err != nil {
			t.Fatal(err)
		}
		return string(it.Value)
	}
	options, err := redis.ParseURL(store)
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(options)
	defer client.Close()
	value, err := client.Get(t.Context(), key).Result()
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// openResults opens results on the store at url, with a timeout of its own.
func openResults(url string, timeout time.Duration, cfg cache.Config) (*cache.Results, error) {
	s, err := cacheStores.Open(url, store.Options{Timeout: timeout})
	if err != nil {
		return nil, err
	}
	return cache.New(s, cfg)
}

var cacheStores = store.Schemes{"memory": cachememory.Open, "redis": cacheredis.Open, "memcached": memcached.Open}
