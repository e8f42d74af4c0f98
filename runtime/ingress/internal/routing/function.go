package routing

import (
	"net/http"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/caching"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/message"
)

// Function is a live function, prepared for requests.
type Function struct {
	contract.Live
	Params  []string // names of the parameters of its own route's path
	Schema  message.Schema
	Cached  bool           // its results go through the cache
	Caching caching.Policy // if Cached
}

func newFunction(live contract.Live, cached bool) *Function {
	f := &Function{Live: live, Schema: message.ParseSchema(live.Input)}
	if f.Route != nil {
		f.Params = message.PathParams(f.Route.Path)
	}
	// A session belongs to one client, and sensitive results are never stored.
	f.Cached = cached && f.Cache != nil && !f.Session && !f.Sensitive
	if f.Cached {
		f.Caching = caching.NewPolicy(f.Cache, f.Schema.Headers())
	}
	return f
}

// SuccessStatus returns the status of a success. It is the route's, also if the
// function is called by name.
func (f *Function) SuccessStatus() int {
	if f.Route != nil && f.Route.Status != 0 {
		return f.Route.Status
	}
	return http.StatusOK
}
