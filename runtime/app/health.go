package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/app/internal/services"
	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// workerHealth tells whether a worker is ready: its broker is, its dependencies
// are, and other processes know what it hosts.
type workerHealth struct {
	broker  services.Broker
	process string

	mu        sync.Mutex
	waiting   error // why no function is hosted yet
	functions []contract.Function
	ready     func(context.Context) error // nil while no function is hosted
}

// waits sets the reason why no function is hosted yet.
func (h *workerHealth) waits(why error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.waiting = why
}

// hosts sets what the worker hosts, and what tells whether its dependencies work.
func (h *workerHealth) hosts(functions []contract.Function, ready func(context.Context) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.functions, h.ready = functions, ready
}

// readyTimeout is how long the dependencies may take to answer for a health check.
const readyTimeout = time.Second

// check returns why the worker is not ready.
func (h *workerHealth) check(ctx context.Context) error {
	if err := h.broker.Health(); err != nil {
		return err
	}
	h.mu.Lock()
	waiting, functions, ready := h.waiting, h.functions, h.ready
	h.mu.Unlock()
	if ready == nil {
		return fmt.Errorf("no function is hosted yet: %w", cmp.Or(waiting, errOpening))
	}
	list := h.broker.Directory().Functions()
	for _, f := range functions {
		i := slices.IndexFunc(list, func(l contract.Live) bool { return l.Name == f.Name })
		if i < 0 || !slices.Contains(list[i].Workers, h.process) {
			return fmt.Errorf("function %q is not announced", f.Name)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	return ready(ctx)
}

var errOpening = errors.New("their dependencies are being opened")

// handler serves /livez and /readyz.
func (h *workerHealth) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("ok\n")) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if err := h.check(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		w.Write([]byte("ok\n"))
	})
	return mux
}
