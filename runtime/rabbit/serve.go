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

// Serve hosts the functions until ctx is done, through any number of lost
// connections. Then it takes in no more, lets what runs finish within the grace
// period and gives the rest back to the broker, where no attempt is counted for
// it. It returns nil after a clean drain, else which functions did not finish.
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
	b.presence.Remove(h) // first of all, so that callers look elsewhere
	serving.Wait()
	return errors.Join(failures...)
}

// restore is called when an exchange of the namespace is found missing: with
// it went the bindings to it, of which nobody is told. So every worker is.
func (b *Broker) restore(ctx context.Context) {
	if b.names.Predeclared {
		b.log.Warn("an exchange is missing: 'rabbet topology apply' makes it again")
		return
	}
	if err := b.consume.Declare(ctx, b.names.Common().Declare); err != nil {
		b.log.Warn("an exchange is missing and cannot be declared again", zap.Error(err))
		return
	}
	b.log.Warn("an exchange was missing: it is declared again, and every worker is told to bind to it")
	if err := b.presence.Broadcast(presence.TopicDeclare, nil); err != nil {
		b.log.Warn("workers could not be told to declare again what they need", zap.Error(err))
	}
}

// keepDeclared declares again what fn needs, until ctx is done: whenever a
// process of the namespace asks for it, and every now and then, for the broker
// tells nobody when a binding is deleted. What it refuses is this process's
// problem until it is mended: the function may get nothing meanwhile.
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
			continue // a newer one knows better which keys it wants
		}
		err := b.declareAgain(ctx, fn)
		if refusal, ok := errors.AsType[*amqp.Error](err); err != nil && (!ok || !refusal.Server) {
			continue // what is wrong with the connection shows elsewhere
		}
		b.consume.SetProblem(user, err)
		if err == nil {
			last = ""
		} else if err.Error() != last { // the same trouble over and over is one line
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

// serve hosts one function; live is told whenever it begins to consume.
func (b *Broker) serve(ctx context.Context, fn contract.Function, live func()) error {
	if fn.Kind == contract.KindRequest {
		return responder.New(responder.Config{
			Names: b.names, Process: b.cfg.Process, Connection: b.work, Listen: b.presence.Listen,
			Grace: b.cfg.Grace, Observe: b.cfg.Observe, Log: b.log,
		}, fn, live).Serve(ctx)
	}
	return b.newConsumer(fn, live).Serve(ctx)
}

func (b *Broker) newConsumer(fn contract.Function, live func()) *consumer.Consumer {
	return consumer.New(consumer.Config{
		Names: b.names, Connection: b.consume, Publisher: b.publisher, Delays: b.delays, DeadLetters: b.deadLetters,
		Directory: &b.directory, Grace: b.cfg.Grace, CopyPace: b.cfg.copyPace, CopyPatience: b.cfg.copyPatience,
		Observe: b.cfg.Observe, Log: b.log,
	}, fn, live)
}
