package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/cache"
	"github.com/rabbet-fn/rabbet/runtime/ingress"
	"github.com/rabbet-fn/rabbet/runtime/session"
	"github.com/rabbet-fn/rabbet/runtime/solo"
)

// ingressCommand turns HTTP requests into calls and events until it is told to stop.
type ingressCommand struct{}

// Run serves until ctx is done and the requests under way are answered.
func (ingressCommand) Run(ctx context.Context, c *config) error {
	log := newLog(c, "json")
	defer log.Sync()
	if err := c.refuseOwnCache(); err != nil {
		return err
	}
	httpListener, err := listen("HTTP_ADDR", c.HTTPAddr)
	if err != nil {
		return err
	}
	defer httpListener.Close()
	alone := oneProcessor()
	broker, err := openBroker(c, alone, log)
	if err != nil {
		return err
	}
	defer broker.Close()
	results, err := openCache(c, broker, "none", log)
	if err != nil {
		return err
	}
	if results != nil {
		defer results.Close()
	} else {
		log.Info("results are not cached: set " + envPrefix + "CACHE_URL, here and for the workers, to cache them")
	}
	sessions, err := openSessions(c, "", log)
	if err != nil {
		return err
	}
	if sessions != nil {
		defer sessions.Close()
	} else {
		log.Info("no sessions are kept: set " + envPrefix + "STATE_URL to serve functions that use them")
	}
	front := newIngress(c, broker, results, sessions, log)
	stopAdmin, err := serveAdmin(c, front.Admin(), log)
	if err != nil {
		return err
	}
	defer stopAdmin()
	readySoon(ctx, broker, log) // an ingress that does not know its functions yet would answer 404
	stop := serveIngress(front, httpListener, idlePatience, c.Grace, alone, log)
	log.Info("listening", zap.String("http", c.HTTPAddr))
	<-ctx.Done()
	stop()
	log.Info("stopped")
	return nil
}

func newIngress(c *config, b broker, results *cache.Results, sessions *session.Sessions, log *zap.Logger) *ingress.Ingress {
	proxies, _ := c.trustedProxies() // readConfig has tried them
	cfg := ingress.Config{Broker: b, Hidden: ofDev, Cookie: c.cookie(), TrustProxy: proxies, Log: log}
	if results != nil {
		cfg.Results = results
	}
	if sessions != nil {
		cfg.Sessions = sessions
	}
	return ingress.New(cfg)
}

// drainNotice is how long an ingress that is to stop still takes requests, so
// that who balances over several sees it leave, and clients with an open
// connection are told to close it.
const drainNotice = 500 * time.Millisecond

// idlePatience is how long an ingress that is to stop leaves idle connections
// open. NGINX closes its own sooner (keepalive_timeout in infra/nginx), so that
// it never sends a request over one that is closed here at that moment.
const idlePatience = 5 * time.Second

// serveIngress serves front at l in the background. stop says goodbye, leaves
// idle connections open for a while, lets requests under way finish within
// grace, and returns.
func serveIngress(front *ingress.Ingress, l net.Listener, idle, grace time.Duration, _ *solo.Switch, log *zap.Logger) (stop func()) {
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
