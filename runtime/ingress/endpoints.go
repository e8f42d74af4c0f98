package ingress

import (
	"net/http"
	"strings"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/access"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/openapi"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/problem"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/routing"
)

// newRouter returns the router of the public address.
func (i *Ingress) newRouter() *routing.Router {
	return routing.NewRouter(routing.Config{
		Directory: i.cfg.Broker.Directory,
		Endpoints: map[string]routing.Endpoint{
			"POST /functions/{name}": i.serveCallByName,
			"POST /events/{key}":     i.servePublish,
			"POST /events":           i.serveCloudEvents,
			"GET /events":            i.serveTail,
			"GET /livez":             serveLivez,
			"GET /readyz":            i.serveReadyz,
			"GET /openapi.json":      serveOpenAPI,
			"/":                      i.serveNotFound,
		},
		Call: func(f *routing.Function) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { i.serveCall(w, r, f, f.Params) })
		},
		Cached:   i.cfg.Results != nil,
		Hidden:   i.cfg.Hidden,
		Document: i.describe,
		Log:      i.cfg.Log,
	})
}

// route passes r to its endpoint or function.
func (i *Ingress) route(w http.ResponseWriter, r *http.Request) { i.router.Table().ServeHTTP(w, r) }

// serveCallByName serves POST /functions/{name}.
func (i *Ingress) serveCallByName(w http.ResponseWriter, r *http.Request, t *routing.Table) {
	name := r.PathValue("name")
	f := t.Function(name)
	switch {
	case f == nil:
		problem.Write(w, r, i.unknown(t, "there is no function %q; /openapi.json lists all functions", access.Clip(name)))
	case f.Kind == contract.KindEvent:
		access.RecordOf(r.Context()).Function = f.Name
		problem.Write(w, r, problem.New(http.StatusNotFound,
			"%s reacts to events and cannot be called: publish one with POST /events/{routing key}; it listens to %s",
			f.Name, strings.Join(f.Keys, ", ")))
	default:
		i.serveCall(w, r, f, nil)
	}
}

// serveOpenAPI serves GET /openapi.json: the request functions that are known now.
func serveOpenAPI(w http.ResponseWriter, r *http.Request, t *routing.Table) {
	w.Header().Set("Cache-Control", "no-cache")
	writeJSON(w, r, http.StatusOK, t.Document())
}

func (i *Ingress) describe(t *routing.Table) []byte {
	var functions []openapi.Function
	for _, f := range t.Functions() {
		if f.Kind == contract.KindRequest {
			functions = append(functions, openapi.Function{Descriptor: &f.Descriptor, Routed: t.Routed(f.Name), Cached: f.Cached})
		}
	}
	return openapi.Document(functions, i.cfg.Cookie.Name)
}

// serveNotFound answers what no other route serves: with 404 or 405, or with the
// methods that OPTIONS asks for.
func (i *Ingress) serveNotFound(w http.ResponseWriter, r *http.Request, t *routing.Table) {
	methods := t.Methods(r)
	if len(methods) == 0 {
		problem.Write(w, r, i.unknown(t, "there is nothing at this path; /openapi.json lists all functions"))
		return
	}
	w.Header().Set("Allow", strings.Join(append(methods, http.MethodOptions), ", "))
	if r.Method == http.MethodOptions {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	problem.Write(w, r, problem.New(http.StatusMethodNotAllowed, "%s is not possible here", access.Clip(r.Method)))
}

// unknown returns the problem of a request for something that does not exist: a
// 404. If the ingress knows no function at all because the broker cannot be used,
// it is a 503.
func (i *Ingress) unknown(t *routing.Table, format string, a ...any) *problem.Problem {
	if err := i.cfg.Broker.Health(); err != nil && len(t.Functions()) == 0 {
		return problem.Unavailable(err, "the functions are not known yet: the broker cannot be used at present")
	}
	return problem.New(http.StatusNotFound, format, a...)
}

// writeJSON writes a response whose body is JSON.
func writeJSON(w http.ResponseWriter, r *http.Request, status int, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	access.WriteResponse(w, r, status, body)
}
