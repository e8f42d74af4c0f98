package faas

import (
	"context"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// Message is a value that travels: a struct that knows the routing key under
// which it is published or called. Its RoutingKey method must work on the zero
// value.
type Message = contract.Message

// Event is a message as it travels: its routing key, id, headers, attempt and
// undecoded body. A function that takes an Event instead of a message type of
// its own can react to any message, see Keys.
type Event = contract.Event

// Handler runs a function on one event or call and returns the body of the
// reply, nil for an event. The event is shared and must not be changed.
type Handler = contract.Handler

// Meta is what is known of the event or call that a function runs for: its id,
// trace and attempt. What the function publishes and calls continues its trace.
type Meta = contract.Meta

// Trace is a W3C trace context, as it came.
type Trace = contract.Trace

// MetaOf returns the Meta of the run that ctx belongs to; the zero Meta outside
// of one.
func MetaOf(ctx context.Context) Meta { return contract.MetaOf(ctx) }

// WithMeta returns ctx with m in it, for the test of a function.
func WithMeta(ctx context.Context, m Meta) context.Context { return contract.WithMeta(ctx, m) }

// Validator is a message that can say what about itself makes no sense. It is
// asked after decoding; its error becomes CodeInvalid unless it is an *Error.
type Validator interface {
	Validate() error
}
