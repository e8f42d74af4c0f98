package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

const defaultAdminAddr = "127.0.0.1:8081"

// workerHealth serves /livez and /readyz for a worker: it is ready once the
// broker and the database of what it hosts are, and others can know that it
// hosts that. Until then there is no host.
func workerHealth(b broker, process string, host *atomic.Pointer[hosting]) http.Handler {
	hosted := func(ctx context.Context) error {
		h := host.Load()
		if h == nil {
			return errNotHosting
		}
		list := b.Directory().Functions()
		for _, f := range h.functions {
			i := slices.IndexFunc(list, func(l contract.Live) bool { return l.Name == f.Name })
			if i < 0 || !slices.Contains(list[i].Workers, process) {
				return fmt.Errorf("function %q is not announced", f.Name)
			}
		}
		ctx, cancel := context.WithTimeout(ctx, pingPatience)
		defer cancel()
		return h.profiles.Ping(ctx)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("ok\n")) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if err := cmp.Or(b.Health(), hosted(r.Context())); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		w.Write([]byte("ok\n"))
	})
	return mux
}

var errNotHosting = errors.New("no function is hosted yet: the database is not open; the log says what is in the way")

// pingPatience is how long the database may take to answer a question for health.
const pingPatience = time.Second

// serveAdmin serves h at the admin address until stop is called. The default
// address is given up with a warning when another process has it; one that was
// asked for is not.
func serveAdmin(c *config, h http.Handler, log *zap.Logger) (stop func(), err error) {
	if c.AdminAddr == "none" {
		return func() {}, nil
	}
	var l net.Listener
	if c.AdminAddr != "" {
		if l, err = listen("ADMIN_ADDR", c.AdminAddr); err != nil {
			return nil, err
		}
	} else if l, err = net.Listen("tcp", defaultAdminAddr); err != nil {
		log.Warn("no admin page: "+defaultAdminAddr+" is taken; set "+envPrefix+"ADMIN_ADDR", zap.Error(err))
		return func() {}, nil
	}
	return serveHTTP(&http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}, l, log), nil
}

// serveHTTP serves in the background until stop is called, which gives
// requests under way a moment to finish.
func serveHTTP(s *http.Server, l net.Listener, log *zap.Logger) (stop func()) {
	done := make(chan struct{})
	go func() { // ends with the server
		defer close(done)
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			log.Error("HTTP server stopped", zap.Stringer("addr", l.Addr()), zap.Error(err))
		}
	}()
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if s.Shutdown(ctx) != nil {
			s.Close()
		}
		<-done
	}
}
