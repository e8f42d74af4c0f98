// Package topology names the exchanges, queues and bindings of a namespace, and
// declares them. It says in each error what to do about it.
package topology

import (
	"math"
	"regexp"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// Limits of queues.
const (
	RequestQueueLength = 10_000    // calls
	EventQueueLength   = 1_000_000 // events
	expiredQueueLength = 100_000   // calls
	DeliveryLimit      = 20        // redeliveries after which an event is dead-lettered

	requestQueueExpiry = 60 * time.Second // of a request queue without a worker
	expiredQueueExpiry = 60 * time.Second // of the queue of expired calls without a caller
)

// noDeliveryLimit is the delivery limit of queues from which messages are requeued.
// Before RabbitMQ 4.3, each delivery that is requeued counts. Without a limit,
// RabbitMQ 4 drops a message after 20 deliveries, and 3.10 requeues it at the end of
// the queue. -1 disables the limit on RabbitMQ 4 only.
const noDeliveryLimit = math.MaxInt32

// Names are the names of exchanges and queues in one namespace.
type Names struct {
	Namespace string

	// Predeclared: processes declare nothing, because everything exists. Queues
	// then do not expire, because they could not be declared again.
	Predeclared bool
}

// Requests is the direct exchange of calls.
func (n Names) Requests() string { return n.Namespace + ".requests" }

// Events is the topic exchange of events.
func (n Names) Events() string { return n.Namespace + ".events" }

// Dead is the direct exchange of dead letters, by function.
func (n Names) Dead() string { return n.Namespace + ".dead" }

// System is the topic exchange of broadcasts.
func (n Names) System() string { return n.Namespace + ".system" }

// Expired is the exchange and the queue of calls that their queue did not keep.
func (n Names) Expired() string { return n.Namespace + ".expired" }

// Due is the queue of due events.
func (n Names) Due() string { return n.Namespace + ".due" }

// DeadFunctions is the queue of functions that have a queue of dead letters.
func (n Names) DeadFunctions() string { return n.Namespace + ".dead-functions" }

// RequestQueue is the queue of a request function.
func (n Names) RequestQueue(fn string) string { return n.Namespace + ".request." + fn }

// EventQueue is the queue of an event function.
func (n Names) EventQueue(fn string) string { return n.Namespace + ".event." + fn }

// DeadQueue is the queue of dead letters of a function.
func (n Names) DeadQueue(fn string) string { return n.Namespace + ".dead." + fn }

// Delay is the exchange and the queue of a delay tier.
func (n Names) Delay(tier string) string { return n.Namespace + ".delay." + tier }

// OldDueExchange is the dead-letter exchange of the tiers of earlier versions.
func (n Names) OldDueExchange() string { return n.Namespace + ".due" }

// OldUnroutedQueue has what OldDueExchange could not route.
func (n Names) OldUnroutedQueue() string { return n.Namespace + ".stranded" }

// ownQueues is a pattern for the exclusive queues of a process: those named by
// the broker, and those for replies.
func (n Names) ownQueues() string {
	return `^(amq\.gen-.*|` + regexp.QuoteMeta(n.Namespace) + `\.reply\..*)$`
}

// Part is a set of exchanges, queues and bindings, all durable.
type Part struct {
	Predeclared bool // it exists: nothing is declared
	Exchanges   []Exchange
	Queues      []Queue
	Bindings    []Binding
}

// Exchange is a durable exchange.
type Exchange struct {
	Name, Kind string
	Alternate  string // alternate exchange; "" for none
	Foreign    bool   // used as it is, whatever its kind
}

// Arguments returns the arguments to declare the exchange with.
func (x Exchange) Arguments() amqp.Table {
	if x.Alternate == "" {
		return amqp.Table{} // RabbitMQ does not import null
	}
	return amqp.Table{ArgumentAlternate: x.Alternate}
}

// ArgumentAlternate is the argument that names the alternate exchange.
const ArgumentAlternate = "alternate-exchange"

// Queue is a durable queue.
type Queue struct {
	Name      string
	Arguments amqp.Table
}

// Binding binds a queue to an exchange by a routing key.
type Binding struct{ Queue, Key, Exchange string }

// Common has the exchanges that every process needs.
func (n Names) Common() Part {
	return Part{Predeclared: n.Predeclared, Exchanges: []Exchange{
		{Name: n.Requests(), Kind: amqp.ExchangeDirect},
		{Name: n.Events(), Kind: amqp.ExchangeTopic},
		{Name: n.Dead(), Kind: amqp.ExchangeDirect},
		{Name: n.System(), Kind: amqp.ExchangeTopic},
		{Name: n.Expired(), Kind: amqp.ExchangeFanout},
	}}
}

// RequestFunction has the queue of a request function. It is a classic queue of
// transient messages: a call does not outlive its caller.
func (n Names) RequestFunction(d *contract.Descriptor) Part {
	name := n.RequestQueue(d.Name)
	return Part{
		Predeclared: n.Predeclared,
		Queues: []Queue{{name, n.expiring(requestQueueExpiry, amqp.Table{
			"x-queue-type":           "classic",
			"x-max-length":           int64(RequestQueueLength),
			"x-overflow":             "reject-publish-dlx",
			"x-dead-letter-exchange": n.Expired(), // see package caller
		})}},
		Bindings: []Binding{{name, d.Keys[0], n.Requests()}},
	}
}

// ExpiredCalls has the queue of calls that expired in their queue or found it
// full. Every calling process consumes from it.
func (n Names) ExpiredCalls() Part {
	return Part{
		Predeclared: n.Predeclared,
		Queues: []Queue{{n.Expired(), n.expiring(expiredQueueExpiry, amqp.Table{
			"x-queue-type": "classic",
			"x-max-length": int64(expiredQueueLength),
		})}},
		Bindings: []Binding{{n.Expired(), "", n.Expired()}},
	}
}

// expiring adds that a queue is deleted when it had no consumer for that long.
func (n Names) expiring(after time.Duration, arguments amqp.Table) amqp.Table {
	if !n.Predeclared {
		arguments["x-expires"] = after.Milliseconds()
	}
	return arguments
}

// Source has an exchange, outside the namespace, on which functions listen. One
// that exists is used as it is.
func (n Names) Source(name string) Part {
	return Part{Predeclared: n.Predeclared, Exchanges: []Exchange{{Name: name, Kind: amqp.ExchangeTopic, Foreign: true}}}
}

// EventFunction has the queue of an event function and the one of its dead
// letters. source is the exchange on which it listens.
func (n Names) EventFunction(d *contract.Descriptor, source string) Part {
	t := n.DeadLetters(d.Name)
	name := n.EventQueue(d.Name)
	arguments := amqp.Table{
		"x-queue-type":              "quorum",
		"x-delivery-limit":          int64(DeliveryLimit),
		"x-max-length":              int64(EventQueueLength),
		"x-overflow":                "reject-publish", // at-least-once dead-lettering needs it
		"x-dead-letter-exchange":    n.Dead(),
		"x-dead-letter-routing-key": d.Name,
		"x-dead-letter-strategy":    "at-least-once",
	}
	if d.Ordered {
		arguments["x-single-active-consumer"] = true
	}
	t.Queues = append(t.Queues, Queue{name, arguments})
	for _, key := range d.Keys {
		t.Bindings = append(t.Bindings, Binding{name, key, source})
	}
	return t
}

// DeadLetters has the queue of dead letters of a function.
func (n Names) DeadLetters(fn string) Part {
	name := n.DeadQueue(fn)
	return Part{
		Predeclared: n.Predeclared,
		Queues: []Queue{{name, amqp.Table{
			"x-queue-type":     "quorum",
			"x-delivery-limit": int64(noDeliveryLimit),
		}}},
		Bindings: []Binding{{name, fn, n.Dead()}},
	}
}

// DeadRegister has the queue that lists the functions with dead letters; see
// package deadletter.
func (n Names) DeadRegister() Part {
	return Part{Predeclared: n.Predeclared, Queues: []Queue{{n.DeadFunctions(), amqp.Table{
		"x-queue-type":     "quorum",
		"x-delivery-limit": int64(noDeliveryLimit),
	}}}}
}

// DelayTier has the tier in which events wait for that length. A message is
// published there with its target queue as the routing key, and is dead-lettered
// to the queue of due events.
//
// The tier dead-letters by the default exchange, which cannot be deleted: a tier
// whose dead-letter exchange is missing would keep its messages.
func (n Names) DelayTier(tier string, length time.Duration) Part {
	name := n.Delay(tier)
	top := n.DueEvents()
	top.Exchanges = []Exchange{{Name: name, Kind: amqp.ExchangeFanout}}
	top.Queues = append(top.Queues, Queue{name, amqp.Table{
		"x-queue-type":              "quorum",
		"x-message-ttl":             length.Milliseconds(),
		"x-dead-letter-exchange":    "",
		"x-dead-letter-routing-key": n.Due(),
		"x-dead-letter-strategy":    "at-least-once",
		"x-overflow":                "reject-publish",
		"x-delivery-limit":          int64(noDeliveryLimit), // package delay gets messages and requeues them
	}})
	top.Bindings = []Binding{{name, "", name}}
	return top
}

// DueEvents has the queue to which all tiers lead. A message that it refuses
// blocks its tier, and one that it drops is lost. Therefore it has no length
// limit, and it refuses where a policy sets one.
func (n Names) DueEvents() Part {
	return Part{Predeclared: n.Predeclared, Queues: []Queue{{n.Due(), amqp.Table{
		"x-queue-type":     "quorum",
		"x-delivery-limit": int64(noDeliveryLimit),
		"x-overflow":       "reject-publish",
	}}}}
}
