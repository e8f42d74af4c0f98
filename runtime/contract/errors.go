package contract

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Code is the kind of an error. It travels with replies and dead letters.
type Code string

// The codes that functions return. Errors with these codes are permanent, except
// CodeThrottled.
const (
	CodeInvalid      Code = "invalid"             // the input does not fit
	CodeUnauthorized Code = "unauthorized"        // the caller is not authenticated
	CodeForbidden    Code = "forbidden"           // the caller is not allowed to do this
	CodeNotFound     Code = "not-found"           // what the input names does not exist
	CodeConflict     Code = "conflict"            // the state of what the input names does not allow it
	CodeGone         Code = "gone"                // what the input names no longer exists
	CodePrecondition Code = "precondition-failed" // a condition of the caller does not hold
	CodeThrottled    Code = "throttled"           // too many requests
	CodePermanent    Code = "permanent"           // it would fail again
)

// The codes that the runtime returns.
const (
	CodeMalformed   Code = "malformed"   // the body does not have its content type
	CodeInternal    Code = "internal"    // the function returned an error without a code
	CodePanic       Code = "panic"       // the function panicked
	CodeUnroutable  Code = "unroutable"  // no queue is bound to the routing key
	CodeRefused     Code = "refused"     // the queue is full
	CodeBlocked     Code = "blocked"     // the broker blocks publishers: it is short of memory or disk
	CodeUnavailable Code = "unavailable" // no connection, a limit is reached, or the process stops; it was not sent
	CodeUnconfirmed Code = "unconfirmed" // it was sent, but the confirmation or the reply did not arrive
	CodeExpired     Code = "expired"     // the deadline passed
	CodeCanceled    Code = "canceled"    // the caller canceled it
	CodeLost        Code = "lost"        // the worker died during the call, or its reply is unreadable
	CodeExhausted   Code = "exhausted"   // all attempts are used up
)

// Executed says whether the function may have run.
type Executed string

// The values of Executed.
const (
	ExecutedYes     Executed = "yes"
	ExecutedNo      Executed = "no"
	ExecutedUnknown Executed = "unknown"
)

// Error is an error with a code. Calls and publishes fail with it, and functions
// return it to say more than "try again".
//
// errors.Is compares it with the errors below by code:
// errors.Is(err, contract.ErrUnroutable).
type Error struct {
	Code     Code
	Detail   string        // for the caller; without internals
	Fields   []FieldError  // the fields that do not fit, with CodeInvalid
	After    time.Duration // shortest wait before the next attempt; 0 leaves it to the policy
	Executed Executed      // whether the function may have run; "" means yes
	Cause    error         // for the log and the dead letter; never sent to the caller
	Stack    []byte        // stack of a panic, for the log and the dead letter
}

// FieldError describes what is wrong with one field of an input.
type FieldError struct {
	Pointer string `json:"pointer"` // RFC 6901, "" is the whole input
	Detail  string `json:"detail"`
}

// MaxFieldErrors is the largest number of field errors in one Error. It bounds the
// size of a reply and of a log line.
const MaxFieldErrors = 100

// Errors to compare with errors.Is. Broker documents which of them it returns.
var (
	ErrNotFound    = &Error{Code: CodeNotFound}
	ErrInvalid     = &Error{Code: CodeInvalid}
	ErrConflict    = &Error{Code: CodeConflict}
	ErrUnroutable  = &Error{Code: CodeUnroutable}
	ErrRefused     = &Error{Code: CodeRefused}
	ErrBlocked     = &Error{Code: CodeBlocked}
	ErrUnavailable = &Error{Code: CodeUnavailable}
	ErrUnconfirmed = &Error{Code: CodeUnconfirmed}
	ErrExpired     = &Error{Code: CodeExpired}
	ErrLost        = &Error{Code: CodeLost}
)

// Error returns the code, the detail, the field errors and the cause.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(string(e.Code))
	if e.Detail != "" {
		b.WriteString(": " + e.Detail)
	}
	for _, f := range e.Fields {
		b.WriteString("; " + f.Pointer + ": " + f.Detail)
	}
	if e.Cause != nil && !strings.HasSuffix(e.Detail, e.Cause.Error()) { // %w has included it already
		b.WriteString(": " + e.Cause.Error())
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Is reports whether target is an *Error with the same code.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}

// Permanent reports whether another attempt would fail again.
func (e *Error) Permanent() bool {
	switch e.Code {
	case CodeInvalid, CodeUnauthorized, CodeForbidden, CodeNotFound, CodeConflict, CodeGone,
		CodePrecondition, CodePermanent, CodeMalformed, CodeExhausted:
		return true
	}
	return false
}

// AsError returns the *Error in the chain of err, or else a new one with
// CodeInternal and err as its cause. It returns nil for nil.
func AsError(err error) *Error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Code: CodeInternal, Detail: "the function failed", Cause: err}
}

// Errorf returns an *Error with this code and the formatted detail. The first
// error among the arguments becomes its cause, whatever its verb. Without
// arguments the format is the detail.
func Errorf(code Code, format string, a ...any) error {
	detail := format
	if len(a) > 0 {
		detail = fmt.Errorf(format, a...).Error() // knows %w, unlike Sprintf
	}
	return &Error{Code: code, Detail: detail, Cause: causeOf(a)}
}

// causeOf returns the first error among the arguments.
func causeOf(a []any) error {
	for _, v := range a {
		if err, ok := v.(error); ok {
			return err
		}
	}
	return nil
}
