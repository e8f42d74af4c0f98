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

const (
	requestQueueExpiry = 60 * time.Second // a request queue outlives its last worker by this
	RequestQueueLength = 10_000
	expiredQueueExpiry = 60 * time.Second // it outlives the last caller by this
	expiredQueueLength = 100_000
	EventQueueLength   = 1_000_000
	DeliveryLimit      = 20 // deliveries that may end with the worker's death

	// Up to RabbitMQ 4.2 each look at a message that goes back counts as a
	// delivery. Without a limit, RabbitMQ 4 drops a message after 20 of them,
	// and 3.10 puts it at the back of the queue; -1 means none on 4 only.
	noDeliveryLimit = math.MaxInt32
)

// Names are what exchanges and queues of one namespace are called.
type Names struct {
	Namespace string

	// Processes declare nothing: all is there, and stays without them. A queue
	// that would go with its last worker could not come back.
	Predeclared bool
}

func (n Names) Requests() string              { return n.Namespace + ".requests" }
func (n Names) Events() string                { return n.Namespace + ".events" }
func (n Names) Dead() string                  { return n.Namespace + ".dead" }
func (n Names) System() string                { return n.Namespace + ".system" }
func (n Names) Expired() string               { return n.Namespace + ".expired" } // an exchange and a queue
func (n Names) Due() string                   { return n.Namespace + ".due" }     // a queue
func (n Names) RequestQueue(fn string) string { return n.Namespace + ".request." + fn }
func (n Names) DeadFunctions() string         { return n.Namespace + ".dead-functions" } // a queue
func (n Names) EventQueue(fn string) string   { return n.Namespace + ".event." + fn }
func (n Names) DeadQueue(fn string) string    { return n.Namespace + ".dead." + fn }
func (n Names) Delay(tier string) string      { return n.Namespace + ".delay." + tier } // an exchange and a queue

// OldDueExchange is where the tiers of earlier versions lead to.
func (n Names) OldDueExchange() string { return n.Namespace + ".due" }

// OldUnroutedQueue has what the old exchange could not route.
func (n Names) OldUnroutedQueue() string { return n.Namespace + ".stranded" }

// ownQueues is a pattern for the queues that a process has for itself, and that
// go with its connection: those that the broker names, and those for replies.
func (n Names) ownQueues() string {
	return `^(amq\.gen-.*|` + regexp.QuoteMeta(n.Namespace) + `\.reply\..*)$`
}

// Part is what has to be on the broker for something to work. Everything
// in it is durable.
type Part struct {
	Predeclared bool // it is there: nothing is declared
	Exchanges   []Exchange
	Queues      []Queue
	Bindings    []Binding
}

type Exchange struct {
	Name, Kind string
	Alternate  string // gets what no queue is bound for; "" for none
	Foreign    bool   // used as it stands, whatever its kind
}

func (x Exchange) Arguments() amqp.Table {
	if x.Alternate == "" {
		return amqp.Table{} // RabbitMQ's import takes no null
	}
	return amqp.Table{ArgumentAlternate: x.Alternate}
}

const ArgumentAlternate = "alternate-exchange"

type Queue struct {
	Name      string
	Arguments amqp.Table
}

type Binding struct{ Queue, Key, Exchange string }

// Common is what every process needs, and what the rest of the topology is
// bound to.
func (n Names) Common() Part {
	return Part{Predeclared: n.Predeclared, Exchanges: []Exchange{
		{Name: n.Requests(), Kind: amqp.ExchangeDirect},
		{Name: n.Events(), Kind: amqp.ExchangeTopic},
		{Name: n.Dead(), Kind: amqp.ExchangeDirect},
		{Name: n.System(), Kind: amqp.ExchangeTopic},
		{Name: n.Expired(), Kind: amqp.ExchangeFanout},
	}}
}

// RequestFunction is what a request function answers on. Its queue is a
// classic one of transient messages: a call does not outlive its caller.
func (n Names) RequestFunction(d *contract.Descriptor) Part {
	name := n.RequestQueue(d.Name)
	return Part{
		Predeclared: n.Predeclared,
		Queues: []Queue{{name, n.expiring(requestQueueExpiry, amqp.Table{
			"x-queue-type":           "classic",
			"x-max-length":           int64(RequestQueueLength),
			"x-overflow":             "reject-publish-dlx",
			"x-dead-letter-exchange": n.Expired(), // see forwardExpired
		})}},
		Bindings: []Binding{{name, d.Keys[0], n.Requests()}},
	}
}

// ExpiredCalls is where the broker puts calls that their queue did not
// keep: they expired in it, or it was full.
// Nothing waits there for long: every calling process consumes it.
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

// expiring lets a queue go when nobody has consumed from it for so long.
func (n Names) expiring(after time.Duration, arguments amqp.Table) amqp.Table {
	if !n.Predeclared {
		arguments["x-expires"] = after.Milliseconds()
	}
	return arguments
}

// Source is an exchange, not of the namespace, that functions listen on. One
// that exists is used as it stands.
func (n Names) Source(name string) Part {
	return Part{Predeclared: n.Predeclared, Exchanges: []Exchange{{Name: name, Kind: amqp.ExchangeTopic, Foreign: true}}}
}

// EventFunction is what an event function reacts by, and the dead letters that
// its events may come to. Its keys come from the exchange source.
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

// DeadRegister is where the functions stand that have dead letters: see
// registerDead.
func (n Names) DeadRegister() Part {
	return Part{Predeclared: n.Predeclared, Queues: []Queue{{n.DeadFunctions(), amqp.Table{
		"x-queue-type":     "quorum",
		"x-delivery-limit": int64(noDeliveryLimit),
	}}}}
}

// DelayTier is where events wait for the length of the tier. A message is
// published there with the name of its target queue as the routing key. It comes
// out in the queue due.
//
// The default exchange, which cannot be deleted, leads there: a tier whose
// dead-letter exchange is missing would hold its messages.
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
		"x-delivery-limit":          int64(noDeliveryLimit), // rescue takes messages and puts them back
	}})
	top.Bindings = []Binding{{name, "", name}}
	return top
}

// DueEvents is the one queue that all tiers lead to: see dueMover. It must
// refuse nothing, for what it refuses blocks the tier of the message, and drop
// nothing: it has no length limit, and where a policy gives it one it refuses.
func (n Names) DueEvents() Part {
	return Part{Predeclared: n.Predeclared, Queues: []Queue{{n.Due(), amqp.Table{
		"x-queue-type":     "quorum",
		"x-delivery-limit": int64(noDeliveryLimit),
		"x-overflow":       "reject-publish",
	}}}}
}
