package contract

import (
	"context"
	"time"
)

// Event is a message as it travels: what a publisher hands to the broker and
// what a function is run with. A function that takes an Event instead of a
// message type of its own gets it undecoded.
type Event struct {
	Key         string         // routing key, 1 to 255 bytes
	Exchange    string         // "" is the namespace's own events exchange
	ID          string         // message id; filled in when empty
	ContentType string         // "application/json" when empty
	Type        string         // AMQP's type property, free for the publisher's use
	Time        time.Time      // when it was published; filled in when zero
	NotBefore   time.Time      // deliver no sooner; zero is at once
	Headers     map[string]any // as they came, without the ones Rabbet keeps for itself
	Body        []byte

	Correlation string // id of the message or call that the whole chain began with
	Causation   string // id of the message or call that led to this one
	Trace       Trace

	Session []byte // of a call to a function that says UsesSession: the values as a JSON object; nil without a session

	Attempt     int  // 1 on the first run; what is delivered always has at least 1
	Redelivered bool // an earlier delivery of this very message was not settled
}

// RoutingKey makes Event a Message.
func (e Event) RoutingKey() string { return e.Key }

// Trace is the W3C trace context, carried as it came.
type Trace struct {
	Parent  string // traceparent
	State   string // tracestate
	Baggage string // baggage
}

// Call is one call of a request function.
type Call struct {
	Key         string    // routing key of the function
	Function    string    // the function's name, when the caller knows it
	ID          string    // call id; filled in when empty
	ContentType string    // "application/json" when empty
	Deadline    time.Time // the caller waits no longer; zero is ctx's, else DefaultTimeout from now
	Body        []byte
	Session     []byte // the client's session as a JSON object, for a function that says UsesSession; nil without one

	// Identity is who asks, for a function whose CachePolicy names what says so:
	// a hash of those values, "" when unknown. It keeps cached results apart and
	// does not travel.
	Identity string

	Correlation string
	Causation   string
	Trace       Trace
}

// Reply answers a Call.
type Reply struct {
	Body    []byte
	Run     time.Duration // how long the function ran
	Worker  string        // id of the worker that ran it, when known
	Session []byte        // a SessionChange as JSON; nil when the session stays as it is
}

// DefaultTimeout bounds a run or a call that names no other limit.
const DefaultTimeout = 30 * time.Second

// MaxDelay is how far ahead an event can be published.
const MaxDelay = 30 * 24 * time.Hour

// Meta is what a delivery hands on to everything its function does.
type Meta struct {
	Function    string // name of the function that runs
	ID          string // id of the message or call that it runs for
	Correlation string
	Causation   string
	Trace       Trace
	Attempt     int
	Redelivered bool
}

type metaKey struct{}

// WithMeta returns ctx with m in it. Runtimes call it; tests may.
func WithMeta(ctx context.Context, m Meta) context.Context {
	return context.WithValue(ctx, metaKey{}, m)
}

// MetaOf returns what the running delivery carries; the zero Meta outside of one.
func MetaOf(ctx context.Context) Meta {
	m, _ := ctx.Value(metaKey{}).(Meta)
	return m
}

// Chain is the id under which everything that follows from one beginning can be found.
func (m Meta) Chain() string {
	if m.Correlation != "" {
		return m.Correlation
	}
	return m.ID
}
