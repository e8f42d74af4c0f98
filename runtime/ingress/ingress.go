// Package ingress serves functions and events over HTTP. It turns requests into
// calls and events, and their outcomes into responses; README.md has the
// contract.
//
// It takes its routes from the directory of live functions and needs no
// compiled-in list of them. It knows the broker, the cache and the session store
// only through interfaces, and nothing of what the functions do.
package ingress

import (
	"cmp"
	"context"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/access"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/problem"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/routing"
)

// Broker is what the ingress needs of a broker.
type Broker interface {
	contract.Broker
	// Directory returns the directory of live functions.
	Directory() *contract.Directory
	// Tail calls fn with copies of the events whose key matches pattern, until
	// ctx is done. It may drop events while fn is slow.
	Tail(ctx context.Context, pattern string, fn func(contract.Event)) error
	// Health returns nil, or an error that says why the broker cannot be used.
	Health() error
}

// Config configures an Ingress. Only Broker is required.
type Config struct {
	Broker   Broker
	Results  Results  // serves results of cached functions; nil: every call runs its function
	Sessions Sessions // of functions that say faas.UsesSession; nil: they are refused with 503
	Cookie   Cookie   // holds a session's token

	// Hidden reports whether a function must not be reachable over HTTP. nil: none.
	Hidden func(*contract.Descriptor) bool

	// Use are middlewares around every request, the first one outermost. They run
	// after a request has got its id, and before its limits are checked. The access
	// log has what they respond, and their panics.
	Use []func(http.Handler) http.Handler

	MaxBody     int64 // bytes of a request body; 1 MiB, at most 8 MiB
	MaxURI      int   // bytes of path and query; 8 KiB
	MaxInFlight int   // calls and publishes in flight; 4096. Above, they are refused with 503

	// TrustProxy are the networks of proxies whose X-Real-IP and X-Forwarded-For
	// name the client in the log. Default: none.
	TrustProxy []netip.Prefix
	// Log gets a line for each request: at warn for a 5xx, at info for a client
	// that left before it got its response, else at debug. nil: no log.
	Log *zap.Logger
}

const (
	defaultMaxBody     = 1 << 20
	limitMaxBody       = 8 << 20 // RabbitMQ takes 16 MiB since 4.0; a message may carry several calls
	defaultMaxURI      = 8 << 10
	defaultMaxInFlight = 4096
)

// Ingress serves functions and events over HTTP. New makes one.
type Ingress struct {
	cfg      Config
	router   *routing.Router
	public   http.Handler
	admin    http.Handler
	inFlight limit // calls and publishes
	tails    limit

	draining  atomic.Bool
	drained   chan struct{} // closed by Draining
	drainOnce sync.Once
}

var _ http.Handler = (*Ingress)(nil)

// New returns an Ingress. See Run about its routes.
func New(cfg Config) *Ingress {
	cfg.MaxBody = min(cmp.Or(cfg.MaxBody, defaultMaxBody), limitMaxBody)
	cfg.MaxURI = cmp.Or(cfg.MaxURI, defaultMaxURI)
	cfg.Cookie = cfg.Cookie.withDefaults()
	cfg.Log = cmp.Or(cfg.Log, zap.NewNop())
	i := &Ingress{
		cfg:      cfg,
		inFlight: limit{max: int64(cmp.Or(cfg.MaxInFlight, defaultMaxInFlight))},
		tails:    limit{max: maxTails},
		drained:  make(chan struct{}),
	}
	i.router = i.newRouter()
	i.public = i.around(i.checkTarget(http.HandlerFunc(i.route)), cfg.Use)
	i.admin = i.around(i.newAdmin(), nil)
	return i
}

// around returns h with what goes around every request, from the outside in: the
// record of the request and the access log, the recovery from panics, a default
// for Cache-Control, and the middlewares.
func (i *Ingress) around(h http.Handler, middlewares []func(http.Handler) http.Handler) http.Handler {
	for _, m := range slices.Backward(middlewares) {
		h = m(h)
	}
	return access.Handler(problem.Recover(notStored(h), i.cfg.Log), access.Config{
		Log: i.cfg.Log, Client: i.clientOf, BeforeHeader: i.closeWhileDraining,
	})
}

// notStored makes responses that do not say otherwise uncacheable.
func notStored(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Cache-Control"] = []string{"no-store"}
		next.ServeHTTP(w, r)
	})
}

// ServeHTTP serves one request.
func (i *Ingress) ServeHTTP(w http.ResponseWriter, r *http.Request) { i.public.ServeHTTP(w, r) }

// Admin returns the handler of the admin address: /livez, and a /readyz that says
// what is wrong; the public one does not.
func (i *Ingress) Admin() http.Handler { return i.admin }

// Run keeps the routes up to date until ctx is done. Without it, the first request
// after a change updates them, which takes longer. Of two functions that have
// claimed one route since, the one whose name sorts first then gets it, instead of
// the one that came first.
func (i *Ingress) Run(ctx context.Context) { i.router.Run(ctx) }

// Draining announces that this process is about to stop: /readyz answers 503, each
// response closes its connection and live tails end. Requests are still served.
// Therefore call it first, and Server.Shutdown a moment later.
func (i *Ingress) Draining() {
	i.drainOnce.Do(func() {
		i.draining.Store(true)
		close(i.drained)
	})
}

// closeWhileDraining tells the client that the connection ends. It is called as
// late as possible, because a request may have begun long before Draining.
func (i *Ingress) closeWhileDraining(h http.Header) {
	if i.draining.Load() {
		h.Set("Connection", "close")
	}
}
