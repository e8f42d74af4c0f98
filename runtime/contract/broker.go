package contract

import "context"

// Broker publishes events and makes calls. Packages rabbit and memory implement
// it.
type Broker interface {
	// Publish returns nil once the broker has confirmed the event. After
	// ErrUnroutable, ErrBlocked or ErrUnavailable the broker does not have the
	// event. After ErrRefused the queue of at least one function was full; other
	// functions may have received the event, see Error.Executed. After
	// ErrUnconfirmed it is not known whether the broker has it.
	Publish(ctx context.Context, e Event) error
	// Call returns the reply of the function. Every error is an *Error, also one
	// that the function returned; its Executed says whether the function may have
	// run.
	Call(ctx context.Context, c Call) (Reply, error)
}

// Caller makes calls. Every Broker is a Caller.
type Caller interface {
	Call(ctx context.Context, c Call) (Reply, error)
}
