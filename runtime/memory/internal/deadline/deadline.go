// Package deadline limits how long a call takes, and describes calls whose caller
// has stopped waiting.
package deadline

import (
	"context"
	"errors"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// Context returns ctx with the deadline of c. If neither of them has a deadline,
// it sets one in contract.DefaultTimeout.
func Context(ctx context.Context, c contract.Call) (context.Context, context.CancelFunc) {
	if !c.Deadline.IsZero() {
		return context.WithDeadline(ctx, c.Deadline)
	}
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, contract.DefaultTimeout)
}

// Error returns the error of a call whose ctx is done: ErrExpired after its
// deadline, CodeCanceled otherwise. executed says whether the function may have
// run.
func Error(ctx context.Context, executed contract.Executed) *contract.Error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return contract.Expired(executed)
	}
	return &contract.Error{Code: contract.CodeCanceled, Detail: "the caller went away", Cause: ctx.Err(), Executed: executed}
}
