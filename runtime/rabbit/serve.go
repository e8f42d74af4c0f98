package rabbit

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/consumer"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/presence"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/responder"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/topology"
)

// Serve hosts the functions until ctx is done, across any number of reconnects.
// Then it accepts no further work, waits for runs within the grace period, and
// requeues the rest without counting an attempt. It returns nil after a clean
// drain, otherwise which functions did not finish.
func (b *Broker) Serve(ctx context.Context, fns []contract.Function) error {
	h := b.presence.Host()
	var serving sync.WaitGroup
	failures := make([]error, len(fns))
	if len(fns) > 0 {
		serving.Go(func() { b.delays.Serve(ctx) })
	}
	for i, fn := range fns {
		serving.Go(func() { b.keepDeclared(ctx, &fn.Descriptor) })
		serving.Go(func() { failures[i] = b.serve(ctx, fn, func() { b.presence.Add(h, fn.Descriptor) }) })
	}
	<-ctx.Done()
	b.presence.Remove(h) // first, so that callers use other workers
	serving.Wait()
	return errors.Join(failures...)
}

// declareMissing is called when an exchange of the namespace was found missing. Its
// bindings are gone as well, of which RabbitMQ notifies no client. Therefore all
// workers are told to declare again.
func (b *Broker) declareMissing(ctx context.Context) {
	if b.names.Predeclared {
		b.log.Warn("an exchange is missing: 'rabbet topology apply' declares it")
		return
	}
	if err := b.consume.Declare(ctx, b.names.Common().Declare); err != nil {
		b.log.Warn("an exchange is missing and cannot be declared again", zap.Error(err))
		return
	}
	b.log.Warn("declared a missing exchange, and told every worker to bind to it")
	if err := b.presence.Broadcast(presence.TopicDeclare, nil); err != nil {
		b.log.Warn("workers could not be told to declare again what they need", zap.Error(err))
	}
}

// keepDeclared declares what fn needs until ctx is done: when a process of the
// namespace asks for it, and at an interval, because RabbitMQ does not notify of
// deleted bindings. While a declaration is refused the process is unhealthy,
// because the function may receive nothing.
func (b *Broker) keepDeclared(ctx context.Context, fn *contract.Descriptor) {
	asked := make(chan struct{}, 1)
	defer b.Listen(presence.TopicDeclare, func([]byte) {
		select {
		case asked <- struct{}{}:
		default:
		}
	})()
	user := "declare " + fn.Name
	defer b.consume.SetProblem(user, nil)
	ticker := time.NewTicker(b.cfg.redeclareInterval)
	defer ticker.Stop()
	var last string
	for {
		select {
		case <-ctx.Done():
			return
		case <-asked:
		case <-ticker.C:
		}
		if live, ok := b.directory.Find(fn.Name); ok && live.Version != fn.Version {
			continue // another version is newer and may want other keys
		}
		err := b.declareAgain(ctx, fn)
		if refusal, ok := errors.AsType[*amqp.Error](err); err != nil && (!ok || !refusal.Server) {
			continue // a problem of the connection is reported elsewhere
		}
		b.consume.SetProblem(user, err)
		if err == nil {
			last = ""
		} else if err.Error() != last { // repeated errors are logged once
			last = err.Error()
			b.log.Warn("cannot declare again what a function needs", zap.String("function", fn.Name), zap.Error(err))
		}
	}
}

func (b *Broker) declareAgain(ctx context.Context, fn *contract.Descriptor) error {
	if err := b.consume.Declare(ctx, b.names.Common().Declare); err != nil {
		return err
	}
	if fn.Kind == contract.KindRequest {
		return b.consume.Declare(ctx, b.names.RequestFunction(fn).Declare)
	}
	source := cmp.Or(fn.Exchange, b.names.Events())
	if err := topology.DeclareSource(ctx, b.consume, b.names, source); err != nil {
		return err
	}
	if err := b.consume.Declare(ctx, b.names.EventFunction(fn, source).Declare); err != nil {
		return err
	}
	return topology.CheckSource(ctx, b.consume, b.names, fn)
}

// serve hosts one function. onConsuming is called whenever it begins to consume.
func (b *Broker) serve(ctx context.Context, fn contract.Function, onConsuming func()) error {
	if fn.Kind == contract.KindRequest {
		return responder.New(responder.Config{
			Names: b.names, Process: b.cfg.Process, Connection: b.work, Listen: b.presence.Listen,
			Grace: b.cfg.Grace, Observe: b.cfg.Observe, Log: b.log,
		}, fn, onConsuming).Serve(ctx)
	}
	return b.newConsumer(fn, onConsuming).Serve(ctx)
}

func (b *Broker) newConsumer(fn contract.Function, onConsuming func()) *consumer.Consumer {
	return consumer.New(consumer.Config{
		Names: b.names, Connection: b.consume, Publisher: b.publisher, Delays: b.delays, DeadLetters: b.deadLetters,
		Directory: &b.directory, Grace: b.cfg.Grace, CopyPace: b.cfg.copyPace, CopyPatience: b.cfg.copyPatience,
		Observe: b.cfg.Observe, Log: b.log,
	}, fn, onConsuming)
}
