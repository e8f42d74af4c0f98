// Package functions is what the product does: one file per function, named
// like it. A file that is dropped in here is a function that runs; how it is
// reached is written at its top.
package functions

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/events"
	"github.com/rabbet-fn/rabbet/functions/stores"
	"github.com/rabbet-fn/rabbet/runtime/faas"
)

// All holds every function of this package; each file adds its own.
var All faas.Set[Deps]

// Deps is what a function may use.
type Deps struct {
	Profiles Profiles
	Mail     Mailer
	Bus      faas.Bus
	Results  Results
	Log      *zap.Logger
}

// Profiles keeps profiles.
type Profiles interface {
	// ByID returns one profile, or stores.ErrNotFound.
	ByID(ctx context.Context, id string) (events.Profile, error)
	// Save stores a profile, in place of an earlier one with its id, and in the
	// same transaction what is published about that afterwards, at least once.
	Save(ctx context.Context, profile events.Profile, outgoing ...stores.Record) error
}

// Mailer sends mail.
type Mailer interface {
	// Send returns nil once the mail has been accepted. It fails with
	// stores.ErrRejected if it never will be.
	Send(ctx context.Context, message stores.Message) error
}

// Results are the cached results of functions.
type Results interface {
	// Invalidate makes sure that no result with one of these tags is served
	// again once it has returned nil.
	Invalidate(ctx context.Context, tags ...string) error
}

// outgoing makes of m what a store keeps until it is published.
func outgoing(ctx context.Context, m faas.Message) (stores.Record, error) {
	e, err := faas.NewEvent(ctx, m)
	if err != nil {
		return stores.Record{}, err
	}
	encoded, err := json.Marshal(e)
	if err != nil {
		return stores.Record{}, fmt.Errorf("encode %s: %w", e.Key, err)
	}
	return stores.Record{ID: e.ID, Key: e.Key, Event: encoded}, nil
}

// outcome gives an error of the stores its meaning to the runtime. What it
// does not know may go better next time.
func outcome(err error) error {
	switch {
	case errors.Is(err, stores.ErrNotFound):
		return faas.NotFound("%v", err)
	case errors.Is(err, stores.ErrRejected):
		return faas.Permanent("it was refused for good: %v", err)
	case errors.Is(err, stores.ErrUnavailable):
		return faas.RetryAfter(time.Second, err)
	}
	return err
}
