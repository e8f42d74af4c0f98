// Package functions is what the product does: one file for each function, named
// after it. Add a file, and the function runs. Its registration at the top of the
// file says how it is reached. Functions know only what Deps offers them; deps.go
// knows what stands behind it.
package functions

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/events"
	"github.com/rabbet-fn/rabbet/functions/stores"
	"github.com/rabbet-fn/rabbet/runtime/faas"
	"github.com/rabbet-fn/rabbet/runtime/mail"
	"github.com/rabbet-fn/rabbet/runtime/outbox"
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
	// Save stores a profile, in place of an earlier one with its id, and events
	// about it, in one transaction. The events are published afterwards, at least
	// once.
	Save(ctx context.Context, profile events.Profile, outgoing ...outbox.Record) error
}

// Mailer sends mail.
type Mailer interface {
	// Send returns nil once the mail server has accepted the message. It fails with
	// mail.ErrRejected if the server never will.
	Send(ctx context.Context, message mail.Message) error
}

// Results are the cached results of functions.
type Results interface {
	// Invalidate returns nil once no result with one of these tags is served any
	// more.
	Invalidate(ctx context.Context, tags ...string) error
}

// outcome translates an error of a dependency into one that the runtime understands.
// Any other error means: try again.
func outcome(err error) error {
	switch {
	case errors.Is(err, stores.ErrNotFound):
		return faas.NotFound("%v", err)
	case errors.Is(err, mail.ErrRejected):
		return faas.Permanent("refused for good: %v", err)
	case errors.Is(err, stores.ErrUnavailable):
		return faas.RetryAfter(time.Second, err)
	}
	return err
}
