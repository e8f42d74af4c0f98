package contract

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Code names what went wrong, in a word that travels.
type Code string

// The codes that a function declares. None of them but CodeThrottled is tried
// again; RetryAfter says of any other failure that it shall be.
const (
	CodeInvalid      Code = "invalid"             // the input does not fit
	CodeUnauthorized Code = "unauthorized"        // the caller did not say who it is
	CodeForbidden    Code = "forbidden"           // the caller may not
	CodeNotFound     Code = "not-found"           // what the input names does not exist
	CodeConflict     Code = "conflict"            // what the input names is in another state
	CodeGone         Code = "gone"                // it existed and does no longer
	CodePrecondition Code = "precondition-failed" // the caller's condition does not hold
	CodeThrottled    Code = "throttled"           // the caller asks too often
	CodePermanent    Code = "permanent"           // it failed, and will fail again
)

// The codes that a runtime gives.
const (
	CodeMalformed   Code = "malformed"   // the body is not what its content type says
	CodeInternal    Code = "internal"    // the function failed with an error it did not declare
	CodePanic       Code = "panic"       // the function panicked
	CodeUnroutable  Code = "unroutable"  // no queue is bound to the routing key
	CodeRefused     Code = "refused"     // the broker took the message and refused it: its queue is full
	CodeBlocked     Code = "blocked"     // the broker takes nothing at present: it is short of memory or disk
	CodeUnavailable Code = "unavailable" // no connection, at a limit, or stopping; surely not sent
	CodeUnconfirmed Code = "unconfirmed" // sent, and the broker's confirmation or the reply is missing
	CodeExpired     Code = "expired"     // the deadline passed
	CodeCanceled    Code = "canceled"    // the caller went away
	CodeLost        Code = "lost"        // the worker died under the call, or answered rubbish
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

// Error is a failure with a meaning: what a function returns to say more than
// "try again", and what a call or a publish fails with.
//
// The sentinels below compare by code: errors.Is(err, faas.ErrUnroutable).
type Error struct {
	Code     Code
	Detail   string        // for the caller; no internals
	Fields   []FieldError  // what exactly does not fit, with CodeInvalid
	After    time.Duration // try again no sooner; zero leaves it to the policy
	Executed Executed      // may the function have run; "" means yes, it answered
	Cause    error         // for the log and the dead letter; never sent to a caller
	Stack    []byte        // of a panic, for the log and the dead letter
}

// FieldError points at one part of an input.
type FieldError struct {
	Pointer string `json:"pointer"` // RFC 6901, "" is the whole input
	Detail  string `json:"detail"`
}

// MaxFieldErrors is how many mistakes in one input a caller is told of: a body can
// have more than an answer, or a line of the log, has room for.
const MaxFieldErrors = 100

// Sentinels to compare with. Publish and Call document which they return.
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

// Error says the code, the detail and the cause.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(string(e.Code))
	if e.Detail != "" {
		b.WriteString(": " + e.Detail)
	}
	for _, f := range e.Fields {
		b.WriteString("; " + f.Pointer + ": " + f.Detail)
	}
	if e.Cause != nil && !strings.HasSuffix(e.Detail, e.Cause.Error()) { // %w has put it there already
		b.WriteString(": " + e.Cause.Error())
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Is compares codes, so that the sentinels work with errors.Is.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}

// Permanent reports whether trying again cannot help.
func (e *Error) Permanent() bool {
	switch e.Code {
	case CodeInvalid, CodeUnauthorized, CodeForbidden, CodeNotFound, CodeConflict, CodeGone,
		CodePrecondition, CodePermanent, CodeMalformed, CodeExhausted:
		return true
	}
	return false
}

// AsError returns err as an *Error: itself if it is one, else CodeInternal
// with err as the cause. It returns nil for nil.
func AsError(err error) *Error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Code: CodeInternal, Detail: "the function failed", Cause: err}
}

// Errorf returns an *Error with this code, and the rest as its detail. The
// first error among the arguments is kept as its cause, with %w or without.
func Errorf(code Code, format string, a ...any) error {
	detail := format
	if len(a) > 0 {
		detail = fmt.Errorf(format, a...).Error() // knows %w, unlike Sprintf
	}
	return &Error{Code: code, Detail: detail, Cause: causeOf(a)}
}

// causeOf keeps the first error among the arguments for errors.Is.
func causeOf(a []any) error {
	for _, v := range a {
		if err, ok := v.(error); ok {
			return err
		}
	}
	return nil
}
