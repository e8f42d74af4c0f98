// Package store defines what sessions need of their store. A package beside this one
// implements it for each kind of store, and package storetest checks it.
package store

import (
	"cmp"
	"context"
	"time"
)

// Store stores records under keys, each for a limited time. A key is printable
// ASCII of at most 200 bytes. A Store is safe for concurrent use.
type Store interface {
	// Find returns the record, or nil if there is none. The record then expires
	// after idle.
	Find(ctx context.Context, key string, idle time.Duration) ([]byte, error)
	// Swap stores value for ttl if the record is still old (nil: if there is none),
	// and reports whether it did.
	Swap(ctx context.Context, key string, old, value []byte, ttl time.Duration) (swapped bool, err error)
	// DeleteIf deletes the record if it is still old, and reports whether it did.
	DeleteIf(ctx context.Context, key string, old []byte) (deleted bool, err error)
	// Delete deletes the record, if there is one.
	Delete(ctx context.Context, key string) error
	// Close closes the connections of the store.
	Close() error
}

// Options are the options to open a store with. The zero value is useful.
type Options struct {
	Timeout time.Duration // of one operation; 1 s
}

// WithDefaults returns o with defaults in place of zero values.
func (o Options) WithDefaults() Options {
	o.Timeout = cmp.Or(o.Timeout, time.Second)
	return o
}
