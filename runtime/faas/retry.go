package faas

import (
	"fmt"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// Retry is the policy by which an event that failed is delivered again. It is an
// Option of OnEvent, and Set.Retry is the default for a whole set:
//
//	faas.Retry{Max: 5, First: 10 * time.Second}
//
// Its fields, each with its default when it is zero: Max, the number of
// attempts, the first included (10); First, the wait after the first failure
// (1 s); Factor, by which each wait is longer than the one before (2); Cap, the
// longest wait (15 min); Jitter, the spread of each wait, from 0 to 1 (0.2).
//
// Next is for a policy that depends on the error: it is called after each failed
// attempt, and returns the wait and whether to try again at all.
type Retry = contract.Retry

// maxOrderedAttempts is the delivery limit of the queue of an ordered function.
const maxOrderedAttempts = 20

// checkRetry reports what is wrong with the retry policy of d.
func checkRetry(d *contract.Descriptor) error {
	if err := d.Retry.Validate(); err != nil {
		return err
	}
	if d.Ordered && d.Retry.WithDefaults().Max > maxOrderedAttempts {
		return fmt.Errorf("faas.Ordered with %d attempts: choose at most %d, which RabbitMQ counts", d.Retry.Max, maxOrderedAttempts)
	}
	return nil
}
