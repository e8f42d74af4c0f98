package faas

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// Bus is how a function reaches others. Trace, deadline, correlation and
// causation travel in ctx.
type Bus interface {
	// Publish returns nil once the broker has confirmed the event; see Broker.
	Publish(ctx context.Context, m Message, options ...PublishOption) error
	// Request calls the function that answers m's key; most want Call.
	Request(ctx context.Context, m Message) (Reply, error)
}

// Reply is what a call is answered with. Its Body is the reply as JSON.
type Reply = contract.Reply

// PublishOption says more about one publish.
type PublishOption func(*Event)

// To publishes to another exchange than the namespace's own.
func To(exchange string) PublishOption { return func(e *Event) { e.Exchange = exchange } }

// MaxDelay is how far ahead an event can be published: 30 days.
const MaxDelay = contract.MaxDelay

// At delivers the event no sooner than t, which is at most MaxDelay from now,
// and over RabbitMQ a tenth of a second later at the most, if a worker is free:
//
//	d.Bus.Publish(ctx, events.TrialEnds{ID: in.ID}, faas.At(in.Ends))
//
// It comes to the functions that listen now, not to those that will by then.
func At(t time.Time) PublishOption { return func(e *Event) { e.NotBefore = t } }

// In is At for so long from now.
func In(d time.Duration) PublishOption { return At(time.Now().Add(d)) }

// Call calls the function that answers in's routing key and decodes its reply.
// Its error is an *Error.
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

// NewEvent returns what a Bus publishes for m: for whoever keeps it first, and
// publishes it later and perhaps more than once, under the id that it has here.
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
