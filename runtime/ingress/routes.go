package ingress

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// routes is what the ingress serves as long as the directory does not change.
type routes struct {
	changed   <-chan struct{} // closed when the directory has moved on
	mux       *http.ServeMux
	functions map[string]*function // by name
	own       map[string]string    // pattern of each function's own route, by name
	refused   map[string]bool      // "name pattern" of routes that could not be served
	openAPI   func() []byte
}

// function is a live function, prepared for serving.
type function struct {
	contract.Live
	params  []string // names of the path's parameters
	input   shape
	cached  bool // its results go through Config.Results
	caching caching
}

// ServeHTTP calls the function through its own route.
func (f *function) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.(*exchange).call(f, f.params)
}

// own paths of the ingress; no function gets a route below them.
var reserved = []string{"functions", "events", "invocations", "livez", "readyz", "openapi.json", "asyncapi.json", "docs"}

// current returns the routes for the directory as it is now.
func (i *Ingress) current() *routes {
	t := i.routes.Load()
	if t != nil && !closed(t.changed) {
		return t
	}
	i.updating.Lock()
	defer i.updating.Unlock()
	if t = i.routes.Load(); t != nil && !closed(t.changed) {
		return t
	}
	directory := i.cfg.Broker.Directory()
	changed := directory.Changed() // before the list, so that no change falls between
	t = i.newRoutes(t, directory.Functions(), changed)
	i.routes.Store(t)
	return t
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// newRoutes builds the routes for a list of functions. Of two functions that
// want one route, the one that had it before keeps it, as long as a worker
// hosts it.
func (i *Ingress) newRoutes(before *routes, list []contract.Live, changed <-chan struct{}) *routes {
	t := &routes{
		changed: changed, mux: http.NewServeMux(),
		functions: make(map[string]*function, len(list)), own: map[string]string{}, refused: map[string]bool{},
	}
	if i.cfg.Hidden != nil {
		list = slices.DeleteFunc(slices.Clone(list), func(f contract.Live) bool { return i.cfg.Hidden(&f.Descriptor) })
	}
	t.openAPI = sync.OnceValue(func() []byte { return t.describe(list, i.cfg.Cookie.Name) })
	t.mount()

	var newcomers, gone []*function
	for _, live := range list {
		f := &function{Live: live, input: shapeOf(live.Input)}
		// A session is one client's, and what is sensitive lies around nowhere.
		if f.cached = f.Cache != nil && !f.Session && !f.Sensitive && i.cfg.Results != nil; f.cached {
			f.caching = cachingOf(f)
		}
		t.functions[f.Name] = f
		if f.Kind != contract.KindRequest || f.Route == nil {
			continue
		}
		f.params = pathParams(f.Route.Path)
		switch {
		case len(f.Workers) == 0:
			gone = append(gone, f)
		case before != nil && before.own[f.Name] == pattern(f.Route):
			i.mountOwn(t, before, f)
		default:
			newcomers = append(newcomers, f)
		}
	}
	for _, f := range append(newcomers, gone...) {
		i.mountOwn(t, before, f)
	}
	return t
}

// mount adds the routes that the ingress always has.
func (t *routes) mount() {
	handle := func(pattern string, serve func(x *exchange, t *routes)) {
		t.mux.HandleFunc(pattern, func(w http.ResponseWriter, _ *http.Request) { serve(w.(*exchange), t) })
	}
	handle("POST /functions/{name}", (*exchange).callByName)
	handle("POST /events/{key}", (*exchange).publish)
	handle("POST /events", (*exchange).publishCloudEvents)
	handle("GET /events", (*exchange).tail)
	handle("GET /livez", (*exchange).livez)
	handle("GET /readyz", (*exchange).readyz)
	handle("GET /openapi.json", (*exchange).openAPI)
	handle("/", (*exchange).notFound)
}

// mountOwn adds f's own route, or logs, once, why it cannot be served.
func (i *Ingress) mountOwn(t, before *routes, f *function) {
	p := pattern(f.Route)
	err := t.try(p, f)
	if err == nil {
		t.own[f.Name] = p
		return
	}
	if len(f.Workers) == 0 { // it has been replaced by one of another name
		return
	}
	t.refused[f.Name+" "+p] = true
	if before == nil || !before.refused[f.Name+" "+p] {
		if other := t.clashes(p); other != "" {
			err = fmt.Errorf("it clashes with %s of %s, which was there first", t.own[other], other)
		}
		i.cfg.Log.Warn("a route is not served: change it, unless the other function is about to go; meanwhile the function can be called by its name",
			zap.String("function", f.Name), zap.String("route", p), zap.Error(err))
	}
}

// clashes returns the name of the function whose route leaves no room for
// pattern; "" if there is none.
func (t *routes) clashes(pattern string) string {
	for name, own := range t.own {
		two := routes{mux: http.NewServeMux()}
		if two.try(own, http.NotFoundHandler()) == nil && two.try(pattern, http.NotFoundHandler()) != nil {
			return name
		}
	}
	return ""
}

// try mounts h, and returns ServeMux's panic about a clash or a pattern that
// makes no sense as an error: what a worker announces must not stop the ingress.
func (t *routes) try(pattern string, h http.Handler) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	method, path, _ := strings.Cut(pattern, " ")
	if !slices.Contains(methods, method) || !strings.HasPrefix(path, "/") {
		return fmt.Errorf("want one of %s and a path", strings.Join(methods, ", "))
	}
	first, _, _ := strings.Cut(path[1:], "/")
	if slices.Contains(reserved, first) {
		return fmt.Errorf("the ingress keeps /%s for itself", first)
	}
	t.mux.Handle(pattern, h)
	return nil
}

func pattern(r *contract.Route) string { return r.Method + " " + r.Path }

// pathParams are the names of a path's parameters, in order.
func pathParams(path string) []string {
	var names []string
	for segment := range strings.SplitSeq(path, "/") {
		name, found := strings.CutPrefix(segment, "{")
		if name = strings.TrimSuffix(strings.TrimSuffix(name, "}"), "..."); found && name != "$" {
			names = append(names, name)
		}
	}
	return names
}

// methods are what a route may have, in the order in which Allow lists them.
var methods = []string{
	http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete,
}

// notFound answers what no other route takes: 404, 405, or what OPTIONS asks.
func (x *exchange) notFound(t *routes) {
	allowed := t.allowed(x.request)
	switch {
	case len(allowed) == 0:
		x.unknown(t, "there is nothing at this path; /openapi.json lists what there is")
	case x.request.Method == http.MethodOptions:
		x.set("Allow", strings.Join(append(allowed, http.MethodOptions), ", "))
		x.WriteHeader(http.StatusNoContent)
	default:
		p := refuse(http.StatusMethodNotAllowed, "%s is not possible here", limited(x.request.Method))
		p.allow = strings.Join(append(allowed, http.MethodOptions), ", ")
		x.fail(p)
	}
}

// unknown answers 404. An ingress that has not heard of any function yet says so
// instead, while the broker keeps it from asking.
func (x *exchange) unknown(t *routes, format string, a ...any) {
	if err := x.ingress.cfg.Broker.Health(); err != nil && len(t.functions) == 0 {
		p := notReady("which functions there are is not known yet: the broker cannot be used at present")
		p.cause = err
		x.fail(p)
		return
	}
	x.fail(refuse(http.StatusNotFound, format, a...))
}

// allowed lists the methods for which the request's path leads somewhere.
func (t *routes) allowed(r *http.Request) []string {
	var allowed []string
	other := *r
	for _, m := range methods {
		other.Method = m
		if _, pattern := t.mux.Handler(&other); pattern != "/" && pattern != "" {
			allowed = append(allowed, m)
		}
	}
	return allowed
}
