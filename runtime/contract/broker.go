package contract

import "context"

// Broker carries events and calls as bytes. Packages rabbit and memory are two
// makes of it.
type Broker interface {
	// Publish returns nil once the broker has taken responsibility for the
	// event. It fails with ErrUnroutable, ErrBlocked or ErrUnavailable (none of
	// these was taken), with ErrRefused (a function's queue is full; other
	// functions may get it, see Executed) or with ErrUnconfirmed.
	Publish(ctx context.Context, e Event) error
	// Call returns what the function answered. Every error is an *Error, the
	// function's own included; its Executed says whether the function may have run.
	Call(ctx context.Context, c Call) (Reply, error)
}

// Caller makes a call; a Broker is one.
type Caller interface {
	Call(ctx context.Context, c Call) (Reply, error)
}
