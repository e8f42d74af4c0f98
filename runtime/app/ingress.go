package app

import (
	"context"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/app/internal/config"
	"github.com/rabbet-fn/rabbet/runtime/app/internal/logs"
	"github.com/rabbet-fn/rabbet/runtime/app/internal/serve"
	"github.com/rabbet-fn/rabbet/runtime/app/internal/services"
)

// ingressCommand turns HTTP requests into calls and events until it is told to stop.
type ingressCommand struct{}

// Run serves until ctx is done and the requests in flight are answered.
func (ingressCommand) Run(ctx context.Context, c *config.Config) error {
	log := logs.New(c, "json")
	defer log.Sync()
	if err := c.RefuseOwnCache(); err != nil {
		return err
	}
	listener, err := serve.Listen("HTTP_ADDR", c.HTTPAddr)
	if err != nil {
		return err
	}
	defer listener.Close()
	broker, err := services.OpenBroker(c, log)
	if err != nil {
		return err
	}
	defer broker.Close()
	results, err := services.OpenCache(c, broker, "none", log)
	if err != nil {
		return err
	}
	if results != nil {
		defer results.Close()
	} else {
		log.Info("results are not cached: set " + config.Prefix + "CACHE_URL, here and for the workers, to cache them")
	}
	sessions, err := services.OpenSessions(c, log)
	if err != nil {
		return err
	}
	if sessions != nil {
		defer sessions.Close()
	} else {
		log.Info("no sessions are kept: set " + config.Prefix + "STATE_URL to serve functions that use them")
	}
	front := serve.NewIngress(c, broker, results, sessions, log)
	stopAdmin, err := serve.Admin(c, front.Admin(), log)
	if err != nil {
		return err
	}
	defer stopAdmin()
	services.AwaitBroker(ctx, broker, log) // before it knows the functions, an ingress answers 404
	stop := serve.Ingress(front, listener, serve.IdlePatience, c.Grace, log)
	log.Info("listening", zap.String("http", c.HTTPAddr))
	<-ctx.Done()
	stop()
	log.Info("stopped")
	return nil
}
