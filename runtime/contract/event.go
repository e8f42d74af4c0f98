package contract

import (
	"context"
	"time"
)

// Event is a message as it travels: a publisher gives it to the broker, and a
// function runs with it. A function whose message type is Event gets the message
// undecoded.
type Event struct {
	Key         string         // routing key, 1 to 255 bytes
	Exchange    string         // "" is the events exchange of the namespace
	ID          string         // message id; "" is replaced by a new one
	ContentType string         // "" means "application/json"
	Type        string         // the AMQP property type; Rabbet does not interpret it
	Time        time.Time      // time of publication; zero means now
	NotBefore   time.Time      // earliest time of delivery; zero means now
	Headers     map[string]any // without those that Rabbet uses itself
	Body        []byte

	Correlation string // id of the first message or call of the chain
	Causation   string // id of the message or call that caused this one
	Trace       Trace

	Session []byte // the values of the client's session as a JSON object, for a function with UsesSession; nil without a session

	Attempt     int  // number of this attempt; 1 or more once it is delivered
	Redelivered bool // an earlier delivery of this message was not acknowledged
}

// RoutingKey makes Event a Message.
func (e Event) RoutingKey() string { return e.Key }

// Trace is a W3C trace context, unmodified.
type Trace struct {
	Parent  string // traceparent
	State   string // tracestate
	Baggage string // baggage
}

// Call is one call of a request function.
type Call struct {
	Key         string    // routing key of the function
	Function    string    // name of the function, if the caller knows it
	ID          string    // call id; "" is replaced by a new one
	ContentType string    // "application/json" when empty
	Deadline    time.Time // zero means the deadline of ctx, or else DefaultTimeout from now
	Body        []byte
	Session     []byte // the values of the client's session as a JSON object, for a function with UsesSession; nil without a session

	// Identity is a hash of what identifies the client (see CachePolicy.Identity),
	// "" if that is unknown. It separates cached results, and does not travel.
	Identity string

	Correlation string
	Causation   string
	Trace       Trace
}

// Reply is the reply to a Call.
type Reply struct {
	Body    []byte
	Run     time.Duration // duration of the run
	Worker  string        // id of the worker that ran it, if known
	Session []byte        // a SessionChange as JSON; nil without changes
}

// DefaultTimeout limits a run or a call without a limit of its own.
const DefaultTimeout = 30 * time.Second

// MaxDelay is how far ahead an event can be published.
const MaxDelay = 30 * 24 * time.Hour

// Meta is what is known of the delivery that a function runs for. The function's own
// publishes and calls continue its trace and its chain.
type Meta struct {
	Function    string // name of the function
	ID          string // id of the message or call that it runs for
	Correlation string
	Causation   string
	Trace       Trace
	Attempt     int
	Redelivered bool
}

type metaKey struct{}

// WithMeta returns a copy of ctx that carries m.
func WithMeta(ctx context.Context, m Meta) context.Context {
	return context.WithValue(ctx, metaKey{}, m)
}

// MetaOf returns the Meta that ctx carries; the zero Meta outside of a run.
func MetaOf(ctx context.Context) Meta {
	m, _ := ctx.Value(metaKey{}).(Meta)
	return m
}

// Chain returns the id of the first message or call of the chain that m belongs to.
func (m Meta) Chain() string {
	if m.Correlation != "" {
		return m.Correlation
	}
	return m.ID
}
