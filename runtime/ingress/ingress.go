// Package ingress is the contract over HTTP: it turns requests into calls and
// events, and replies and errors into responses that say what really happened.
//
// It learns its routes from the directory of live functions, and so needs no
// compiled-in list of them. It knows neither the broker nor the cache behind
// its two interfaces, and nothing of what the functions do.
package ingress

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// Broker is what the ingress needs of a broker.
type Broker interface {
	contract.Broker
	// Directory tells which functions are live.
	Directory() *contract.Directory
	// Tail hands copies of the events whose key fits pattern to fn until ctx is
	// done. It may drop some when fn is slow.
	Tail(ctx context.Context, pattern string, fn func(contract.Event)) error
	// Health returns nil, or what is wrong now in one sentence.
	Health() error
}

// Config says what an Ingress works with. Only Broker is needed.
type Config struct {
	Broker  Broker
	Results Results // serves cached results; nil: every call runs its function

	Sessions Sessions // of functions that say faas.UsesSession; nil: they are refused, 503
	Cookie   Cookie   // holds a session's token

	Hidden func(*contract.Descriptor) bool // says which functions are not for HTTP; nil: none

	MaxBody     int64 // bytes of a request body; 1 MiB, at most 8 MiB
	MaxURI      int   // bytes of path and query; 8 KiB
	MaxInFlight int   // calls and publishes at once, 503 above; 4096

	// TrustProxy are the networks whose X-Real-IP and X-Forwarded-For are
	// believed, for the log. None by default.
	TrustProxy []netip.Prefix
	// Log gets a line for each request: at warn for a 5xx, at info for a client
	// that went away, else at debug. nil: nobody reads.
	Log *zap.Logger
}

const (
	defaultMaxBody = 1 << 20
	limitMaxBody   = 8 << 20 // a broker's own limit (16 MiB since RabbitMQ 4.0) leaves room for a batch
	maxHeaders     = 256     // fields of a request
	maxTails       = 64      // live tails at once
)

// Ingress serves functions and events over HTTP. New makes one.
type Ingress struct {
	cfg      Config
	inFlight atomic.Int64
	tails    atomic.Int64

	draining  atomic.Bool
	drained   chan struct{} // closed by Draining
	drainOnce sync.Once

	routes   atomic.Pointer[routes]
	updating sync.Mutex // one builds the next routes, the others wait for them
}

var _ http.Handler = (*Ingress)(nil)

// New returns an Ingress. Its routes follow the broker's directory by
// themselves; see also Run.
func New(cfg Config) *Ingress {
	cfg.MaxBody = min(cmp.Or(cfg.MaxBody, defaultMaxBody), limitMaxBody)
	cfg.MaxURI = cmp.Or(cfg.MaxURI, 8<<10)
	cfg.MaxInFlight = cmp.Or(cfg.MaxInFlight, 4096)
	cfg.Cookie = cfg.Cookie.withDefaults()
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	return &Ingress{cfg: cfg, drained: make(chan struct{})}
}

// Run keeps the routes up to date until ctx is done. Without it they are
// brought up to date by the next request, which then pays for it, and two
// functions that claim one route between two requests are told apart by their
// names instead of by who came first.
func (i *Ingress) Run(ctx context.Context) {
	for {
		select {
		case <-i.current().changed:
		case <-ctx.Done():
			return
		}
	}
}

// Draining says that this process is about to stop: /readyz answers 503, each
// response closes its connection and live tails end. Requests are still served,
// so call it first and Server.Shutdown a moment later.
func (i *Ingress) Draining() {
	i.drainOnce.Do(func() {
		i.draining.Store(true)
		close(i.drained)
	})
}

// ServeHTTP serves one request.
func (i *Ingress) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := i.exchange(w, r)
	defer x.finish()
	if p := i.inspect(r); p != nil {
		x.fail(p)
		return
	}
	i.current().mux.ServeHTTP(x, r)
}

// exchange begins the response to r; finish ends it.
func (i *Ingress) exchange(w http.ResponseWriter, r *http.Request) *exchange {
	conn := clientConnOf(r)
	var x *exchange
	if conn != nil {
		conn.listener.solo.Busy(1)
		x = &conn.exchange
	} else {
		x = new(exchange)
	}
	*x = exchange{
		ResponseWriter: w, ingress: i, request: r, id: callID(r.Header), start: time.Now(),
		conn: conn, unwatched: conn != nil && conn.quick.Load(),
	}
	x.set("X-Request-Id", x.id)
	return x
}

// inspect refuses what no route could make sense of.
func (i *Ingress) inspect(r *http.Request) *problem {
	switch {
	case len(r.RequestURI) > i.cfg.MaxURI || len(r.URL.RawQuery) > i.cfg.MaxURI:
		return refuse(http.StatusRequestURITooLong, "path and query are longer than %d bytes", i.cfg.MaxURI)
	case len(r.Header) > maxHeaders:
		return refuse(http.StatusRequestHeaderFieldsTooLarge, "more than %d header fields", maxHeaders)
	case strings.IndexByte(r.URL.Path, 0) >= 0:
		return refuse(http.StatusBadRequest, "the path contains a NUL byte")
	case r.RequestURI == "*" || !strings.HasPrefix(r.URL.Path, "/"):
		return refuse(http.StatusBadRequest, "the request target is not a path")
	}
	return nil
}

// enter takes one of the places for calls and publishes; leave gives it back.
func (i *Ingress) enter() *problem {
	if i.inFlight.Add(1) <= int64(i.cfg.MaxInFlight) {
		return nil
	}
	i.leave()
	p := refuse(http.StatusServiceUnavailable, "the ingress is at its limit of %d requests at once", i.cfg.MaxInFlight)
	p.Executed, p.Retryable, p.after = contract.ExecutedNo, true, time.Second
	return p
}

func (i *Ingress) leave() { i.inFlight.Add(-1) }

// finish answers for a handler that panicked, and logs the exchange.
func (x *exchange) finish() {
	defer x.release()
	if p := recover(); p != nil {
		if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
			panic(p)
		}
		x.ingress.cfg.Log.Error("the ingress panicked", zap.Any("panic", p), zap.String("id", x.id), zap.ByteString("stack", debug.Stack()))
		if x.status == 0 {
			x.fail(refuse(http.StatusInternalServerError, "the ingress failed"))
		}
	}
	x.log()
}
