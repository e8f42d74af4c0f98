// Package store defines what an inbox needs of its store. A package beside this one
// implements it for each kind of store, and package storetest checks it.
package store

import (
	"context"
	"time"
)

// Store stores the states of keys. A key is printable ASCII of at most 200 bytes.
// Every method may be repeated with the same effect. A Store is safe for concurrent
// use.
type Store interface {
	// Claim leases the key to token, if the key is free or leased to token already.
	// It returns the state of the key after that.
	Claim(ctx context.Context, key, token string, lease time.Duration) (Claim, error)
	// Complete makes the key done for the duration keep, whatever its state was.
	Complete(ctx context.Context, key string, keep time.Duration) error
	// Release frees the key, if it is leased to token.
	Release(ctx context.Context, key, token string) error
	// DataLossRisk returns why the store may lose keys before they expire; "" if it
	// does not, or if that is unknown.
	DataLossRisk(ctx context.Context) string
	// Close closes the connections of the store.
	Close() error
}

// Claim is the result of Store.Claim.
type Claim struct {
	State State         `json:"state"`
	Left  time.Duration `json:"left,omitempty"` // remaining lease, if State is Elsewhere
}

// State is the state of a key.
type State string

// The states of a key after a claim.
const (
	Mine      State = "mine"      // it is leased to the claimant
	Elsewhere State = "elsewhere" // it is leased to another run
	Done      State = "done"      // a run has succeeded
)
