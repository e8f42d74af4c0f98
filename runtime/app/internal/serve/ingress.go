package serve

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/app/internal/config"
	"github.com/rabbet-fn/rabbet/runtime/app/internal/services"
	"github.com/rabbet-fn/rabbet/runtime/cache"
	"github.com/rabbet-fn/rabbet/runtime/ingress"
	"github.com/rabbet-fn/rabbet/runtime/session"
)

// NewIngress returns an ingress over b. results and sessions may be nil: then
// nothing is cached, and functions that use sessions are not served.
func NewIngress(c *config.Config, b services.Broker, results *cache.Results, sessions *session.Sessions, log *zap.Logger) *ingress.Ingress {
	proxies, _ := c.Proxies() // config.Read has checked them
	cfg := ingress.Config{Broker: b, Hidden: config.OfDev, Cookie: Cookie(c), TrustProxy: proxies, Log: log}
	if results != nil {
		cfg.Results = results
	}
	if sessions != nil {
		cfg.Sessions = sessions
	}
	return ingress.New(cfg)
}

// Cookie returns the cookie that holds a session's token.
func Cookie(c *config.Config) ingress.Cookie {
	return ingress.Cookie{Name: c.SessionCookie, Insecure: c.SessionSecure != nil && !*c.SessionSecure}
}

// drainNotice is how long an ingress still accepts requests after it was told to
// stop. In this time load balancers notice that it is no longer ready, and clients
// with an open connection are told to close it.
const drainNotice = 500 * time.Millisecond

// IdlePatience is how long an ingress that stops leaves idle connections open.
// NGINX closes its own sooner (keepalive_timeout in infra/nginx), so that it never
// sends a request over a connection that is closed here at that moment.
const IdlePatience = 5 * time.Second

// Ingress serves front at l in the background. stop announces the end, leaves idle
// connections open for idle, lets requests in flight finish within grace, and
// returns.
func Ingress(front *ingress.Ingress, l net.Listener, idle, grace time.Duration, log *zap.Logger) (stop func()) {
	server := ingress.NewServer(front, log)
	server.Patience = idle
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan struct{})
	go func() { // ends with the server
		defer close(served)
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			log.Error("HTTP server stopped", zap.Error(err))
		}
	}()
	routed := make(chan struct{})
	go func() { // ends when stop is called
		defer close(routed)
		front.Run(ctx)
	}()
	return func() {
		waited, done := context.WithTimeout(context.Background(), grace)
		defer done()
		front.Draining()
		time.Sleep(min(drainNotice, grace))
		if server.Shutdown(waited) != nil {
			server.Close()
		}
		cancel()
		<-served
		<-routed
	}
}
