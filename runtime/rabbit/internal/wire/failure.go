package wire

import (
	"encoding/json"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// failure is the body of a reply that carries an error: JSON beside the code,
// which stands in the header rabbet-error, or in the record of a frame. A
// cause or a stack never leaves the worker.
type failure struct {
	Detail   string                `json:"detail,omitempty"`   // for the caller
	Fields   []contract.FieldError `json:"fields,omitempty"`   // what exactly does not fit
	AfterMs  int64                 `json:"afterMs,omitempty"`  // try again no sooner, in milliseconds
	Executed contract.Executed     `json:"executed,omitempty"` // "" means yes: the function answered
}

// EncodeFailure is what e says to a caller.
func EncodeFailure(e *contract.Error) []byte {
	body, err := json.Marshal(failure{
		Detail: e.Detail, Fields: e.Fields, AfterMs: e.After.Milliseconds(), Executed: e.Executed,
	})
	if err != nil { // strings and numbers always encode
		return []byte("{}")
	}
	return body
}

// DecodeFailure is the error that a reply with this code stands for. A body
// that is no failure, as a foreign worker may send, is left out.
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

// What is believed of a failure.
const (
	maxAfter = 30 * 24 * time.Hour
	maxCode  = 64 // bytes
)
