// Package deadletter visits numbered dead letters, in this process or in another
// one. It does not know how they are stored.
package deadletter

import (
	"context"
	"fmt"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// A Store has the dead letters of all functions. A number identifies a letter of
// one function, and a newer letter has a greater number.
type Store interface {
	// Numbers returns the numbers of the function's letters in ascending order. It
	// fails with ErrNotFound if the broker has never hosted the function.
	Numbers(ctx context.Context, function string) ([]uint64, error)
	// Read returns a copy of the letter, or nil if it no longer exists.
	Read(ctx context.Context, function string, number uint64) (*contract.DeadLetter, error)
	// Settle replays, replaces or discards the letter. A copy of it has the given
	// body. Settle fails with ErrConflict if the letter no longer exists, and then
	// there is no copy.
	Settle(ctx context.Context, function string, number uint64, action contract.DeadLetterAction, body []byte) error
}

// Visit calls visit with each letter of the function that exists now, and does
// what visit returns; see contract.DeadLetters.
func Visit(ctx context.Context, s Store, function string, visit func(*contract.DeadLetter) (contract.DeadLetterAction, error)) error {
	numbers, err := s.Numbers(ctx, function)
	if err != nil {
		return err
	}
	for _, number := range numbers {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		letter, err := s.Read(ctx, function, number)
		if err != nil {
			return err
		}
		if letter == nil {
			continue
		}
		action, err := visit(letter)
		if err != nil {
			return err
		}
		switch action {
		case contract.ActionKeep:
		case contract.ActionStop:
			return nil
		default:
			if err := s.Settle(ctx, function, number, action, letter.Event.Body); err != nil {
				return fmt.Errorf("dead letter %q: %w", letter.Event.ID, err)
			}
			if letter.OnRemoved != nil {
				letter.OnRemoved()
			}
		}
	}
	return nil
}
