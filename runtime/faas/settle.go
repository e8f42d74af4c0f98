package faas

import (
	"cmp"
	"errors"
	"math"
	"math/rand/v2"
	"time"
)

// Outcome is what becomes of a delivery.
type Outcome string

// The outcomes. A request function only knows Done and Failed: its caller decides.
const (
	Done   Outcome = "done"   // it succeeded: ack
	Failed Outcome = "failed" // the caller is told
	Again  Outcome = "retry"  // it comes back later
	Dead   Outcome = "dead"   // it goes to the dead letters
)

// Verdict is the outcome of one run of an event function.
type Verdict struct {
	Outcome Outcome
	After   time.Duration // with Again: how long to wait
	Attempt int           // with Again: the number of the next run
	Err     *Error        // with Again and Dead: why
}

// Judge turns what an event function returned on its n-th attempt (from 1)
// into what becomes of the event.
func (r Retry) Judge(err error, attempt int) Verdict {
	if err == nil {
		return Verdict{Outcome: Done}
	}
	e := AsError(err)
	if e.Permanent() {
		return Verdict{Outcome: Dead, Err: e}
	}
	if e.Executed == ExecutedNo { // see Postpone
		return Verdict{Outcome: Again, After: e.After, Attempt: attempt, Err: e}
	}
	r = r.withDefaults()
	if attempt >= r.Max {
		return Verdict{Outcome: Dead, Err: &Error{Code: CodeExhausted, Detail: "all attempts are used up", Cause: err, Stack: e.Stack}}
	}
	return Verdict{Outcome: Again, After: max(e.After, r.wait(attempt)), Attempt: attempt + 1, Err: e}
}

// wait is how long to wait after the n-th attempt.
func (r Retry) wait(attempt int) time.Duration {
	d := float64(r.First) * math.Pow(r.Factor, float64(attempt-1))
	d *= 1 + r.Jitter*(2*rand.Float64()-1)
	return time.Duration(min(d, float64(r.Cap)))
}

func (r Retry) withDefaults() Retry {
	return Retry{
		Max:    cmp.Or(r.Max, 10),
		First:  cmp.Or(r.First, time.Second),
		Factor: cmp.Or(r.Factor, 2),
		Cap:    cmp.Or(r.Cap, 15*time.Minute),
		Jitter: cmp.Or(r.Jitter, 0.2),
	}
}

func (r Retry) validate() error {
	d := r.withDefaults()
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
