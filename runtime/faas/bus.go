package faas

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// Bus publishes events and calls functions. The trace, the deadline and the ids of
// the message that a function runs for are taken from ctx.
type Bus interface {
	// Publish returns nil once the broker has confirmed the event. It fails with
	// ErrUnroutable if no queue receives the event, with ErrRefused if a queue is
	// full, with ErrBlocked or ErrUnavailable if the broker cannot take it now, and
	// with ErrUnconfirmed if it is not known whether the broker has it.
	Publish(ctx context.Context, m Message, options ...PublishOption) error
	// Request calls the function that answers the routing key of m, and returns its
	// undecoded reply. Use Call to decode it.
	Request(ctx context.Context, m Message) (Reply, error)
}

// Reply is the reply to a call. Its Body is JSON.
type Reply = contract.Reply

// PublishOption is an option of Bus.Publish: To, At or In.
type PublishOption func(*Event)

// To publishes to another exchange than the events exchange of the namespace.
func To(exchange string) PublishOption { return func(e *Event) { e.Exchange = exchange } }

// MaxDelay is how far ahead an event can be published: 30 days.
const MaxDelay = contract.MaxDelay

// At delivers the event at t, which is at most MaxDelay from now:
//
//	d.Bus.Publish(ctx, events.TrialEnds{ID: in.ID}, faas.At(in.Ends))
//
// It is never delivered earlier. With RabbitMQ and a free worker it is delivered at
// most 0.1 s later. It is delivered to the functions that are bound to its routing
// key when it is published, not to those that are bound at t.
func At(t time.Time) PublishOption { return func(e *Event) { e.NotBefore = t } }

// In delivers the event after d, as At does.
func In(d time.Duration) PublishOption { return At(time.Now().Add(d)) }

// Call calls the function that answers the routing key of in, and decodes its
// reply. Every error is an *Error: the one that the function returned, or
// ErrUnroutable, ErrExpired, ErrUnavailable … Its Executed says whether the function
// may have run.
func Call[Out any](ctx context.Context, bus Bus, in Message) (Out, error) {
	var out Out
	reply, err := bus.Request(ctx, in)
	if err != nil {
		return out, err
	}
	if err := json.Unmarshal(reply.Body, &out); err != nil {
		return out, &Error{Code: contract.CodeLost, Detail: "the reply cannot be read", Cause: fmt.Errorf("decode the reply to %q: %w", in.RoutingKey(), err)}
	}
	return out, nil
}

// NewBus returns a Bus that encodes messages as JSON and sends them over b.
func NewBus(b contract.Broker) Bus { return &bus{b} }

type bus struct{ broker contract.Broker }

func (b *bus) Publish(ctx context.Context, m Message, options ...PublishOption) error {
	e, err := NewEvent(ctx, m, options...)
	if err != nil {
		return err
	}
	return b.broker.Publish(ctx, e)
}

// NewEvent returns the event that a Bus publishes for m. An outbox stores it, and
// publishes it later, perhaps more than once, with the same id.
func NewEvent(ctx context.Context, m Message, options ...PublishOption) (Event, error) {
	e, ok := m.(Event)
	if !ok {
		body, err := json.Marshal(m)
		if err != nil {
			return Event{}, fmt.Errorf("encode %T: %w", m, err)
		}
		e = Event{Key: m.RoutingKey(), Body: body}
	}
	for _, o := range options {
		o(&e)
	}
	e.ID = cmp.Or(e.ID, contract.NewID())
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	meta := MetaOf(ctx)
	e.Trace, e.Correlation, e.Causation = meta.Trace, meta.Chain(), meta.ID
	return e, nil
}

func (b *bus) Request(ctx context.Context, m Message) (Reply, error) {
	body, err := json.Marshal(m)
	if err != nil {
		return Reply{}, &Error{Code: CodeInvalid, Detail: "the message cannot be encoded", Cause: err, Executed: ExecutedNo}
	}
	meta := MetaOf(ctx)
	return b.broker.Call(ctx, contract.Call{
		Key: m.RoutingKey(), Body: body,
		Trace: meta.Trace, Correlation: meta.Chain(), Causation: meta.ID,
	})
}
