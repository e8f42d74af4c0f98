package contract

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"
)

// Invocation describes one run of a function, for logs and metrics.
type Invocation struct {
	Function string
	Kind     Kind
	Key      string
	ID       string
	Trace    Trace
	Attempt  int
	Wait     time.Duration // from the arrival at the worker to the start
	Run      time.Duration // from the start to the end
	Outcome  Outcome
	After    time.Duration // with OutcomeRetry: the wait before the next attempt
	Err      error         // nil on success
}

// Observer is called after each run, once its outcome has taken effect. It must
// not block, and must be safe for concurrent use.
type Observer func(Invocation)

// MaxReply is the largest size of a reply in bytes. RabbitMQ 4 accepts messages of
// 16 MiB by default, and one message may carry several replies.
const MaxReply = 15 << 20

// Function is a function that a worker can run. Package faas makes one from what an
// author has registered.
type Function struct {
	Descriptor
	Handle Handler
}

// Run runs f on e, as Begin and Do.
func (f *Function) Run(ctx context.Context, e *Event, deadline time.Time) (Reply, error) {
	return f.Begin(ctx, e, deadline).Do()
}

// Run is one run of a function.
type Run struct {
	function *Function
	event    *Event
	late     bool // its deadline has passed before its start
	ctx      runContext
}

// Begin prepares a run of f on e. The context of the run ends with ctx, after the
// function's Timeout, or at deadline unless that is zero, whichever is first.
func (f *Function) Begin(ctx context.Context, e *Event, deadline time.Time) *Run {
	r := &Run{function: f, event: e, ctx: runContext{parent: ctx, meta: Meta{
		Function: f.Name, ID: e.ID, Correlation: e.Correlation, Causation: e.Causation,
		Trace: e.Trace, Attempt: e.Attempt, Redelivered: e.Redelivered,
	}}}
	now := time.Now()
	limit := now.Add(f.Timeout)
	if deadline.IsZero() || limit.Before(deadline) {
		deadline = limit
	} else {
		r.late = !now.Before(deadline)
	}
	r.ctx.deadline = deadline
	return r
}

// Cancel cancels the context of the run. It may be called at any time.
func (r *Run) Cancel() { r.ctx.cancel() }

// Do runs the function. It must be called once. It returns a panic as an error
// with CodePanic. If the deadline passed before Begin, it does not run the function
// and fails with CodeExpired and ExecutedNo. It sets Body and Session of the reply.
func (r *Run) Do() (reply Reply, err error) {
	if r.late {
		return Reply{}, Expired(ExecutedNo)
	}
	f, e := r.function, r.event
	ctx := context.Context(&r.ctx)
	defer r.ctx.cancel()
	var session *ClientSession
	if f.Session {
		if session, err = OpenSession(e.Session); err != nil {
			return Reply{}, err
		}
		ctx = WithSession(ctx, session)
	}
	if f.Sensitive {
		defer func() {
			if err != nil {
				err = withoutSecrets(err, f.InputOf(e.Key), e.Body)
			}
		}()
	}
	defer func() {
		if p := recover(); p != nil {
			reply, err = Reply{}, &Error{Code: CodePanic, Detail: "the function failed", Cause: fmt.Errorf("%v", p), Stack: debug.Stack()}
		}
	}()
	reply.Body, err = f.Handle(ctx, e)
	if err == nil && len(reply.Body) > MaxReply {
		reply.Body, err = nil, Errorf(CodePermanent, "the reply has %d bytes: a message takes %d at the most", len(reply.Body), MaxReply)
	}
	if err == nil && session != nil {
		reply.Session, err = session.encodeChange()
	}
	return reply, ofRun(ctx, err)
}

// ofRun returns the error of a run whose handler returned err, with the context
// that ctx was then.
func ofRun(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if refused, ok := errors.AsType[refusal](err); ok {
		return refused.err // without what a middleware may have put around it
	}
	if cause := ctx.Err(); cause != nil && errors.Is(err, cause) {
		if errors.Is(cause, context.Canceled) {
			return &Error{Code: CodeCanceled, Detail: "it was cancelled while the function ran", Cause: err, Executed: ExecutedUnknown}
		}
		return &Error{Code: CodeExpired, Detail: "the deadline passed while the function ran", Cause: err, Executed: ExecutedUnknown}
	}
	if e, ok := errors.AsType[*Error](err); ok && e.Executed != "" && e.Executed != ExecutedYes {
		// The error of a publish or a call that the function made. Its Executed is
		// about that one; this function has run.
		own := &Error{Code: CodeInternal, Detail: "the function failed", After: e.After, Executed: ExecutedYes, Cause: err}
		if e.Permanent() {
			own.Code = CodePermanent
		}
		return own
	}
	return err
}

// Expired returns the error of a call whose deadline has passed.
func Expired(executed Executed) *Error {
	detail := "the deadline passed"
	if executed == ExecutedNo {
		detail = "the deadline passed before the function started"
	}
	return &Error{Code: CodeExpired, Detail: detail, Executed: executed}
}
