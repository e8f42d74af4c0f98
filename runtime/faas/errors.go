package faas

import (
	"fmt"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// Error is an error with a Code. A function returns one, made by NotFound, Invalid
// and so on, to say more than "try again". Calls and publishes fail with one; its
// Executed says whether the function may have run.
type Error = contract.Error

// FieldError describes what is wrong with one field of an input. It names the field
// by its JSON pointer (RFC 6901): "/email".
type FieldError = contract.FieldError

// Code is the kind of an Error.
type Code = contract.Code

// The codes that functions return. Errors with these codes are permanent, except
// CodeThrottled.
const (
	CodeInvalid      = contract.CodeInvalid      // the input does not fit
	CodeUnauthorized = contract.CodeUnauthorized // the caller is not authenticated
	CodeForbidden    = contract.CodeForbidden    // the caller is not allowed to do this
	CodeNotFound     = contract.CodeNotFound     // what the input names does not exist
	CodeConflict     = contract.CodeConflict     // the state of what the input names does not allow it
	CodeGone         = contract.CodeGone         // what the input names no longer exists
	CodePrecondition = contract.CodePrecondition // a condition of the caller does not hold
	CodeThrottled    = contract.CodeThrottled    // too many requests
	CodePermanent    = contract.CodePermanent    // it would fail again
)

// Executed says whether the function of a failed call may have run.
type Executed = contract.Executed

// The values of Executed.
const (
	ExecutedYes     = contract.ExecutedYes
	ExecutedNo      = contract.ExecutedNo
	ExecutedUnknown = contract.ExecutedUnknown
)

// Errors to compare with, by code: errors.Is(err, faas.ErrUnroutable).
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

// NotFound returns an error for an input that names something that does not exist.
// Over HTTP its status is 404. An event that fails with it becomes a dead letter at
// once, as with the other errors below except Throttled and RetryAfter.
//
// The detail is sent to the caller. An error among the arguments becomes the cause,
// which is only logged.
func NotFound(format string, a ...any) error { return contract.Errorf(CodeNotFound, format, a...) }

// Invalid returns an error for an input that makes no sense: 422 over HTTP.
func Invalid(format string, a ...any) error { return contract.Errorf(CodeInvalid, format, a...) }

// InvalidField is Invalid for one field, which it names by its JSON pointer:
// "/email".
func InvalidField(pointer, format string, a ...any) error {
	return &Error{
		Code: CodeInvalid, Detail: "the input does not fit",
		Fields: []FieldError{{Pointer: pointer, Detail: fmt.Sprintf(format, a...)}},
	}
}

// Unauthorized returns an error for a caller that is not authenticated: 401 over
// HTTP.
func Unauthorized(format string, a ...any) error {
	return contract.Errorf(CodeUnauthorized, format, a...)
}

// Forbidden returns an error for a caller that is not allowed to do this: 403 over
// HTTP.
func Forbidden(format string, a ...any) error { return contract.Errorf(CodeForbidden, format, a...) }

// Conflict returns an error for an input that does not fit the present state: 409
// over HTTP.
func Conflict(format string, a ...any) error { return contract.Errorf(CodeConflict, format, a...) }

// Gone returns an error for an input that names something that no longer exists:
// 410 over HTTP.
func Gone(format string, a ...any) error { return contract.Errorf(CodeGone, format, a...) }

// PreconditionFailed returns an error for a condition of the caller that does not
// hold: 412 over HTTP.
func PreconditionFailed(format string, a ...any) error {
	return contract.Errorf(CodePrecondition, format, a...)
}

// Throttled returns an error for too many requests: 429 over HTTP, with Retry-After.
// An event is delivered again after the given time or later.
func Throttled(after time.Duration, format string, a ...any) error {
	err := contract.AsError(contract.Errorf(CodeThrottled, format, a...))
	err.After = after
	return err
}

// Permanent returns an error for a failure that would happen again: 500 over HTTP.
func Permanent(format string, a ...any) error { return contract.Errorf(CodePermanent, format, a...) }

// RetryAfter returns an error for a temporary failure: an event is delivered again
// after d or later, and a call fails with 503 and Retry-After over HTTP.
func RetryAfter(d time.Duration, err error) error {
	return &Error{Code: contract.CodeUnavailable, Detail: "try again later", After: d, Cause: err, Executed: ExecutedYes}
}

// AsError returns the *Error in the chain of err, or else a new one with the code
// "internal" and err as its cause. It returns nil for nil.
func AsError(err error) *Error { return contract.AsError(err) }
