package delay

import (
	"context"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/topology"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/wire"
)

// Earlier versions had other tiers (rabbet.delay.2s). Those dead-letter to the
// direct exchange rabbet.due, to which the queues of functions were bound. Both
// still exist and work where they were declared. If the queue of the function was
// deleted, or was declared by this version and has no such binding, the exchange
// routes an event to the queue rabbet.stranded. Events are moved from there like
// due events. Once all old tiers are empty, the old exchanges and queues can be
// deleted: see infra/README.md.

// oldLookup is how often the old queue is looked up. Workers of an earlier version
// may still declare it.
const oldLookup = time.Minute

// consumeOld moves messages of the old queue, if it exists, until ctx is done.
func (d *Delays) consumeOld(ctx context.Context) {
	queue := d.cfg.Names.OldUnroutedQueue()
	tick := time.NewTicker(oldLookup)
	defer tick.Stop()
	for {
		probe := amqp.Publishing{AppId: "rabbet", DeliveryMode: amqp.Persistent, Headers: amqp.Table{wire.HeaderTarget: d.cfg.Names.Due()}}
		if d.sendProbe(ctx, queue, probe) == nil {
			if s := d.cfg.Consume.Await(ctx); s != nil {
				_ = d.cfg.Consume.UseOn(ctx, s, "events of an earlier version", func(ctx context.Context, conn *amqp.Connection) error {
					return d.moveAll(ctx, conn, queue, topology.Part{})
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
