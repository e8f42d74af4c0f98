package contract

import "time"

// Refuse returns the error of a Handler that did not run its function, because
// the input does not fit. Run reports err with ExecutedNo.
func Refuse(err error) error {
	e := *AsError(err)
	e.Executed = ExecutedNo
	return refusal{&e}
}

// Postpone is the error of what stands between a runtime and a function (it
// wraps Function.Handle) and lets an event wait for at least d: the function
// was not run, and no attempt is counted.
func Postpone(d time.Duration, cause error) error {
	return refusal{&Error{Code: CodeUnavailable, Detail: "it is not run yet", After: d, Cause: cause, Executed: ExecutedNo}}
}

// refusal is the error of a delivery that a function was not even run with. It
// does not leave Run, so that a call that the function makes and that is
// refused is not taken for it.
type refusal struct{ err *Error }

func (r refusal) Error() string { return r.err.Error() }
func (r refusal) Unwrap() error { return r.err }
