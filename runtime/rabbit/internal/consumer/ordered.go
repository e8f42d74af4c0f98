package consumer

import (
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/topology"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/wire"
)

// An ordered function has one active consumer over all workers, with one
// delivery at a time. RabbitMQ makes the next consumer the active one as soon
// as this one is cancelled, whatever it still holds. So a worker that stops
// cancels its consumer only between the end of a run and its acknowledgement;
// what has failed, or was not begun, goes back when its channel ends, in its
// place, before the next consumer gets anything.

// maxHold is how long an event of an ordered function waits at most for
// its next attempt: the broker takes a worker that holds it for 30 minutes
// (consumer_timeout) for hung.
const maxHold = 15 * time.Minute

// failing is the event of an ordered function that failed last.
type failing struct {
	id    string
	since int64 // Unix milliseconds of its first failure here
}

// orderedAttempt is the number of the coming run of an event of an ordered
// function. Such an event waits for its retry where it stands, at the head of
// its queue, so the count is the broker's: runs that ended with their worker
// are in it.
func orderedAttempt(d *amqp.Delivery) int {
	return int(max(wire.Int(d.Headers, wire.HeaderAttempt), 1) + min(wire.Int(d.Headers, "x-delivery-count"), topology.DeliveryLimit))
}

// awaitRetry keeps the event that failed, and with it all behind it, for the
// time of v. Then it goes back to the head of its queue, and comes again: by
// reject, so that the broker counts it.
func (c *Consumer) awaitRetry(gone <-chan *amqp.Error, d *amqp.Delivery, e *contract.Event, v *contract.Decision) {
	if c.failing.id != e.ID {
		c.failing = failing{e.ID, time.Now().UnixMilli()}
	}
	wait := time.NewTimer(min(v.After, maxHold))
	defer wait.Stop()
	select {
	case <-wait.C:
		_ = d.Reject(true)
	case <-c.Stop: // who takes over tries at once
	case <-gone: //nolint:errcheck // whom the broker gave it meanwhile tries at once, too
	}
}

// cancelIfStopping is called before the acknowledgement of what has run. The consumer
// that it ends is the one that delivered it: a later one, after a lost
// connection, may hold the next.
func (c *Consumer) cancelIfStopping(ch *amqp.Channel, d *amqp.Delivery) {
	select {
	case <-c.Stop:
		_ = ch.Cancel(d.ConsumerTag, false)
	default:
	}
}
