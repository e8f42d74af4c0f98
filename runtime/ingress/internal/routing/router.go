// Package routing decides which handler serves a request. Its routes follow the
// directory of live functions. It does not know what the handlers do.
package routing

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// Config configures a Router. Hidden may be nil.
type Config struct {
	Directory func() *contract.Directory
	// Endpoints are the ingress's own routes by pattern, "/" among them.
	Endpoints map[string]Endpoint
	// Call returns the handler of a function's own route.
	Call func(*Function) http.Handler
	// Cached says that the ingress has a cache.
	Cached bool
	// Hidden reports whether a function must not be reachable over HTTP.
	Hidden func(*contract.Descriptor) bool
	// Document describes a table; Table.Document returns its result.
	Document func(*Table) []byte
	Log      *zap.Logger
}

// Endpoint serves a request that t has routed to it.
type Endpoint func(w http.ResponseWriter, r *http.Request, t *Table)

// Router holds the table for the current directory. New makes one.
type Router struct {
	cfg     Config
	current atomic.Pointer[version]
	mu      sync.Mutex // held while the next table is built
}

// version is a table, and a channel that is closed when the directory has changed
// since.
type version struct {
	*Table
	changed <-chan struct{}
}

// NewRouter returns a Router.
func NewRouter(cfg Config) *Router { return &Router{cfg: cfg} }

// Run keeps the table up to date until ctx is done. Without it, Table does so.
func (r *Router) Run(ctx context.Context) {
	for {
		select {
		case <-r.latest().changed:
		case <-ctx.Done():
			return
		}
	}
}

// Table returns the table for the directory as it is now.
func (r *Router) Table() *Table { return r.latest().Table }

func (r *Router) latest() *version {
	if v := r.current.Load(); v.isLatest() {
		return v
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	previous := r.current.Load()
	if previous.isLatest() { // another goroutine has built it
		return previous
	}
	directory := r.cfg.Directory()
	next := &version{changed: directory.Changed()} // before the list, so that no change is missed
	var table *Table
	if previous != nil {
		table = previous.Table
	}
	next.Table = newTable(&r.cfg, table, directory.Functions())
	r.current.Store(next)
	return next
}

func (v *version) isLatest() bool {
	if v == nil {
		return false
	}
	select {
	case <-v.changed:
		return false
	default:
		return true
	}
}
