package outbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/faas"
)

// NewRecord returns the record of the event that publishing m with ctx would make.
func NewRecord(ctx context.Context, m contract.Message) (Record, error) {
	e, err := faas.NewEvent(ctx, m)
	if err != nil {
		return Record{}, err
	}
	encoded, err := json.Marshal(e)
	if err != nil {
		return Record{}, fmt.Errorf("encode %s: %w", e.Key, err)
	}
	return Record{ID: e.ID, Key: e.Key, Event: encoded}, nil
}

// PublishTo returns a function for Relay.Publish that publishes records of NewRecord
// to b.
func PublishTo(b contract.Broker) func(ctx context.Context, r Record) error {
	return func(ctx context.Context, r Record) error {
		var e contract.Event
		if err := json.Unmarshal(r.Event, &e); err != nil {
			return fmt.Errorf("%w: the stored event cannot be decoded: %w", ErrRejected, err)
		}
		err := b.Publish(ctx, e)
		switch {
		case err == nil:
			return nil
		case contract.AsError(err).Permanent():
			return fmt.Errorf("%w: %w", ErrRejected, err)
		case errors.Is(err, contract.ErrUnavailable), errors.Is(err, contract.ErrBlocked):
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		return err
	}
}
