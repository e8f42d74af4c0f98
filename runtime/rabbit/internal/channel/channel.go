// Package channel has what every user of an AMQP channel needs: to close it with
// a timeout, to receive deliveries until it ends, and to acknowledge them in
// batches. It does not know what the deliveries mean.
package channel

import (
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// MaxPrefetch is the largest prefetch count: it has 16 bits in AMQP.
const MaxPrefetch = 65_535

// CloseTimeout is how long to wait for the broker's answer when a channel or a
// connection is closed.
const CloseTimeout = 2 * time.Second

// Close closes ch. It does not wait longer than CloseTimeout for a broker that does
// not answer: then the channel ends with its connection.
func Close(ch *amqp.Channel) {
	AwaitClose(func() { _ = ch.Close() })
}

// AwaitClose calls fn, which must end with the connection at the latest, and waits
// for it for CloseTimeout.
func AwaitClose(fn func()) {
	done := make(chan struct{})
	go func() { // ends with the connection at the latest
		defer close(done)
		fn()
	}()
	t := time.NewTimer(CloseTimeout)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
	}
}

// CloseReason returns e, or amqp.ErrClosed if the broker gave no reason.
func CloseReason(e *amqp.Error) error {
	if e == nil {
		return amqp.ErrClosed
	}
	return e
}

// ClosedError is the broker's reason to close a channel.
type ClosedError struct {
	What   string // what was closed
	Reason *amqp.Error
}

func (e *ClosedError) Error() string {
	if e.Reason.Code == amqp.AccessRefused {
		return fmt.Sprintf("the broker closed %s: the broker user has no permission (%s): grant it with rabbitmqctl set_permissions", e.What, e.Reason.Reason)
	}
	return "the broker closed " + e.What + ": " + e.Reason.Reason
}

func (e *ClosedError) Unwrap() error { return e.Reason }
