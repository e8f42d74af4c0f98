package wire

import (
	"encoding/json"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// failure is the body of a reply with an error: JSON beside the code, which is in
// the header rabbet-error or in the record of a frame. The cause and the stack
// stay in the worker.
type failure struct {
	Detail   string                `json:"detail,omitempty"`   // for the caller
	Fields   []contract.FieldError `json:"fields,omitempty"`   // invalid fields
	AfterMs  int64                 `json:"afterMs,omitempty"`  // milliseconds before a retry
	Executed contract.Executed     `json:"executed,omitempty"` // "" means that the function was executed
}

// EncodeFailure returns what a caller learns of e.
func EncodeFailure(e *contract.Error) []byte {
	body, err := json.Marshal(failure{
		Detail: e.Detail, Fields: e.Fields, AfterMs: e.After.Milliseconds(), Executed: e.Executed,
	})
	if err != nil { // strings and numbers always encode
		return []byte("{}")
	}
	return body
}

// DecodeFailure returns the error of a reply with this code. A body that is not a
// failure, as other clients may send, is ignored.
func DecodeFailure(code contract.Code, body []byte) *contract.Error {
	var f failure
	if json.Unmarshal(body, &f) != nil || f.AfterMs < 0 || f.AfterMs > int64(maxAfter/time.Millisecond) {
		f = failure{Detail: "the function failed"}
	}
	if len(code) > maxCode {
		code = contract.CodeInternal
	}
	return &contract.Error{
		Code: code, Detail: f.Detail, Fields: f.Fields, Executed: f.Executed,
		After: time.Duration(f.AfterMs) * time.Millisecond,
	}
}

// Limits of a failure; other values are replaced.
const (
	maxAfter = 30 * 24 * time.Hour
	maxCode  = 64 // bytes
)
