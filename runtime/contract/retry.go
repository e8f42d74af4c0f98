package contract

import (
	"cmp"
	"math"
	"math/rand/v2"
	"time"
)

// Retry says how an event that failed is tried again. The zero value is the
// default policy. It is an Option of OnEvent.
type Retry struct {
	Max    int           `json:"max,omitempty"`    // attempts in all, the first included; 10
	First  time.Duration `json:"first,omitempty"`  // wait after the first failure; 1 s
	Factor float64       `json:"factor,omitempty"` // each wait is this much longer; 2
	Cap    time.Duration `json:"cap,omitempty"`    // no wait is longer; 15 min
	Jitter float64       `json:"jitter,omitempty"` // spread of each wait, 0 to 1; 0.2
}

// FunctionOption makes a Retry an option of faas.OnEvent.
func (Retry) FunctionOption() {}

// Outcome is what becomes of a delivery.
type Outcome string

// The outcomes. A request function only knows OutcomeDone and OutcomeFailed: its caller decides.
const (
	OutcomeDone   Outcome = "done"   // it succeeded: ack
	OutcomeFailed Outcome = "failed" // the caller is told
	OutcomeRetry  Outcome = "retry"  // it comes back later
	OutcomeDead   Outcome = "dead"   // it goes to the dead letters
)

// Decision is the outcome of one run of an event function.
type Decision struct {
	Outcome Outcome
	After   time.Duration // with OutcomeRetry: how long to wait
	Attempt int           // with OutcomeRetry: the number of the next run
	Err     *Error        // with OutcomeRetry and OutcomeDead: why
}

// Decide turns what an event function returned on its n-th attempt (from 1)
// into what becomes of the event.
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
		return Decision{Outcome: OutcomeDead, Err: &Error{Code: CodeExhausted, Detail: "all attempts are used up", Cause: err, Stack: e.Stack}}
	}
	return Decision{Outcome: OutcomeRetry, After: max(e.After, r.wait(attempt)), Attempt: attempt + 1, Err: e}
}

// wait is how long to wait after the n-th attempt.
func (r Retry) wait(attempt int) time.Duration {
	d := float64(r.First) * math.Pow(r.Factor, float64(attempt-1))
	d *= 1 + r.Jitter*(2*rand.Float64()-1)
	return time.Duration(min(d, float64(r.Cap)))
}

// WithDefaults returns r with the default in place of each field that is zero.
func (r Retry) WithDefaults() Retry {
	return Retry{
		Max:    cmp.Or(r.Max, 10),
		First:  cmp.Or(r.First, time.Second),
		Factor: cmp.Or(r.Factor, 2),
		Cap:    cmp.Or(r.Cap, 15*time.Minute),
		Jitter: cmp.Or(r.Jitter, 0.2),
	}
}
