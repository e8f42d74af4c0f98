package wire

import (
	"encoding/gob"
	"errors"
	"fmt"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// The types that AMQP headers consist of, beyond the basic ones.
func init() {
	gob.Register(time.Time{})
	gob.Register(map[string]any{})
	gob.Register([]any{})
}

// A Failure is a *contract.Error. Its cause is sent as text.
type Failure struct {
	Code     contract.Code
	Detail   string
	Fields   []contract.FieldError
	After    time.Duration
	Executed contract.Executed
	Cause    string
	Stack    []byte
}

// NewFailure returns err as a Failure, or nil for nil. An error that is not a
// *contract.Error has CodeInternal.
func NewFailure(err error) *Failure {
	if err == nil {
		return nil
	}
	e := contract.AsError(err)
	f := &Failure{Code: e.Code, Detail: e.Detail, Fields: e.Fields, After: e.After, Executed: e.Executed, Stack: e.Stack}
	if e.Cause != nil {
		f.Cause = e.Cause.Error()
	}
	return f
}

// Err returns f as a *contract.Error, or nil if f is nil.
func (f *Failure) Err() error {
	if f == nil {
		return nil
	}
	e := &contract.Error{Code: f.Code, Detail: f.Detail, Fields: f.Fields, After: f.After, Executed: f.Executed, Stack: f.Stack}
	if f.Cause != "" {
		e.Cause = errors.New(f.Cause)
	}
	return e
}

// Encodable returns e in a form that can be sent: a header value of an unknown
// type is replaced by its text.
func Encodable(e contract.Event) *contract.Event {
	if len(e.Headers) > 0 {
		headers := make(map[string]any, len(e.Headers))
		for name, v := range e.Headers {
			headers[name] = encodableValue(v)
		}
		e.Headers = headers
	}
	return &e
}

func encodableValue(v any) any {
	switch v := v.(type) {
	case string, bool, int, int8, int16, int32, int64, uint, uint8, uint16, uint32, uint64, float32, float64, []byte, time.Time:
		return v
	case map[string]any:
		m := make(map[string]any, len(v))
		for name, item := range v {
			m[name] = encodableValue(item)
		}
		return m
	case []any:
		list := make([]any, len(v))
		for i, item := range v {
			list[i] = encodableValue(item)
		}
		return list
	}
	return fmt.Sprint(v)
}
