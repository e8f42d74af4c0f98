package rabbit

import (
	"context"
	"errors"
	"sync"

	"github.com/rabbet-fn/rabbet/runtime/faas"
)

// Serve hosts the functions until ctx is done, through any number of lost
// connections. Then it takes in no more, lets what runs finish within the grace
// period and gives the rest back to the broker, where no attempt is counted for
// it. It returns nil after a clean drain, else which functions did not finish.
func (b *Broker) Serve(ctx context.Context, fns []faas.Function) error {
	h := b.system.hosts()
	var serving sync.WaitGroup
	failures := make([]error, len(fns))
	for i, fn := range fns {
		serving.Go(func() { failures[i] = b.serve(ctx, fn, func() { b.system.add(h, fn.Descriptor) }) })
	}
	<-ctx.Done()
	b.system.leave(h) // first of all, so that callers look elsewhere
	serving.Wait()
	return errors.Join(failures...)
}

// serve hosts one function; live is told whenever it begins to consume.
func (b *Broker) serve(ctx context.Context, fn faas.Function, live func()) error {
	if fn.Kind == faas.KindRequest {
		return newResponder(b, fn, live).serve(ctx)
	}
	return newConsumer(b, fn, live).serve(ctx)
}
