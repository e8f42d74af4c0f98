package app_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/app/internal/config"
	"github.com/rabbet-fn/rabbet/runtime/app/internal/serve"
	"github.com/rabbet-fn/rabbet/runtime/app/internal/services"
	"github.com/rabbet-fn/rabbet/runtime/cache"
	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/faas"
	"github.com/rabbet-fn/rabbet/runtime/memory"
)

type thing struct {
	ID       string `json:"id"`
	Language string `json:"language,omitempty" header:"Accept-Language"`
}

type (
	plainThing    struct{ thing }
	ownThing      struct{ thing }
	everybodys    struct{ thing }
	edgeThing     struct{ thing }
	smallThing    struct{ thing }
	uncachedThing struct{ thing }
)

func (plainThing) RoutingKey() string    { return "plain" }
func (ownThing) RoutingKey() string      { return "own" }
func (everybodys) RoutingKey() string    { return "everybodys" }
func (edgeThing) RoutingKey() string     { return "edge" }
func (smallThing) RoutingKey() string    { return "small" }
func (uncachedThing) RoutingKey() string { return "uncached" }

// things is how the functions of TestCachingEndToEnd behave.
type things struct {
	runs atomic.Int64
	fail atomic.Pointer[error]
}

func respond[In contract.Message](s *things) func(context.Context, *struct{}, In) (string, error) {
	return func(context.Context, *struct{}, In) (string, error) {
		time.Sleep(time.Millisecond)
		n := s.runs.Add(1)
		if err := s.fail.Load(); err != nil {
			return "", *err
		}
		return fmt.Sprintf("run %d", n), nil
	}
}

// TestCachingEndToEnd goes from HTTP through the ingress, the real cache and
// the memory broker to a function and back, on a clock of its own: what RFC
// 9111, 9110, 5861 and 9211 say, step by step.
func TestCachingEndToEnd(t *testing.T) {
	policy := contract.CachePolicy{
		TTL: time.Minute, Tags: []string{"thing:{id}"},
		StaleWhileRevalidate: 30 * time.Second, StaleIfError: 2 * time.Minute, Negative: 10 * time.Second,
	}
	own, public, edge, small := policy, policy, policy, policy
	own.Identity = []string{"X-User"}
	public.Public = true
	edge.Edge = 2 * time.Second
	small.MaxSize = 4

	// A step is a request and what comes of it, or what happens in between:
	// "wait 5s", "invalidate 1", "fail", "not found", "mend".
	type step struct {
		do     string // "GET /plain/1", header fields after it, one a line
		status int
		runs   int64  // of functions, by then
		want   string // header fields of the response, one a line
	}
	for _, c := range []struct {
		section, name string
		steps         []step
	}{
		{"9111 4", "a result is made once and then served from the store, with its age", []step{
			{"GET /plain/1", 200, 1, "Cache-Status: Rabbet; fwd=uri-miss; stored\nAge:\nCache-Control: no-cache\nVary: Accept-Language"},
			{"wait 5s", 0, 1, ""},
			{"GET /plain/1", 200, 1, "Cache-Status: Rabbet; hit; ttl=54\nAge: 5\nCache-Control: no-cache\nVary: Accept-Language"},
		}},
		{"9111 4.1", "variants are kept apart", []step{
			{"GET /plain/1\nAccept-Language: de", 200, 1, "Cache-Status: Rabbet; fwd=uri-miss; stored"},
			{"GET /plain/1\nAccept-Language: en", 200, 2, "Cache-Status: Rabbet; fwd=uri-miss; stored"},
			{"GET /plain/1\nAccept-Language: de", 200, 2, "Cache-Status: Rabbet; hit; ttl=59"},
			{"GET /plain/1", 200, 3, ""},
		}},
		{"9110 9.3.2", "HEAD is served from what GET has stored, and the other way round", []step{
			{"GET /plain/1", 200, 1, ""},
			{"HEAD /plain/1", 200, 1, "Cache-Status: Rabbet; hit; ttl=59\nContent-Length: 7"},
			{"HEAD /plain/2", 200, 2, ""},
			{"GET /plain/2", 200, 2, ""},
		}},
		{"9111 2", "a call by name shares the result", []step{
			{"GET /plain/1", 200, 1, ""},
			{"POST /functions/plain", 200, 1, "Cache-Status: Rabbet; hit; ttl=59"},
		}},
		{"9111 5.2.1.1", "max-age", []step{
			{"GET /plain/1", 200, 1, ""},
			{"wait 5s", 0, 1, ""},
			{"GET /plain/1\nCache-Control: max-age=6", 200, 1, "Age: 5"},
			{"GET /plain/1\nCache-Control: max-age=3", 200, 2, "Cache-Status: Rabbet; fwd=request; stored\nAge:"},
			{"GET /plain/1", 200, 2, "Age: 0"},
			{"GET /plain/1\nCache-Control: max-age=0", 200, 3, "Cache-Status: Rabbet; fwd=request; stored"},
		}},
		{"9111 5.2.1.2", "max-stale", []step{
			{"GET /plain/1", 200, 1, ""},
			{"wait 100s", 0, 1, ""},
			{"GET /plain/1\nCache-Control: max-stale=60", 200, 1, "Cache-Status: Rabbet; hit; ttl=-40\nAge: 100"},
			{"GET /plain/1\nCache-Control: max-stale", 200, 1, "Cache-Status: Rabbet; hit; ttl=-40"},
			{"GET /plain/1\nCache-Control: max-stale=30", 200, 2, "Cache-Status: Rabbet; fwd=stale; stored"},
		}},
		{"9111 5.2.1.3", "min-fresh", []step{
			{"GET /plain/1", 200, 1, ""},
			{"wait 5s", 0, 1, ""},
			{"GET /plain/1\nCache-Control: min-fresh=50", 200, 1, "Age: 5"},
			{"GET /plain/1\nCache-Control: min-fresh=58", 200, 2, "Cache-Status: Rabbet; fwd=request; stored"},
		}},
		{"9111 5.2.1.4", "no-cache, and what it brings is stored", []step{
			{"GET /plain/1", 200, 1, ""},
			{"GET /plain/1\nCache-Control: no-cache", 200, 2, "Cache-Status: Rabbet; fwd=request; stored"},
			{"GET /plain/1\nPragma: no-cache", 200, 3, "Cache-Status: Rabbet; fwd=request; stored"},
			{"GET /plain/1", 200, 3, "Cache-Status: Rabbet; hit; ttl=59"},
		}},
		{"9111 5.2.1.5", "no-store", []step{
			{"GET /plain/1\nCache-Control: no-store", 200, 1, "Cache-Status: Rabbet; fwd=uri-miss\nCache-Control: no-store"},
			{"GET /plain/1", 200, 2, "Cache-Status: Rabbet; fwd=uri-miss; stored"},
		}},
		{"9111 5.2.1.7", "only-if-cached", []step{
			{"GET /plain/1\nCache-Control: only-if-cached", 504, 0, ""},
			{"GET /plain/1", 200, 1, ""},
			{"GET /plain/1\nCache-Control: only-if-cached", 200, 1, "Cache-Status: Rabbet; hit; ttl=59"},
			{"GET /plain/1\nCache-Control: only-if-cached, no-cache", 504, 1, ""},
		}},
		{"9111 3.5", "with Authorization nothing is served from the store or put there", []step{
			{"GET /plain/1\nAuthorization: Bearer a", 200, 1, "Cache-Status: Rabbet; fwd=bypass\nCache-Control: no-store"},
			{"GET /plain/1", 200, 2, ""},
			{"GET /plain/1\nAuthorization: Bearer a", 200, 3, ""},
			{"GET /plain/1\nAuthorization: Bearer a\nCache-Control: only-if-cached", 504, 3, ""},
		}},
		{"9111 3.5", "unless it is everybody's", []step{
			{"GET /everybodys/1\nAuthorization: Bearer a", 200, 1, "Cache-Control: public, no-cache"},
			{"GET /everybodys/1\nAuthorization: Bearer b", 200, 1, "Cache-Status: Rabbet; hit; ttl=59"},
			{"GET /everybodys/1", 200, 1, "Cache-Status: Rabbet; hit; ttl=59"},
		}},
		{"9111 5.2.2.7", "or one's own", []step{
			{"GET /own/1\nX-User: a\nAuthorization: Bearer a", 200, 1, "Cache-Control: private, no-cache\nVary: Accept-Language, X-User"},
			{"GET /own/1\nX-User: b", 200, 2, "Cache-Status: Rabbet; fwd=uri-miss; stored"},
			{"GET /own/1\nX-User: a", 200, 2, "Cache-Status: Rabbet; hit; ttl=59"},
			{"GET /own/1", 200, 3, "Cache-Status: Rabbet; fwd=bypass\nCache-Control: no-store"},
			{"GET /own/1", 200, 4, ""},
		}},
		{"9111 5.2.2.10", "the edge time, while it lasts here", []step{
			{"GET /edge/1", 200, 1, "Cache-Control: max-age=0, s-maxage=2, stale-while-revalidate=2"},
			{"wait 57s", 0, 1, ""},
			{"GET /edge/1", 200, 1, "Cache-Control: max-age=0, s-maxage=2, stale-while-revalidate=2\nCache-Status: Rabbet; hit; ttl=2"},
			{"wait 1s", 0, 1, ""},
			{"GET /edge/1", 200, 1, "Cache-Control: no-cache\nCache-Status: Rabbet; hit; ttl=1"},
		}},
		{"9110 13.1.2", "304 for as long as the result is the same", []step{
			{"GET /plain/1", 200, 1, ""},
			{"GET /plain/1\nIf-None-Match: $tag", 304, 1, "Etag: $tag\nCache-Status: Rabbet; hit; ttl=59\nCache-Control: no-cache\nVary: Accept-Language\nAge: 0\nContent-Type:"},
			{"HEAD /plain/1\nIf-None-Match: $tag", 304, 1, ""},
			{"GET /plain/1\nIf-Match: $tag", 200, 1, ""},
			{"GET /plain/1\nIf-Match: \"other\"", 412, 1, ""},
			{"invalidate 1", 0, 1, ""},
			{"GET /plain/1\nIf-None-Match: $tag", 200, 2, ""},
		}},
		{"9110 13.1.1", "an uncached function knows no tags", []step{
			{"GET /uncached/1", 200, 1, "Etag:\nCache-Control: no-store\nCache-Status:"},
			{"GET /uncached/1\nIf-None-Match: *", 200, 2, ""},
		}},
		{"5861 3", "stale while it is made anew, once, in the background", []step{
			{"GET /plain/1", 200, 1, ""},
			{"wait 70s", 0, 1, ""},
			{"GET /plain/1", 200, 1, "Cache-Status: Rabbet; hit; ttl=-10\nAge: 70\nCache-Control: no-cache"},
			{"wait 1s", 0, 2, ""},
			{"GET /plain/1", 200, 2, "Cache-Status: Rabbet; hit; ttl=59"},
		}},
		{"5861 3", "and not any longer than that", []step{
			{"GET /plain/1", 200, 1, ""},
			{"wait 91s", 0, 1, ""},
			{"GET /plain/1", 200, 2, "Cache-Status: Rabbet; fwd=stale; stored\nAge:"},
		}},
		{"5861 4", "stale if the function fails, and not any longer than that", []step{
			{"GET /plain/1", 200, 1, ""},
			{"wait 100s", 0, 1, ""},
			{"fail", 0, 1, ""},
			{"GET /plain/1", 200, 2, "Cache-Status: Rabbet; fwd=stale; ttl=-40; detail=stale-if-error\nAge: 100"},
			{"wait 81s", 0, 2, ""},
			{"GET /plain/1", 500, 3, "Cache-Status: Rabbet; fwd=uri-miss\nAge:"},
		}},
		{"9111 4.4", "nothing that was invalidated is served, however stale results may be", []step{
			{"GET /plain/1", 200, 1, ""},
			{"invalidate 1", 0, 1, ""},
			{"fail", 0, 1, ""},
			{"GET /plain/1\nCache-Control: max-stale", 500, 2, ""},
			{"GET /plain/1\nCache-Control: only-if-cached, max-stale", 504, 2, ""},
			{"mend", 0, 2, ""},
			{"GET /plain/1", 200, 3, ""},
		}},
		{"9111 4", "a declared error is kept, for as long as the policy says", []step{
			{"not found", 0, 0, ""},
			{"GET /plain/1", 404, 1, "Cache-Status: Rabbet; fwd=uri-miss; stored; detail=negative\nCache-Control: no-store"},
			{"wait 5s", 0, 1, ""},
			{"GET /plain/1", 404, 1, "Cache-Status: Rabbet; hit; ttl=4; detail=negative\nAge: 5\nCache-Control: no-store"},
			{"GET /plain/1\nCache-Control: only-if-cached", 404, 1, ""},
			{"wait 6s", 0, 1, ""},
			{"GET /plain/1", 404, 2, ""},
			{"mend", 0, 2, ""},
			{"GET /plain/1", 404, 2, ""},
			{"invalidate 1", 0, 2, ""},
			{"GET /plain/1", 200, 3, ""},
		}},
		{"9111 3", "any other failure is not", []step{
			{"fail", 0, 0, ""},
			{"GET /plain/1", 500, 1, "Cache-Status: Rabbet; fwd=uri-miss\nCache-Control: no-store"},
			{"GET /plain/1", 500, 2, ""},
		}},
		{"9111 3", "nor what is too large", []step{
			{"GET /small/1", 200, 1, "Cache-Status: Rabbet; fwd=uri-miss"},
			{"GET /small/1", 200, 2, ""},
		}},
	} {
		t.Run(c.section+" "+c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var set faas.Set[struct{}]
				s := &things{}
				faas.OnRequest(&set, "plain", respond[plainThing](s), faas.HTTP("GET /plain/{id}"), policy)
				faas.OnRequest(&set, "own", respond[ownThing](s), faas.HTTP("GET /own/{id}"), own)
				faas.OnRequest(&set, "everybodys", respond[everybodys](s), faas.HTTP("GET /everybodys/{id}"), public)
				faas.OnRequest(&set, "edge", respond[edgeThing](s), faas.HTTP("GET /edge/{id}"), edge)
				faas.OnRequest(&set, "small", respond[smallThing](s), faas.HTTP("GET /small/{id}"), small)
				faas.OnRequest(&set, "uncached", respond[uncachedThing](s), faas.HTTP("GET /uncached/{id}"))
				front, results := serveThings(t, &set)
				tag := `"none"`
				for n, step := range c.steps {
					line, fields, _ := strings.Cut(step.do, "\n")
					verb, object, _ := strings.Cut(line, " ")
					switch {
					case verb == "wait":
						d, err := time.ParseDuration(object)
						if err != nil {
							t.Fatal(err)
						}
						time.Sleep(d)
					case verb == "invalidate":
						if err := results.Invalidate(t.Context(), "thing:"+object); err != nil {
							t.Fatal(err)
						}
					case line == "fail":
						err := errors.New("the disk is full")
						s.fail.Store(&err)
					case line == "not found":
						err := faas.NotFound("no thing")
						s.fail.Store(&err)
					case line == "mend":
						s.fail.Store(nil)
					default:
						r := answerOf(front, verb, object, strings.ReplaceAll(fields, "$tag", tag))
						if r.Code != step.status {
							t.Fatalf("step %d, %s: %d, want %d: %v %s", n+1, step.do, r.Code, step.status, r.Header(), r.Body)
						}
						for want := range strings.SplitSeq(strings.ReplaceAll(step.want, "$tag", tag), "\n") {
							name, value, _ := strings.Cut(want, ":")
							if got := r.Header().Get(name); got != strings.TrimSpace(value) {
								t.Errorf("step %d, %s: %s: %q, want %q", n+1, step.do, name, got, strings.TrimSpace(value))
							}
						}
						if etag := r.Header().Get("Etag"); etag != "" {
							tag = etag
						}
					}
					synctest.Wait()
					if got := s.runs.Load(); got != step.runs {
						t.Fatalf("step %d, %s: %d runs by then, want %d", n+1, step.do, got, step.runs)
					}
				}
			})
		})
	}
}

// TestCollapsedRequests asks for one result at the same moment a hundred times.
func TestCollapsedRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var set faas.Set[struct{}]
		s := &things{}
		faas.OnRequest(&set, "plain", respond[plainThing](s), faas.HTTP("GET /plain/{id}"), faas.Cached(time.Minute))
		front, _ := serveThings(t, &set)
		const requests = 100
		statuses := make(chan string, requests)
		for range requests {
			go func() { statuses <- answerOf(front, "GET", "/plain/1", "").Header().Get("Cache-Status") }()
		}
		counts := map[string]int{}
		for range requests {
			counts[<-statuses]++
		}
		if s.runs.Load() != 1 || counts["Rabbet; fwd=uri-miss; stored"] != 1 || counts["Rabbet; fwd=uri-miss; collapsed"] == 0 {
			t.Errorf("%d runs, %v; want one run that all but its own request collapsed into, or hit (RFC 9211, section 2.6)", s.runs.Load(), counts)
		}
	})
}

// serveThings serves the functions behind an ingress with a cache in memory.
func serveThings(t *testing.T, set *faas.Set[struct{}]) (http.Handler, *cache.Results) {
	t.Helper()
	fns, err := set.With(&struct{}{})
	if err != nil {
		t.Fatal(err)
	}
	c := &config.Config{CacheURL: "memory://", Namespace: "test"}
	results, err := services.OpenCache(c, nil, "", zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	broker := memory.New(memory.Config{})
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- broker.Serve(ctx, fns) }()
	t.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
		results.Close()
		broker.Close()
	})
	synctest.Wait() // the functions are announced
	return serve.NewIngress(c, broker, results, nil, zap.NewNop()), results
}

// answerOf serves one request with header fields, one a line.
func answerOf(h http.Handler, method, target, fields string) *httptest.ResponseRecorder {
	body := http.NoBody
	r := httptest.NewRequest(method, target, body)
	if method == http.MethodPost {
		r = httptest.NewRequest(method, target, strings.NewReader(`{"id":"1"}`))
	}
	for field := range strings.SplitSeq(fields, "\n") {
		if name, value, ok := strings.Cut(field, ": "); ok {
			r.Header.Add(name, value)
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}
