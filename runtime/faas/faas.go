// Package faas is the contract between a function and whatever runs it: how a
// function is registered, what it is handed, and what its outcome means.
//
// It knows nothing of brokers, HTTP or caches and imports the standard library
// only; packages rabbit, memory, cache and ingress give the contract its effect.
package faas

import (
	"context"
	"math/rand/v2"
)

// Message is a value that travels: a struct that knows the routing key under
// which it is published or called. The method must work on the zero value.
type Message interface {
	RoutingKey() string
}

// Handler runs one delivery and returns the reply's body (nil for an event).
// The event is shared and must not be changed.
type Handler func(ctx context.Context, e *Event) ([]byte, error)

// NewID returns a fresh identifier for a message or a call: 26 characters of
// base32 with 130 random bits. It is unique, and no secret: the generator is
// the process's own ChaCha8, where crypto/rand would ask the kernel each time.
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
