package wire

import (
	"context"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// ExpiryGrace is how long a call waits past its deadline to learn that it expired
// in its queue, and so was never started.
const ExpiryGrace = 50 * time.Millisecond

// FrameMaxBytes is the size above which a frame takes no further call or reply.
const FrameMaxBytes = 256 << 10

// ErrLost is the outcome of a call that may have run and is not delivered again.
var ErrLost = &contract.Error{
	Code: contract.CodeLost, Executed: contract.ExecutedUnknown,
	Detail: "the worker was lost while it had the call; it may have run and is not run again",
}

// Canceled is the outcome of a call that its caller has abandoned.
func Canceled(executed contract.Executed) *contract.Error {
	return &contract.Error{Code: contract.CodeCanceled, Detail: "the caller went away", Executed: executed, Cause: context.Canceled}
}
