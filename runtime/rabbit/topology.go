package rabbit

import (
	"math"
	"regexp"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

const (
	requestQueueExpiry = 60 * time.Second // a request queue outlives its last worker by this
	requestQueueLength = 10_000
	expiredQueueExpiry = 60 * time.Second // it outlives the last caller by this
	expiredQueueLength = 100_000
	eventQueueLength   = 1_000_000
	deliveryLimit      = 20 // deliveries that may end with the worker's death

	// Up to RabbitMQ 4.2 each look at a message that goes back counts as a
	// delivery. Without a limit, RabbitMQ 4 drops a message after 20 of them,
	// and 3.10 puts it at the back of the queue; -1 means none on 4 only.
	noDeliveryLimit = math.MaxInt32
)

// names are what exchanges and queues of one namespace are called.
type names struct {
	namespace string

	// Processes declare nothing: all is there, and stays without them. A queue
	// that would go with its last worker could not come back.
	fixed bool
}

func (n names) requests() string              { return n.namespace + ".requests" }
func (n names) events() string                { return n.namespace + ".events" }
func (n names) dead() string                  { return n.namespace + ".dead" }
func (n names) system() string                { return n.namespace + ".system" }
func (n names) expired() string               { return n.namespace + ".expired" } // an exchange and a queue
func (n names) due() string                   { return n.namespace + ".due" }     // a queue
func (n names) requestQueue(fn string) string { return n.namespace + ".request." + fn }
func (n names) deadFunctions() string         { return n.namespace + ".dead-functions" } // a queue
func (n names) eventQueue(fn string) string   { return n.namespace + ".event." + fn }
func (n names) deadQueue(fn string) string    { return n.namespace + ".dead." + fn }
func (n names) delay(tier string) string      { return n.namespace + ".delay." + tier } // an exchange and a queue

// ownQueues is a pattern for the queues that a process has for itself, and that
// go with its connection: those that the broker names, and those for replies.
func (n names) ownQueues() string {
	return `^(amq\.gen-.*|` + regexp.QuoteMeta(n.namespace) + `\.reply\..*)$`
}

// topology is what has to be on the broker for something to work. Everything
// in it is durable.
type topology struct {
	fixed     bool // it is there: nothing is declared
	exchanges []exchange
	queues    []queue
	bindings  []binding
}

type exchange struct {
	name, kind string
	alternate  string // gets what no queue is bound for; "" for none
	foreign    bool   // used as it stands, whatever its kind
}

func (x exchange) arguments() amqp.Table {
	if x.alternate == "" {
		return amqp.Table{} // RabbitMQ's import takes no null
	}
	return amqp.Table{argumentAlternate: x.alternate}
}

const argumentAlternate = "alternate-exchange"

type queue struct {
	name      string
	arguments amqp.Table
}

type binding struct{ queue, key, exchange string }

// common is what every process needs, and what the rest of the topology is
// bound to.
func (n names) common() topology {
	return topology{fixed: n.fixed, exchanges: []exchange{
		{name: n.requests(), kind: amqp.ExchangeDirect},
		{name: n.events(), kind: amqp.ExchangeTopic},
		{name: n.dead(), kind: amqp.ExchangeDirect},
		{name: n.system(), kind: amqp.ExchangeTopic},
		{name: n.expired(), kind: amqp.ExchangeFanout},
	}}
}

// requestFunction is what a request function answers on. Its queue is a
// classic one of transient messages: a call does not outlive its caller.
func (n names) requestFunction(d *contract.Descriptor) topology {
	name := n.requestQueue(d.Name)
	return topology{
		fixed: n.fixed,
		queues: []queue{{name, n.expiring(requestQueueExpiry, amqp.Table{
			"x-queue-type":           "classic",
			"x-max-length":           int64(requestQueueLength),
			"x-overflow":             "reject-publish-dlx",
			"x-dead-letter-exchange": n.expired(), // see forwardExpired
		})}},
		bindings: []binding{{name, d.Keys[0], n.requests()}},
	}
}

// expiredCalls is where the broker puts calls that their queue did not
// keep: they expired in it, or it was full.
// Nothing waits there for long: every calling process consumes it.
func (n names) expiredCalls() topology {
	return topology{
		fixed: n.fixed,
		queues: []queue{{n.expired(), n.expiring(expiredQueueExpiry, amqp.Table{
			"x-queue-type": "classic",
			"x-max-length": int64(expiredQueueLength),
		})}},
		bindings: []binding{{n.expired(), "", n.expired()}},
	}
}

// expiring lets a queue go when nobody has consumed from it for so long.
func (n names) expiring(after time.Duration, arguments amqp.Table) amqp.Table {
	if !n.fixed {
		arguments["x-expires"] = after.Milliseconds()
	}
	return arguments
}

// source is an exchange, not of the namespace, that functions listen on. One
// that exists is used as it stands.
func (n names) source(name string) topology {
	return topology{fixed: n.fixed, exchanges: []exchange{{name: name, kind: amqp.ExchangeTopic, foreign: true}}}
}

// eventFunction is what an event function reacts by, and the dead letters that
// its events may come to. Its keys come from the exchange source.
func (n names) eventFunction(d *contract.Descriptor, source string) topology {
	t := n.deadLetters(d.Name)
	name := n.eventQueue(d.Name)
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
	t.queues = append(t.queues, queue{name, arguments})
	for _, key := range d.Keys {
		t.bindings = append(t.bindings, binding{name, key, source})
	}
	return t
}

func (n names) deadLetters(fn string) topology {
	name := n.deadQueue(fn)
	return topology{
		fixed: n.fixed,
		queues: []queue{{name, amqp.Table{
			"x-queue-type":     "quorum",
			"x-delivery-limit": int64(noDeliveryLimit),
		}}},
		bindings: []binding{{name, fn, n.dead()}},
	}
}

// deadRegister is where the functions stand that have dead letters: see
// registerDead.
func (n names) deadRegister() topology {
	return topology{fixed: n.fixed, queues: []queue{{n.deadFunctions(), amqp.Table{
		"x-queue-type":     "quorum",
		"x-delivery-limit": int64(noDeliveryLimit),
	}}}}
}

// delayTier is where events wait for the length of the tier. A message is
// published there with the name of its target queue as the routing key. It comes
// out in the queue due.
//
// The default exchange, which cannot be deleted, leads there: a tier whose
// dead-letter exchange is missing would hold its messages.
func (n names) delayTier(t tier) topology {
	name := n.delay(t.name())
	top := n.dueEvents()
	top.exchanges = []exchange{{name: name, kind: amqp.ExchangeFanout}}
	top.queues = append(top.queues, queue{name, amqp.Table{
		"x-queue-type":              "quorum",
		"x-message-ttl":             t.length().Milliseconds(),
		"x-dead-letter-exchange":    "",
		"x-dead-letter-routing-key": n.due(),
		"x-dead-letter-strategy":    "at-least-once",
		"x-overflow":                "reject-publish",
		"x-delivery-limit":          int64(noDeliveryLimit), // rescue takes messages and puts them back
	}})
	top.bindings = []binding{{name, "", name}}
	return top
}

// dueEvents is the one queue that all tiers lead to: see dueMover. It must
// refuse nothing, for what it refuses blocks the tier of the message, and drop
// nothing: it has no length limit, and where a policy gives it one it refuses.
func (n names) dueEvents() topology {
	return topology{fixed: n.fixed, queues: []queue{{n.due(), amqp.Table{
		"x-queue-type":     "quorum",
		"x-delivery-limit": int64(noDeliveryLimit),
		"x-overflow":       "reject-publish",
	}}}}
}
