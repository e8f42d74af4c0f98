// Package contract is what the parts of the runtime agree on: the events, calls
// and errors that travel, the descriptors that workers announce, and the
// interfaces of a broker.
//
// It knows how a function is run, but not how it is written (package faas), how
// messages are carried (rabbit, memory), or where results are kept (cache). It
// imports the standard library only.
package contract

import (
	"context"
	"math/rand/v2"
)

// Message is a struct that knows the routing key under which it is published or
// called. RoutingKey must work on the zero value.
type Message interface {
	RoutingKey() string
}

// Handler runs a function on one event or call. It returns the body of the reply,
// nil for an event. It must not modify the event, which is shared.
type Handler func(ctx context.Context, e *Event) ([]byte, error)

// NewID returns a new identifier for a message or a call: 26 characters of base32
// with 130 random bits. It is unique, but not a secret: it comes from
// math/rand/v2, which is much faster than crypto/rand.
func NewID() string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
	var id [26]byte
	for i := 0; i < len(id); {
		for n, bits := 0, rand.Uint64(); n < 12 && i < len(id); n++ {
			id[i] = alphabet[bits&31]
			bits >>= 5
			i++
		}
	}
	return string(id[:])
}
