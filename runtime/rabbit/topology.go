package rabbit

import (
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rabbet-fn/rabbet/runtime/faas"
)

const (
	requestQueueExpiry = 60 * time.Second // a request queue outlives its last worker by this
	requestQueueLength = 10_000
	eventQueueLength   = 1_000_000
	deliveryLimit      = 20 // deliveries that may end with the worker's death
)

// names are what exchanges and queues of one namespace are called.
type names string

func (n names) requests() string              { return string(n) + ".requests" }
func (n names) events() string                { return string(n) + ".events" }
func (n names) dead() string                  { return string(n) + ".dead" }
func (n names) system() string                { return string(n) + ".system" }
func (n names) requestQueue(fn string) string { return string(n) + ".request." + fn }
func (n names) eventQueue(fn string) string   { return string(n) + ".event." + fn }
func (n names) deadQueue(fn string) string    { return string(n) + ".dead." + fn }
func (n names) delay(tier string) string      { return string(n) + ".delay." + tier }

// declareExchanges declares what every process needs.
func declareExchanges(ch *amqp.Channel, n names) error {
	for name, kind := range map[string]string{
		n.requests(): amqp.ExchangeDirect,
		n.events():   amqp.ExchangeTopic,
		n.dead():     amqp.ExchangeDirect,
		n.system():   amqp.ExchangeTopic,
	} {
		if err := declareExchange(ch, name, kind); err != nil {
			return err
		}
	}
	return nil
}

func declareExchange(ch *amqp.Channel, name, kind string) error {
	if err := ch.ExchangeDeclare(name, kind, true, false, false, false, nil); err != nil {
		return explainDeclare(fmt.Sprintf("exchange %q", name), err)
	}
	return nil
}

// declareRequestQueue declares the queue of a request function and binds its
// key. It is a classic queue of transient messages: a call does not outlive
// its caller.
func declareRequestQueue(ch *amqp.Channel, n names, d *faas.Descriptor) error {
	queue := n.requestQueue(d.Name)
	if err := declareQueue(ch, queue, amqp.Table{
		"x-queue-type":           "classic",
		"x-expires":              requestQueueExpiry.Milliseconds(),
		"x-max-length":           int64(requestQueueLength),
		"x-overflow":             "reject-publish",
		"x-dead-letter-exchange": n.expired(), // see forwardExpired
	}); err != nil {
		return err
	}
	return bindQueue(ch, queue, d.Keys[0], n.requests())
}

// declareEventQueue declares the queue of an event function, and the dead
// letters it may come to. The bindings are bindEvents's.
func declareEventQueue(ch *amqp.Channel, n names, d *faas.Descriptor) error {
	if err := declareDeadQueue(ch, n, d.Name); err != nil {
		return err
	}
	arguments := amqp.Table{
		"x-queue-type":              "quorum",
		"x-delivery-limit":          int64(deliveryLimit),
		"x-max-length":              int64(eventQueueLength),
		"x-overflow":                "reject-publish", // at-least-once dead-lettering needs it
		"x-dead-letter-exchange":    n.dead(),
		"x-dead-letter-routing-key": d.Name,
		"x-dead-letter-strategy":    "at-least-once",
	}
	if d.Ordered {
		arguments["x-single-active-consumer"] = true
	}
	return declareQueue(ch, n.eventQueue(d.Name), arguments)
}

func declareDeadQueue(ch *amqp.Channel, n names, fn string) error {
	queue := n.deadQueue(fn)
	if err := declareQueue(ch, queue, amqp.Table{"x-queue-type": "quorum"}); err != nil {
		return err
	}
	return bindQueue(ch, queue, fn, n.dead())
}

// declareQueue declares a durable queue. Drift is an error that names the
// queue and what differs; nothing is ever deleted for it.
func declareQueue(ch *amqp.Channel, name string, arguments amqp.Table) error {
	if _, err := ch.QueueDeclare(name, true, false, false, false, arguments); err != nil {
		return explainDeclare(fmt.Sprintf("queue %q", name), err)
	}
	return nil
}

func bindQueue(ch *amqp.Channel, queue, key, exchange string) error {
	if err := ch.QueueBind(queue, key, exchange, false, nil); err != nil {
		return explainDeclare(fmt.Sprintf("binding %q from exchange %q to queue %q", key, exchange, queue), err)
	}
	return nil
}
