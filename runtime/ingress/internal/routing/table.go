package routing

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// Table is what an ingress serves as long as the directory does not change.
type Table struct {
	mux       *http.ServeMux
	functions map[string]*Function // by name
	live      []*Function          // in the order of the directory
	own       map[string]string    // pattern of each function's own route, by name
	refused   map[string]bool      // "name pattern" of routes that cannot be served
	document  func() []byte        // calls Config.Document once
}

// ServeHTTP passes r to the handler of its route.
func (t *Table) ServeHTTP(w http.ResponseWriter, r *http.Request) { t.mux.ServeHTTP(w, r) }

// Function returns the function of that name; nil if there is none.
func (t *Table) Function(name string) *Function { return t.functions[name] }

// Functions returns all functions. The caller must not change the slice.
func (t *Table) Functions() []*Function { return t.live }

// Routed reports whether the function of that name is served at its own route.
func (t *Table) Routed(name string) bool { return t.own[name] != "" }

// Document returns what Config.Document makes of the table.
func (t *Table) Document() []byte { return t.document() }

// Methods returns the methods for which the path of r leads to a handler other
// than that of "/", in the order in which Allow lists them.
func (t *Table) Methods(r *http.Request) []string {
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

// methods are those that a route may have.
var methods = []string{
	http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete,
}

// reserved are the first segments of the ingress's own paths; no function gets a
// route below them. Some are for later use.
var reserved = []string{"functions", "events", "invocations", "livez", "readyz", "openapi.json", "asyncapi.json", "docs"}

// newTable builds the table for a list of functions. If two functions claim one
// route, the one that had it in previous keeps it, as long as a worker hosts it.
func newTable(cfg *Config, previous *Table, list []contract.Live) *Table {
	t := &Table{
		mux: http.NewServeMux(), functions: make(map[string]*Function, len(list)),
		own: map[string]string{}, refused: map[string]bool{},
	}
	t.document = sync.OnceValue(func() []byte { return cfg.Document(t) })
	for pattern, serve := range cfg.Endpoints {
		t.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { serve(w, r, t) })
	}
	var kept, added, unhosted []*Function
	for _, live := range list {
		if cfg.Hidden != nil && cfg.Hidden(&live.Descriptor) {
			continue
		}
		f := newFunction(live, cfg.Cached)
		t.functions[f.Name] = f
		t.live = append(t.live, f)
		switch {
		case f.Kind != contract.KindRequest || f.Route == nil:
		case len(f.Workers) == 0:
			unhosted = append(unhosted, f)
		case previous != nil && previous.own[f.Name] == patternOf(f.Route):
			kept = append(kept, f)
		default:
			added = append(added, f)
		}
	}
	for _, f := range slices.Concat(kept, added, unhosted) {
		t.addOwn(cfg, previous, f)
	}
	return t
}

func patternOf(r *contract.Route) string { return r.Method + " " + r.Path }

// addOwn adds f's own route, or logs why it cannot be served, unless previous has
// that already.
func (t *Table) addOwn(cfg *Config, previous *Table, f *Function) {
	pattern := patternOf(f.Route)
	err := t.add(pattern, cfg.Call(f))
	if err == nil {
		t.own[f.Name] = pattern
		return
	}
	if len(f.Workers) == 0 { // it was replaced by a function of another name
		return
	}
	refusal := f.Name + " " + pattern
	t.refused[refusal] = true
	if previous != nil && previous.refused[refusal] {
		return
	}
	if other := t.conflicting(pattern); other != "" {
		err = fmt.Errorf("it clashes with %s of %s, which was there first", t.own[other], other)
	}
	cfg.Log.Warn("a route is not served: change it, unless the other function is about to be removed; until then the function can be called by its name",
		zap.String("function", f.Name), zap.String("route", pattern), zap.Error(err))
}

// add adds h. It returns ServeMux's panic about a conflict or a malformed pattern
// as an error: what a worker announces must not stop the ingress.
func (t *Table) add(pattern string, h http.Handler) (err error) {
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

// conflicting returns the name of the function whose route excludes pattern; ""
// if there is none.
func (t *Table) conflicting(pattern string) string {
	for name, own := range t.own {
		two := Table{mux: http.NewServeMux()}
		if two.add(own, http.NotFoundHandler()) == nil && two.add(pattern, http.NotFoundHandler()) != nil {
			return name
		}
	}
	return ""
}
