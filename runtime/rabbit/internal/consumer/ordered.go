package consumer

import (
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/topology"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/wire"
)

// An ordered function has one active consumer over all workers, with one delivery
// at a time. RabbitMQ activates the next consumer as soon as this one is canceled,
// even while this one still has a delivery. Therefore a worker that stops cancels
// its consumer only between the end of a run and its acknowledgement. A delivery
// that failed or was not started is requeued in its place when the channel is
// closed, before the next consumer receives anything.

// maxHold is the longest wait of an ordered event for its next attempt. RabbitMQ
// closes the channel when a delivery stays unacknowledged longer than
// consumer_timeout (30 minutes).
const maxHold = 15 * time.Minute

// failing is the event of an ordered function that failed last.
type failing struct {
	id    string
	since int64 // Unix milliseconds of its first failure here
}

// orderedAttempt returns the number of the next run of an event of an ordered
// function. Such an event waits for its retry at the head of its queue. The broker
// counts its deliveries, including those whose worker was lost.
func orderedAttempt(d *amqp.Delivery) int {
	return int(max(wire.Int(d.Headers, wire.HeaderAttempt), 1) + min(wire.Int(d.Headers, "x-delivery-count"), topology.DeliveryLimit))
}

// awaitRetry holds the event that failed, and so all events behind it, until its
// retry is due. Then it rejects the event, so that it returns to the head of its
// queue and the broker counts the delivery.
func (c *Consumer) awaitRetry(gone <-chan *amqp.Error, d *amqp.Delivery, e *contract.Event, decision *contract.Decision) {
	if c.failing.id != e.ID {
		c.failing = failing{e.ID, time.Now().UnixMilli()}
	}
	wait := time.NewTimer(min(decision.After, maxHold))
	defer wait.Stop()
	select {
	case <-wait.C:
		_ = d.Reject(true)
	case <-c.Stop: // the next consumer retries immediately
	case <-gone: //nolint:errcheck // the consumer that receives it now retries immediately
	}
}

// cancelIfStopping is called before the acknowledgement of a run. It cancels the
// consumer that delivered d; after a reconnect there may be another one, which must
// not be canceled.
func (c *Consumer) cancelIfStopping(ch *amqp.Channel, d *amqp.Delivery) {
	select {
	case <-c.Stop:
		_ = ch.Cancel(d.ConsumerTag, false)
	default:
	}
}
