// Package nginx holds the configuration of NGINX, and the tests of its edge cache
// and of its behaviour in front of the ingresses.
package nginx

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/cache"
	cachememory "github.com/rabbet-fn/rabbet/runtime/cache/memory"
	"github.com/rabbet-fn/rabbet/runtime/cache/store"
	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/faas"
	"github.com/rabbet-fn/rabbet/runtime/ingress"
	"github.com/rabbet-fn/rabbet/runtime/memory"
)

type page struct {
	ID       string `json:"id"`
	Language string `json:"language,omitempty" header:"Accept-Language"`
}

type (
	edgePage   struct{ page }
	briefPage  struct{ page }
	stalePage  struct{ page }
	publicPage struct{ page }
	storedPage struct{ page }
	ownPage    struct{ page }
	plainPage  struct{ page }
	slowPage   struct{ page }
)

func (edgePage) RoutingKey() string   { return "edge" }
func (briefPage) RoutingKey() string  { return "brief" }
func (stalePage) RoutingKey() string  { return "stale" }
func (publicPage) RoutingKey() string { return "public" }
func (storedPage) RoutingKey() string { return "stored" }
func (ownPage) RoutingKey() string    { return "own" }
func (plainPage) RoutingKey() string  { return "plain" }
func (slowPage) RoutingKey() string   { return "slow" }

// How long NGINX may serve a result: longer than the test takes, or briefly.
const (
	long  = time.Hour
	brief = time.Second
)

// counting returns a function that answers how often it has run.
func counting[In contract.Message](runs *atomic.Int64) func(context.Context, *struct{}, In) (int64, error) {
	return func(context.Context, *struct{}, In) (int64, error) { return runs.Add(1), nil }
}

// TestEdgeCache runs the real NGINX, configured as in production, in front of
// the real ingress.
func TestEdgeCache(t *testing.T) {
	if testing.Short() {
		t.Skip("needs nginx")
	}
	var runs atomic.Int64
	var set faas.Set[struct{}]
	faas.OnRequest(&set, "edge", counting[edgePage](&runs), faas.HTTP("GET /edge/{id}"),
		contract.CachePolicy{TTL: 2 * long, Edge: long})
	faas.OnRequest(&set, "brief", counting[briefPage](&runs), faas.HTTP("GET /brief/{id}"),
		contract.CachePolicy{TTL: long, Tags: []string{"page:{id}"}, Edge: brief})
	faas.OnRequest(&set, "stale", counting[stalePage](&runs), faas.HTTP("GET /stale/{id}"),
		contract.CachePolicy{TTL: long, Tags: []string{"page:{id}"}, Edge: brief, StaleWhileRevalidate: long})
	faas.OnRequest(&set, "public", counting[publicPage](&runs), faas.HTTP("GET /public/{id}"),
		contract.CachePolicy{TTL: 2 * long, Edge: long, Public: true})
	faas.OnRequest(&set, "stored", counting[storedPage](&runs), faas.HTTP("GET /stored/{id}"), faas.Cached(long))
	faas.OnRequest(&set, "own", counting[ownPage](&runs), faas.HTTP("GET /own/{id}"),
		contract.CachePolicy{TTL: long, Identity: []string{"X-User"}})
	faas.OnRequest(&set, "plain", counting[plainPage](&runs), faas.HTTP("GET /plain/{id}"))
	begun, ended := make(chan struct{}), make(chan error, 1)
	faas.OnRequest(&set, "slow", func(ctx context.Context, _ *struct{}, _ slowPage) (int64, error) {
		close(begun)
		<-ctx.Done()
		ended <- ctx.Err()
		return 0, ctx.Err()
	}, faas.HTTP("GET /slow/{id}"))
	results, backend := startIngress(t, &set)
	n := &front{t: t, base: startNginx(t, backend, backend)}

	t.Run("serves what its function allows", func(t *testing.T) {
		n := n.in(t)
		first := n.get("/edge/1")
		if first.status != "Rabbet; fwd=uri-miss; stored" || first.call == "" || first.timing == "" {
			t.Fatalf("the first response: %+v", first)
		}
		second := n.get("/edge/1")
		if second.body != first.body || second.status != "Rabbet; fwd=uri-miss; stored, NGINX; hit" {
			t.Fatalf("the second response: %+v, want the first one's from NGINX", second)
		}
		if second.call == "" || second.call == first.call || second.timing != "" {
			t.Errorf("%+v tells of another request's call", second)
		}
	})
	t.Run("for as long as it allows", func(t *testing.T) {
		t.Parallel()
		n := n.in(t)
		first := n.get("/brief/1")
		if err := results.Invalidate(t.Context(), "page:1"); err != nil {
			t.Fatal(err)
		}
		n.eventually("the invalidation is seen", func() bool { return n.get("/brief/1").body != first.body })
	})
	t.Run("stale only while it asks, and for no longer than that", func(t *testing.T) {
		t.Parallel()
		n := n.in(t)
		n.eventually("a stale response", func() bool {
			return strings.HasSuffix(n.get("/stale/1").status, "NGINX; hit; detail=stale")
		})
		last := n.get("/stale/1")
		if err := results.Invalidate(t.Context(), "page:1"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2*brief + 3*brief/2) // both times pass without a request; NGINX counts whole seconds
		if late := n.get("/stale/1"); late.body == last.body {
			t.Errorf("%+v is older than the edge time and the stale time together", late)
		}
	})
	t.Run("keeps variants apart", func(t *testing.T) {
		n := n.in(t)
		de, en := n.get("/edge/2", "Accept-Language: de"), n.get("/edge/2", "Accept-Language: en")
		if again := n.get("/edge/2", "Accept-Language: de"); de.body == en.body || again.body != de.body {
			t.Errorf("de %s, en %s, de again %s", de.body, en.body, again.body)
		}
	})
	t.Run("answers conditions", func(t *testing.T) {
		t.Parallel()
		n := n.in(t)
		tag := n.get("/stored/3").etag
		if r := n.get("/stored/3", "If-None-Match: "+tag); r.code != 304 || r.etag != tag || r.body != "" || !strings.HasPrefix(r.status, "Rabbet; hit") {
			t.Errorf("a result that is stored in the ingress only: %+v, want a 304 of its own", r)
		}
		tag = n.get("/edge/4").etag
		if r := n.get("/edge/4", "If-None-Match: "+tag); r.code != 304 || !strings.HasSuffix(r.status, "NGINX; hit") {
			t.Errorf("a result of the edge: %+v, want a 304 of the edge", r)
		}
		if r := n.get("/edge/4", `If-Match: "other"`); r.code != 412 || !strings.Contains(r.body, `"status":412`) {
			t.Errorf("a result of the edge: %+v, want a 412 that says why", r)
		}
		if r := n.get("/edge/4", "If-Unmodified-Since: Wed, 01 Jan 2020 00:00:00 GMT"); r.code != 200 {
			t.Errorf("nothing here has a date: %+v, want a 200", r)
		}
		tag = n.get("/brief/4").etag
		n.eventually("the edge has forgotten it", func() bool {
			r := n.get("/brief/4", "If-None-Match: "+tag)
			if r.code != 304 {
				t.Fatalf("%+v, want a 304 from whoever has it", r)
			}
			return !strings.Contains(r.status, "NGINX")
		})
		if r := n.get("/brief/4"); r.code != 200 || r.body == "" {
			t.Errorf("%+v: the edge took a 304 for a response to everybody", r)
		}
	})
	for name, c := range map[string]struct {
		path   string
		fields []string
		runs   int64 // of three requests
	}{
		"nothing uncached":                    {"/plain/5", nil, 3},
		"nothing that is stored behind it":    {"/stored/5", nil, 1},
		"nothing of one's own":                {"/own/5", []string{"X-User: a"}, 1},
		"nothing with Authorization":          {"/edge/6", []string{"Authorization: Bearer x"}, 3},
		"nothing where the client says so":    {"/edge/7", []string{"Cache-Control: no-cache"}, 3},
		"nothing in the old words, either":    {"/edge/8", []string{"Pragma: no-cache"}, 3},
		"nothing public to who says who asks": {"/public/9", []string{"Authorization: Bearer x"}, 1},
		"no failures":                         {"/edge/10?unknown=1", nil, 0},
		"no paths that are not there":         {"/nothing", nil, 0},
	} {
		t.Run("serves "+name, func(t *testing.T) {
			n := n.in(t)
			before := runs.Load()
			for range 3 {
				if r := n.get(c.path, c.fields...); strings.Contains(r.status, "NGINX") || r.call == "" {
					t.Errorf("%+v came from the edge", r)
				}
			}
			if got := runs.Load() - before; got != c.runs {
				t.Errorf("%d runs, want %d", got, c.runs)
			}
		})
	}
	t.Run("a client with Authorization that leaves cancels its call", func(t *testing.T) {
		ctx, leave := context.WithCancel(t.Context())
		left := make(chan error, 1)
		go func() { // ends when the client leaves
			request, err := http.NewRequestWithContext(ctx, http.MethodGet, n.base+"/slow/12", nil)
			if err == nil {
				request.Header.Set("Authorization", "Bearer x")
				_, err = http.DefaultClient.Do(request)
			}
			left <- err
		}()
		<-begun
		leave()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v, want the client gone", err)
		}
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("the function's context ended with %v, want it cancelled", err)
		}
	})
	t.Run("a response to one with Authorization is for nobody else", func(t *testing.T) {
		n := n.in(t)
		n.get("/edge/11", "Authorization: Bearer x")
		if r := n.get("/edge/11"); r.status != "Rabbet; fwd=uri-miss; stored" {
			t.Errorf("%+v", r)
		}
	})
}

// startIngress serves set's functions over HTTP, with cached results, and
// returns the cache and the address.
func startIngress(t *testing.T, set *faas.Set[struct{}]) (*cache.Results, string) {
	t.Helper()
	fns, err := set.With(&struct{}{})
	if err != nil {
		t.Fatal(err)
	}
	broker := memory.New(memory.Config{})
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- broker.Serve(ctx, fns) }()
	store, err := cachememory.Open("memory://", store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	results, err := cache.New(store, cache.Config{})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(ingress.New(ingress.Config{Broker: broker, Results: results}))
	t.Cleanup(func() {
		server.Close()
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
		results.Close()
		broker.Close()
	})
	return results, server.Listener.Addr().String()
}

// startNginx runs NGINX in front of the ingresses at two addresses until the
// test ends. changes are pairs of what to replace in its configuration.
func startNginx(t *testing.T, ingress1, ingress2 string, changes ...string) (base string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "rabbet-nginx")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	site, err := filepath.Abs("site")
	if err != nil {
		t.Fatal(err)
	}
	template, err := os.ReadFile("nginx.conf.template")
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(changes); i += 2 {
		if !bytes.Contains(template, []byte(changes[i])) {
			t.Fatalf("the configuration does not say %q", changes[i])
		}
	}
	listen := freeAddr(t)
	config := strings.NewReplacer("${RABBET_NGINX_RUN}", dir, "${RABBET_NGINX_SITE}", site, "${RABBET_NGINX_LISTEN}", listen,
		"${RABBET_NGINX_INGRESS_1}", ingress1, "${RABBET_NGINX_INGRESS_2}", ingress2).Replace(string(template))
	config = strings.NewReplacer(changes...).Replace(config)
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	directives := "daemon off;"
	if os.Geteuid() == 0 {
		directives += " user root;" // another user may not have access to the folder
	}
	binary, err := exec.LookPath("nginx")
	if err != nil {
		binary = "/usr/sbin/nginx" // Debian's, not in every PATH
	}
	cmd := exec.Command(binary, "-e", "stderr", "-p", dir, "-c", file, "-g", directives)
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v: install it with scripts/stack need nginx-light=nginx", err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGQUIT)
		if err := cmd.Wait(); err != nil || t.Failed() {
			t.Logf("nginx ended with %v and wrote:\n%s", err, &log)
		}
	})
	n := &front{t: t, base: "http://" + listen}
	n.eventually("nginx answers", func() bool {
		r, err := http.Get(n.base + "/index.html")
		if err != nil {
			return false
		}
		r.Body.Close()
		return r.StatusCode == 200
	})
	return n.base
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// front sends requests to NGINX.
type front struct {
	t    *testing.T
	base string
}

func (n *front) in(t *testing.T) *front { return &front{t, n.base} }

type response struct {
	code                             int
	body, status, etag, call, timing string
}

func (n *front) get(path string, fields ...string) response {
	n.t.Helper()
	request, err := http.NewRequestWithContext(n.t.Context(), http.MethodGet, n.base+path, nil)
	if err != nil {
		n.t.Fatal(err)
	}
	for _, field := range fields {
		name, value, _ := strings.Cut(field, ": ")
		request.Header.Add(name, value)
	}
	r, err := http.DefaultClient.Do(request)
	if err != nil {
		n.t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	return response{
		r.StatusCode, string(body), strings.Join(r.Header["Cache-Status"], ", "),
		r.Header.Get("Etag"), r.Header.Get("X-Request-Id"), r.Header.Get("Server-Timing"),
	}
}

// eventually waits until what has happened.
func (n *front) eventually(what string, ok func() bool) {
	n.t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			n.t.Fatalf("%s: not within a minute", what)
		}
	}
}
