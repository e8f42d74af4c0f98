package faas

import (
	"fmt"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// Error is a failure with a meaning: what a function returns to say more than
// "try again", and what a call or a publish fails with. NotFound, Invalid and
// the other functions below make one. Its Code says what went wrong, its
// Executed whether the function may have run.
type Error = contract.Error

// FieldError says what does not fit in one field of an input, which it names by
// its JSON pointer: "/email".
type FieldError = contract.FieldError

// Code names what went wrong, in a word that travels.
type Code = contract.Code

// The codes that a function declares. None of them but CodeThrottled is tried
// again; RetryAfter says of any other failure that it shall be.
const (
	CodeInvalid      = contract.CodeInvalid      // the input does not fit
	CodeUnauthorized = contract.CodeUnauthorized // the caller did not say who it is
	CodeForbidden    = contract.CodeForbidden    // the caller may not
	CodeNotFound     = contract.CodeNotFound     // what the input names does not exist
	CodeConflict     = contract.CodeConflict     // what the input names is in another state
	CodeGone         = contract.CodeGone         // it existed and does no longer
	CodePrecondition = contract.CodePrecondition // the caller's condition does not hold
	CodeThrottled    = contract.CodeThrottled    // the caller asks too often
	CodePermanent    = contract.CodePermanent    // it failed, and will fail again
)

// Executed says whether the function behind a failed call may have run.
type Executed = contract.Executed

// The values of Executed.
const (
	ExecutedYes     = contract.ExecutedYes
	ExecutedNo      = contract.ExecutedNo
	ExecutedUnknown = contract.ExecutedUnknown
)

// Errors to compare with: errors.Is(err, faas.ErrUnroutable). They compare by
// code.
var (
	ErrNotFound    = contract.ErrNotFound
	ErrInvalid     = contract.ErrInvalid
	ErrConflict    = contract.ErrConflict
	ErrUnroutable  = contract.ErrUnroutable
	ErrRefused     = contract.ErrRefused
	ErrBlocked     = contract.ErrBlocked
	ErrUnavailable = contract.ErrUnavailable
	ErrUnconfirmed = contract.ErrUnconfirmed
	ErrExpired     = contract.ErrExpired
	ErrLost        = contract.ErrLost
)

// NotFound says that what the input names does not exist: 404 over HTTP, and
// no retry for an event. So do its siblings below, each with its own code.
func NotFound(format string, a ...any) error { return contract.Errorf(CodeNotFound, format, a...) }

// Invalid says that the input makes no sense: 422 over HTTP.
func Invalid(format string, a ...any) error { return contract.Errorf(CodeInvalid, format, a...) }

// InvalidField is Invalid for one field, named by its JSON pointer ("/email").
func InvalidField(pointer, format string, a ...any) error {
	return &Error{
		Code: CodeInvalid, Detail: "the input does not fit",
		Fields: []FieldError{{Pointer: pointer, Detail: fmt.Sprintf(format, a...)}},
	}
}

// Unauthorized says that the caller must say who it is: 401 over HTTP.
func Unauthorized(format string, a ...any) error {
	return contract.Errorf(CodeUnauthorized, format, a...)
}

// Forbidden says that the caller may not do this: 403 over HTTP.
func Forbidden(format string, a ...any) error { return contract.Errorf(CodeForbidden, format, a...) }

// Conflict says that what the input names is in another state: 409 over HTTP.
func Conflict(format string, a ...any) error { return contract.Errorf(CodeConflict, format, a...) }

// Gone says that what the input names no longer exists: 410 over HTTP.
func Gone(format string, a ...any) error { return contract.Errorf(CodeGone, format, a...) }

// PreconditionFailed says that the caller's condition does not hold: 412 over HTTP.
func PreconditionFailed(format string, a ...any) error {
	return contract.Errorf(CodePrecondition, format, a...)
}

// Throttled says that the caller asks too often: 429 over HTTP.
func Throttled(after time.Duration, format string, a ...any) error {
	err := contract.AsError(contract.Errorf(CodeThrottled, format, a...))
	err.After = after
	return err
}

// Permanent says that it failed and would fail again: 500 over HTTP, and
// straight to the dead letters for an event. An error among the arguments is
// kept as the cause.
func Permanent(format string, a ...any) error { return contract.Errorf(CodePermanent, format, a...) }

// RetryAfter says that it failed for now and when to try again: the event
// comes back after d (at least), a call is answered 503 with Retry-After.
func RetryAfter(d time.Duration, err error) error {
	return &Error{Code: contract.CodeUnavailable, Detail: "try again later", After: d, Cause: err, Executed: ExecutedYes}
}

// AsError returns err as an *Error: itself if it is one, else one with the code
// "internal" and err as its cause. It returns nil for nil.
func AsError(err error) *Error { return contract.AsError(err) }
