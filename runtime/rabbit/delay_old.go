package rabbit

import (
	"context"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Earlier versions had other tiers (rabbet.delay.2s), which dead-letter to the
// direct exchange rabbet.due, and so to the queues of functions that were bound
// to it. Both stand as they were: what still waits there arrives as ever. Where
// the function's queue is gone, or was declared by this version and has no such
// binding, the exchange passes an event on to the queue rabbet.stranded. Events
// are moved from there like those that are due. Once all old tiers are empty the
// old exchanges and queues can be deleted: see infra/README.md.

// oldDueExchange is where the tiers of earlier versions lead to.
func (n names) oldDueExchange() string { return n.namespace + ".due" }

// oldUnroutedQueue has what the old exchange could not route.
func (n names) oldUnroutedQueue() string { return n.namespace + ".stranded" }

// oldLookup is how often the old queue is looked for: workers of an earlier
// version may still declare it.
const oldLookup = time.Minute

// consumeOld moves what comes to the old queue, if there is one, until ctx is done.
func (d *delays) consumeOld(ctx context.Context) {
	queue := d.b.names.oldUnroutedQueue()
	tick := time.NewTicker(oldLookup)
	defer tick.Stop()
	for {
		probe := amqp.Publishing{AppId: "rabbet", DeliveryMode: amqp.Persistent, Headers: amqp.Table{headerTarget: d.b.names.due()}}
		if d.sendProbe(ctx, queue, probe) == nil {
			if s := d.b.consume.next(ctx); s != nil {
				_ = d.b.consume.lend(ctx, s, "events of an earlier version", func(ctx context.Context, conn *amqp.Connection) error {
					return d.moveAll(ctx, conn, queue, topology{})
				})
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
