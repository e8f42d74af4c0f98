package faas

import (
	"errors"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// Retry says how an event that failed is tried again: Max attempts in all, the
// first included (10 by default); the wait after the first failure, First (1 s);
// the Factor by which each wait is longer than the one before (2); the longest
// wait, Cap (15 min); and the spread of each wait, Jitter (0.2, from 0 to 1). It
// is an Option of OnEvent; a field that is zero has its default.
type Retry = contract.Retry

// checkRetry says what about r cannot work.
func checkRetry(r Retry) error {
	d := r.WithDefaults()
	switch {
	case d.Max < 1:
		return errors.New("faas.Retry: Max must be at least 1")
	case d.First < 0 || d.Cap < 0:
		return errors.New("faas.Retry: First and Cap must not be negative")
	case d.Factor < 1:
		return errors.New("faas.Retry: Factor must be at least 1")
	case d.Jitter < 0 || d.Jitter > 1:
		return errors.New("faas.Retry: Jitter must be between 0 and 1")
	}
	return nil
}
