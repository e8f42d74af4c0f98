package main

import (
	"context"
	"os"
	"runtime/debug"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/faas"
	"github.com/rabbet-fn/rabbet/runtime/invocationlog"
	"github.com/rabbet-fn/rabbet/runtime/rabbit"
)

// echo is what both sides answer with.
type echo struct {
	ID    string `json:"id"`
	Pause int    `json:"pause,omitempty"` // ms before the answer
}

// RoutingKey makes echo a message.
func (echo) RoutingKey() string { return "bench.echo" }

// putEcho is the same by a function that may write.
type putEcho echo

// RoutingKey makes putEcho a message.
func (putEcho) RoutingKey() string { return "bench.put" }

// cachedEcho is the same with a result that is cached.
type cachedEcho echo

// RoutingKey makes cachedEcho a message.
func (cachedEcho) RoutingKey() string { return "bench.cached" }

type noDeps struct{}

var echoes faas.Set[noDeps]

func init() {
	faas.OnRequest(&echoes, "bench-echo", func(_ context.Context, _ *noDeps, in echo) (echo, error) {
		if in.Pause > 0 {
			time.Sleep(time.Duration(in.Pause) * time.Millisecond)
		}
		return echo{ID: in.ID}, nil
	},
		faas.HTTP("GET /echo/{id}"), faas.Concurrency(1024))
	faas.OnRequest(&echoes, "bench-put", func(_ context.Context, _ *noDeps, in putEcho) (putEcho, error) { return in, nil },
		faas.HTTP("PUT /echo/{id}"), faas.Concurrency(1024))
	faas.OnRequest(&echoes, "bench-cached", func(_ context.Context, _ *noDeps, in cachedEcho) (cachedEcho, error) { return in, nil },
		faas.HTTP("GET /cached/{id}"), faas.Cached(time.Hour, "echo:{id}"))
}

// rabbetWorker hosts the echoes as `rabbet worker` hosts functions: with a log
// line for each run.
func rabbetWorker(ctx context.Context) error {
	debug.SetGCPercent(400) // as runtime/app does
	log, observe := productionLog()
	defer log.Sync()
	broker, err := rabbit.Open(rabbit.Config{URL: os.Getenv("RABBET_BROKER_URL"), Namespace: os.Getenv("RABBET_NAMESPACE"), Observe: observe, Log: log})
	if err != nil {
		return err
	}
	defer broker.Close()
	fns, err := echoes.With(&noDeps{})
	if err != nil {
		return err
	}
	return broker.Serve(ctx, fns)
}

// productionLog logs as runtime/app does.
func productionLog() (*zap.Logger, contract.Observer) {
	sink := &zapcore.BufferedWriteSyncer{WS: os.Stderr, FlushInterval: 250 * time.Millisecond, Size: 16 << 10}
	encoding := zap.NewProductionEncoderConfig()
	encoding.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	log := zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(encoding), sink, zapcore.InfoLevel))
	return log, invocationlog.Observer(log)
}
