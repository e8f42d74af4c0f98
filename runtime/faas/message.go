package faas

import (
	"context"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// Message is a struct that is published or called. Its method RoutingKey returns the
// routing key, and must work on the zero value:
//
//	func (GetProfile) RoutingKey() string { return "profile.get" }
type Message = contract.Message

// Event is a message as it travels, with its routing key, id, headers, attempt and
// undecoded body. An event function can take an Event in place of a message type of
// its own, see Keys.
type Event = contract.Event

// Handler runs a function on one event or call and returns the body of the reply, nil
// for an event. It must not modify the event, which is shared. See Set.Use.
type Handler = contract.Handler

// Meta describes the event or call that a function runs for: the name of the
// function, and the id, trace and attempt of the message.
type Meta = contract.Meta

// Trace is a W3C trace context, unmodified.
type Trace = contract.Trace

// MetaOf returns the Meta of the run that ctx belongs to, or the zero Meta outside of
// a run.
func MetaOf(ctx context.Context) Meta { return contract.MetaOf(ctx) }

// WithMeta returns a copy of ctx that carries m, for the test of a function.
func WithMeta(ctx context.Context, m Meta) context.Context { return contract.WithMeta(ctx, m) }

// Validator is a message with its own validation. Validate is called after decoding.
// Its error becomes an error with CodeInvalid, unless it is an *Error.
type Validator interface {
	Validate() error
}
