package app

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/rabbet-fn/rabbet/runtime/app/internal/config"
	"github.com/rabbet-fn/rabbet/runtime/app/internal/devstate"
	"github.com/rabbet-fn/rabbet/runtime/app/internal/logs"
	"github.com/rabbet-fn/rabbet/runtime/app/internal/serve"
	"github.com/rabbet-fn/rabbet/runtime/app/internal/services"
	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/faas"
	"github.com/rabbet-fn/rabbet/runtime/inbox/store"
)

// workerCommand hosts functions over the broker until it is told to stop.
type workerCommand struct {
	Attached    bool   `hidden:"" help:"Part of 'rabbet dev': stop when standard input ends."`
	MailCatcher string `hidden:"" help:"SMTP URL of the mail catcher of 'rabbet dev'."`
}

// Run hosts until ctx is done and everything in flight has finished.
func (cmd workerCommand) Run(ctx context.Context, c *config.Config, p *program) error {
	format, progress := "json", zapcore.InfoLevel
	if cmd.Attached {
		format, progress = "console", zapcore.DebugLevel // 'rabbet dev' prints it
		signal.Ignore(os.Interrupt)                      // Ctrl-C is for 'rabbet dev', which still has requests to answer
		ctx = untilStdinEnds(ctx)
	}
	log := logs.New(c, format)
	defer log.Sync()
	if !cmd.Attached {
		if err := c.RefuseOwnCache(); err != nil {
			return err
		}
	}
	broker, err := services.OpenBroker(c, log)
	if err != nil {
		return err
	}
	defer broker.Close()
	bus, results, err := cmd.openResults(c, broker, log)
	if err != nil {
		return err
	}
	defer results.Close()

	health := &workerHealth{broker: broker, process: c.Process}
	stopAdmin, err := serve.Admin(c, health.handler(), log)
	if err != nil {
		return err
	}
	defer stopAdmin()
	host := Host{
		Bus: bus, Broker: broker, Results: results, Log: log,
		Dir: c.DevDir(), Dev: cmd.Attached, MailCatcher: cmd.MailCatcher,
	}
	hosted, err := p.openWhenAvailable(ctx, c, host, health)
	if err != nil {
		return err
	}
	defer hosted.close() //nolint:errcheck // the functions have finished
	var fallback store.Store
	if c.Embedded() {
		fallback = devstate.RemoteInbox(bus)
	}
	functions, closeInbox, err := services.WrapOnce(ctx, c, fallback, hosted.functions, log)
	if err != nil {
		return err
	}
	defer closeInbox() //nolint:errcheck // the functions have finished
	if len(functions) == 0 {
		return errors.New("there is no function to host: add one to functions/ (the README shows how)")
	}
	health.hosts(functions, hosted.ready)
	services.AwaitBroker(ctx, broker, log)
	for _, f := range functions {
		log.Log(progress, "hosting", zap.String("function", f.Name), zap.Strings("keys", f.Keys), zap.Int("concurrency", f.Concurrency))
	}
	stopRun := background(hosted.run)
	err = broker.Serve(ctx, functions)
	stopRun() // last, so that it sees what the last functions have done
	log.Log(progress, "stopped")
	return err
}

// untilStdinEnds returns a context that ends with ctx and with standard input,
// which 'rabbet dev' holds open for as long as it lives.
func untilStdinEnds(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	go func() { // ends with the process at the other end
		io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	return ctx
}

// openResults returns the cached results, and a bus whose calls use them.
func (cmd workerCommand) openResults(c *config.Config, broker services.Broker, log *zap.Logger) (faas.Bus, devstate.Results, error) {
	bus := faas.NewBus(broker)
	if cmd.Attached && (c.Embedded() || c.DevCache()) {
		return bus, devstate.RemoteResults(bus), nil
	}
	results, err := services.OpenCache(c, broker, "none", log)
	if err != nil {
		return nil, nil, err
	}
	if results == nil {
		log.Info("results are not cached: set " + config.Prefix + "CACHE_URL, here and for the ingress, to cache them")
		return bus, devstate.NoResults{}, nil
	}
	return faas.NewBus(results.Broker(broker, broker.Directory())), results, nil
}

// errStopped says that the process was told to stop before it hosted anything.
var errStopped = errors.New("stopped")

// openPause is the time between attempts to open the dependencies.
const openPause = 2 * time.Second

// openWhenAvailable opens the dependencies. While they are unavailable it waits,
// without a limit: a worker that exited would be away for as long as its supervisor
// waits, after the database is back.
func (p *program) openWhenAvailable(ctx context.Context, c *config.Config, host Host, health *workerHealth) (*opened, error) {
	var last string
	for {
		hosted, err := p.open(ctx, host, c.Functions)
		switch {
		case err == nil:
			return hosted, nil
		case ctx.Err() != nil:
			return nil, errStopped
		case !errors.Is(err, contract.ErrUnavailable):
			return nil, err
		}
		health.waits(err)
		if err.Error() != last { // a repeated error is logged once
			last = err.Error()
			host.Log.Warn("no function is hosted yet: trying again", zap.Error(err))
		}
		select {
		case <-ctx.Done():
		case <-time.After(openPause):
		}
	}
}

// background calls run until stop is called. stop returns after run has.
func background(run func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { // ends when stop is called
		defer close(done)
		run(ctx)
	}()
	return func() { cancel(); <-done }
}
