package contract

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"
)

// Invocation tells how one run of a function went: what a log line or a metric
// is made of.
type Invocation struct {
	Function string
	Kind     Kind
	Key      string
	ID       string
	Trace    Trace
	Attempt  int
	Wait     time.Duration // between its arrival at the worker and its start
	Run      time.Duration
	Outcome  Outcome
	After    time.Duration // with OutcomeRetry
	Err      error         // nil on success
}

// Observer is told of every run, after its outcome has taken effect. It must
// be quick and safe for concurrent use.
type Observer func(Invocation)

// MaxReply is how many bytes a reply may have. RabbitMQ 4 takes messages of
// 16 MiB by default, and several replies may be in one.
const MaxReply = 15 << 20

// Function is a function that can be run: what a worker hosts.
type Function struct {
	Descriptor
	Handle Handler
}

// Run runs f on e: see Begin.
func (f *Function) Run(ctx context.Context, e *Event, deadline time.Time) (Reply, error) {
	return f.Begin(ctx, e, deadline).Do()
}

// Run is one run of a function.
type Run struct {
	function *Function
	event    *Event
	late     bool // its deadline has passed before it begins
	ctx      runContext
}

// Begin returns a run of f on e that ends with ctx, with the function's own
// limit, or with deadline if that is sooner (zero: none). Do does it.
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

// Cancel ends the ctx of the run. It may be called at any time.
func (r *Run) Cancel() { r.ctx.cancel() }

// Do runs the function, once, and turns a panic into an error. A run whose
// deadline had passed already fails with CodeExpired and Executed "no". Of the
// reply it fills in the body and what became of the session.
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

// ofRun is what a run that returned err, with ctx as it was then, failed with.
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
		// Of a publish or a call that the function made. Whatever became of
		// that one, this function has run, and does not say so itself.
		own := &Error{Code: CodeInternal, Detail: "the function failed", After: e.After, Executed: ExecutedYes, Cause: err}
		if e.Permanent() {
			own.Code = CodePermanent
		}
		return own
	}
	return err
}

// Expired is the error of a call whose deadline passed.
func Expired(executed Executed) *Error {
	detail := "the deadline passed"
	if executed == ExecutedNo {
		detail = "the deadline passed before the function started"
	}
	return &Error{Code: CodeExpired, Detail: detail, Executed: executed}
}
