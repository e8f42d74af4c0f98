package contract

import "time"

// Refuse returns the error of a Handler that did not run its function because the
// input is invalid. Run reports err with ExecutedNo.
func Refuse(err error) error {
	e := *AsError(err)
	e.Executed = ExecutedNo
	return refusal{&e}
}

// Postpone returns the error of a Handler that did not run its function and wants
// the event to be delivered again after d or later. It does not count as an
// attempt.
func Postpone(d time.Duration, cause error) error {
	return refusal{&Error{Code: CodeUnavailable, Detail: "it is not run yet", After: d, Cause: cause, Executed: ExecutedNo}}
}

// refusal is the error of a Handler that did not run its function. Run replaces it
// with err. A refused call that the function itself makes therefore never looks
// like a refusal of the function.
type refusal struct{ err *Error }

func (r refusal) Error() string { return r.err.Error() }
func (r refusal) Unwrap() error { return r.err }
