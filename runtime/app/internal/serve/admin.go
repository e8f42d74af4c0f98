// Package serve runs the HTTP servers of a process: the ingress, and the admin
// server with its health checks. It knows when they start and stop, and nothing of
// what they answer.
package serve

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/app/internal/config"
)

// DefaultAdminAddr is where the admin server listens if ADMIN_ADDR is not set.
const DefaultAdminAddr = "127.0.0.1:8081"

// Listen opens a TCP listener at addr, the value of variable.
func Listen(variable, addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, config.Unusable(config.Prefix+variable, addr, "%v: choose a free port or stop what listens there", errors.Unwrap(err))
	}
	return l, nil
}

// Admin serves h at the admin address until stop is called. If another process has
// the default address, Admin logs a warning and goes on without; an address that
// was set must be free.
func Admin(c *config.Config, h http.Handler, log *zap.Logger) (stop func(), err error) {
	if c.AdminAddr == "none" {
		return func() {}, nil
	}
	var l net.Listener
	if c.AdminAddr != "" {
		if l, err = Listen("ADMIN_ADDR", c.AdminAddr); err != nil {
			return nil, err
		}
	} else if l, err = net.Listen("tcp", DefaultAdminAddr); err != nil {
		log.Warn("no admin page: "+DefaultAdminAddr+" is taken; set "+config.Prefix+"ADMIN_ADDR", zap.Error(err))
		return func() {}, nil
	}
	return HTTP(&http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}, l, log), nil
}

// HTTP runs s at l in the background until stop is called. stop gives requests in
// flight a second to finish.
func HTTP(s *http.Server, l net.Listener, log *zap.Logger) (stop func()) {
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
