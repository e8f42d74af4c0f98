// Package faas is the contract between a function and whatever runs it: how a
// function is registered, what it is handed, and what its outcome means.
//
// It knows nothing of brokers, HTTP or caches and imports the standard library
// only; packages rabbit, memory, cache and ingress give the contract its effect.
package faas

import (
	"context"
	"crypto/rand"
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
// base32 with 128 random bits.
func NewID() string { return rand.Text() }
