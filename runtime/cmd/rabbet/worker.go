package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"sync/atomic"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/rabbet-fn/rabbet/functions"
	"github.com/rabbet-fn/rabbet/runtime/faas"
	"github.com/rabbet-fn/rabbet/runtime/inbox"
	"github.com/rabbet-fn/rabbet/runtime/solo"
)

// workerCommand hosts functions over the broker until it is told to stop.
type workerCommand struct {
	Attached bool `hidden:"" help:"Stop when standard input ends: the dev process that started it is gone."`
}

// Run hosts until ctx is done and everything under way has finished.
func (w workerCommand) Run(ctx context.Context, c *config) error {
	format, progress := "json", zapcore.InfoLevel
	var alone *solo.Switch
	if w.Attached {
		format, progress = "console", zapcore.DebugLevel // the dev process tells it
		signal.Ignore(os.Interrupt)                      // Ctrl-C is for that process, which still has requests to answer
		var gone context.CancelFunc
		ctx, gone = context.WithCancel(ctx)
		go func() { // ends with the process that holds the other end
			io.Copy(io.Discard, os.Stdin)
			gone()
		}()
	}
	log := newLog(c, format)
	defer log.Sync()
	if !w.Attached {
		alone = oneProcessor()
		if err := c.refuseOwnCache(); err != nil {
			return err
		}
	}
	broker, err := openBroker(c, alone, log)
	if err != nil {
		return err
	}
	defer broker.Close()

	bus := faas.NewBus(broker)
	var results functions.Results = nothingCached{}
	if w.Attached && (c.embedded() || c.devCache()) {
		results = remoteResults{bus} // those of the dev process
	} else if shared, err := openCache(c, broker, "none", log); err != nil {
		return err
	} else if shared != nil {
		defer shared.Close()
		results = shared
		bus = faas.NewBus(shared.Broker(broker, broker.Directory()))
	} else {
		log.Info("results are not cached: set " + envPrefix + "CACHE_URL, here and for the ingress, to cache them")
	}
	var memory inbox.Store
	if c.embedded() {
		memory = remoteInbox{bus}
	}
	var health atomic.Pointer[hosting]
	stopAdmin, err := serveAdmin(c, workerHealth(broker, c.Process, &health), log)
	if err != nil {
		return err
	}
	defer stopAdmin()
	host, err := openHosting(ctx, c, bus, results, memory, log)
	if err != nil {
		return err
	}
	defer host.Close()
	health.Store(host)
	if len(host.functions) == 0 {
		return errors.New("there is no function to host: add one to functions/ (the README shows how)")
	}
	readySoon(ctx, broker, log)
	for _, f := range host.functions {
		log.Log(progress, "hosting", zap.String("function", f.Name), zap.Strings("keys", f.Keys), zap.Int("concurrency", f.Concurrency))
	}
	stopRelay := relay(host.profiles.Outbox(), broker, log)
	err = broker.Serve(ctx, host.functions)
	stopRelay() // what the last runs have stored goes out first
	log.Log(progress, "stopped")
	return err
}
