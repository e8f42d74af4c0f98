package contract

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime/debug"
	"time"
)

// Retry is the policy by which an event that failed is delivered again. The zero
// value is the default policy. Its waits grow exponentially: First after the
// first failure, then each Factor times the previous one, up to Cap, each spread
// at random by Jitter.
//
// It is an option of faas.OnEvent.
type Retry struct {
	// Max is the number of attempts, the first included; 0 means 10.
	Max int `json:"max,omitempty"`
	// First is the wait after the first failure; 0 means 1 s.
	First time.Duration `json:"first,omitempty"`
	// Factor multiplies the wait after each further failure, 1 or more; 0 means 2.
	Factor float64 `json:"factor,omitempty"`
	// Cap is the longest wait; 0 means 15 min.
	Cap time.Duration `json:"cap,omitempty"`
	// Jitter is the largest random change of a wait, as a part of it, from 0 to
	// 1; 0 means 0.2: a wait of 10 s becomes one of 8 to 12 s.
	Jitter float64 `json:"jitter,omitempty"`

	// Next, if it is not nil, replaces First, Factor, Cap and Jitter. It is
	// called in the worker after attempt (from 1) failed with err, and returns
	// the wait before the next attempt, and whether there is one: with false the
	// event becomes a dead letter. It is not called for errors that are
	// permanent, nor after Max attempts. It must be safe for concurrent use.
	Next func(attempt int, err error) (wait time.Duration, again bool) `json:"-"`
}

// FunctionOption makes a Retry an option of faas.OnEvent.
func (Retry) FunctionOption() {}

// WithDefaults returns r with the default in place of each field that is zero.
func (r Retry) WithDefaults() Retry {
	r.Max = cmp.Or(r.Max, 10)
	r.First = cmp.Or(r.First, time.Second)
	r.Factor = cmp.Or(r.Factor, 2)
	r.Cap = cmp.Or(r.Cap, 15*time.Minute)
	r.Jitter = cmp.Or(r.Jitter, 0.2)
	return r
}

// Validate reports the first field of r that is out of its bounds.
func (r Retry) Validate() error {
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

// Outcome is what a worker does with a delivery after its function has run.
type Outcome string

// The outcomes. A request function has only OutcomeDone and OutcomeFailed: its
// caller decides whether to try again.
const (
	OutcomeDone   Outcome = "done"   // it succeeded: acknowledge
	OutcomeFailed Outcome = "failed" // the error is the reply: acknowledge
	OutcomeRetry  Outcome = "retry"  // deliver it again later
	OutcomeDead   Outcome = "dead"   // move it to the dead letters
)

// Decision is what becomes of an event after one run of its function.
type Decision struct {
	Outcome Outcome
	After   time.Duration // with OutcomeRetry: how long to wait
	Attempt int           // with OutcomeRetry: the number of the next attempt
	Err     *Error        // with OutcomeRetry and OutcomeDead: why
}

// Decide returns what becomes of an event whose function returned err on this
// attempt, counted from 1. A wait is never shorter than the error's After.
func (r Retry) Decide(err error, attempt int) Decision {
	if err == nil {
		return Decision{Outcome: OutcomeDone}
	}
	e := AsError(err)
	if e.Permanent() {
		return Decision{Outcome: OutcomeDead, Err: e}
	}
	if e.Executed == ExecutedNo { // see Postpone
		return Decision{Outcome: OutcomeRetry, After: e.After, Attempt: attempt, Err: e}
	}
	r = r.WithDefaults()
	if attempt >= r.Max {
		return exhausted("all attempts are used up", err, e)
	}
	wait, again := r.exponential(attempt), true
	if r.Next != nil {
		var failure *Error
		if wait, again, failure = r.callNext(attempt, err); failure != nil {
			wait, again, e = r.exponential(attempt), true, failure
		}
	}
	if !again {
		return exhausted("the retry policy gave up", err, e)
	}
	return Decision{Outcome: OutcomeRetry, After: max(e.After, wait, 0), Attempt: attempt + 1, Err: e}
}

func exhausted(detail string, cause error, e *Error) Decision {
	return Decision{Outcome: OutcomeDead, Err: &Error{Code: CodeExhausted, Detail: detail, Cause: cause, Stack: e.Stack}}
}

// exponential returns the wait after the n-th attempt.
func (r Retry) exponential(n int) time.Duration {
	d := float64(r.First) * math.Pow(r.Factor, float64(n-1))
	d *= 1 + r.Jitter*(2*rand.Float64()-1)
	return time.Duration(min(d, float64(r.Cap)))
}

// callNext calls r.Next. A panic in it must not stop the worker: it is returned
// as failure.
func (r Retry) callNext(attempt int, err error) (wait time.Duration, again bool, failure *Error) {
	defer func() {
		if p := recover(); p != nil {
			failure = &Error{Code: CodePanic, Detail: "the retry policy failed", Cause: fmt.Errorf("%v, about: %w", p, err), After: AsError(err).After, Stack: debug.Stack()}
		}
	}()
	wait, again = r.Next(attempt, err)
	return wait, again, nil
}
