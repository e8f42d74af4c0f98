package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/functions/stores"
	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// relay publishes over b what the functions have stored to be published, until
// stop is called, which lets what is under way finish.
func relay(outbox *stores.Outbox, b contract.Broker, log *zap.Logger) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { // ends when stop is called
		defer close(done)
		outbox.Relay(ctx, stores.Relay{
			Publish: func(ctx context.Context, r stores.Record) error { return publishRecord(ctx, b, r) },
			Report:  func(err error) { log.Warn("outbox", zap.Error(err)) },
		})
	}()
	return func() { cancel(); <-done }
}

// publishRecord publishes one, and gives a failure its meaning to the outbox.
func publishRecord(ctx context.Context, b contract.Broker, r stores.Record) error {
	var e contract.Event
	if err := json.Unmarshal(r.Event, &e); err != nil {
		return fmt.Errorf("%w: what is stored is no event: %w", stores.ErrRejected, err)
	}
	err := b.Publish(ctx, e)
	switch {
	case err == nil:
		return nil
	case contract.AsError(err).Permanent():
		return fmt.Errorf("%w: %w", stores.ErrRejected, err)
	case errors.Is(err, contract.ErrUnavailable), errors.Is(err, contract.ErrBlocked):
		return fmt.Errorf("%w: %w", stores.ErrUnavailable, err)
	}
	return err
}
