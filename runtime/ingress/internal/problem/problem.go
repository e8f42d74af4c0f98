// Package problem makes and writes the responses of requests that fail: problem
// documents (RFC 9457) with the header fields that belong to them. It knows the
// codes of errors, and not what caused them.
package problem

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/access"
)

// Problem is a problem document, and what its response says in header fields.
// Write fills in Instance, Function and CallID.
type Problem struct {
	Type      string                `json:"type"`
	Title     string                `json:"title"`
	Status    int                   `json:"status"`
	Detail    string                `json:"detail,omitempty"`
	Instance  string                `json:"instance,omitempty"` // path of the request
	Function  string                `json:"function,omitempty"`
	CallID    string                `json:"callId"`
	Attempt   int                   `json:"attempt"` // how often it was passed to the broker: 0 or 1
	Executed  contract.Executed     `json:"executed"`
	Retryable bool                  `json:"retryable"`
	Errors    []contract.FieldError `json:"errors,omitempty"`

	RetryAfter  time.Duration `json:"-"` // of a 503 and a 429; at least a second is written
	ProxyStatus string        `json:"-"` // error type of RFC 9209; "" for none
	Header      http.Header   `json:"-"` // further header fields; their names are canonical
	Cause       error         `json:"-"` // for the log
}

// New returns the problem of a request that the ingress itself refuses, before
// a function ran.
func New(status int, format string, a ...any) *Problem {
	return &Problem{
		Type: "about:blank", Title: titleOf(status), Status: status,
		Detail: fmt.Sprintf(format, a...), Executed: contract.ExecutedNo,
	}
}

// Malformed returns the problem of a body or an event that cannot be read: a 400.
func Malformed(fields []contract.FieldError, format string, a ...any) *Problem {
	p := New(http.StatusBadRequest, format, a...)
	p.Type, p.Errors = typeOf(contract.CodeMalformed), fields
	return p
}

// Invalid returns the problem of an input that does not fit the function's
// schema: a 422.
func Invalid(fields ...contract.FieldError) *Problem {
	p := New(http.StatusUnprocessableEntity, "the input does not fit")
	p.Type, p.Errors = typeOf(contract.CodeInvalid), fields[:min(len(fields), contract.MaxFieldErrors)]
	return p
}

// Unbound returns the problem of an event that no queue takes: a 404. Neither
// the event nor the broker is at fault.
func Unbound(key string, cause error) *Problem {
	p := New(http.StatusNotFound, "no function listens to %q: the event was not published", access.Clip(key))
	p.Type, p.Cause = typeOf(contract.CodeUnroutable), cause
	return p
}

// Unavailable returns the problem of a process that cannot serve requests at
// present: a 503 that may be retried.
func Unavailable(cause error, format string, a ...any) *Problem {
	p := New(http.StatusServiceUnavailable, format, a...)
	p.Type, p.Retryable, p.Cause = typeOf(contract.CodeUnavailable), true, cause
	return p
}

// Write writes p as the response to r.
func Write(w http.ResponseWriter, r *http.Request, p *Problem) {
	record := access.RecordOf(r.Context())
	record.Cause = p.Cause
	if errors.Is(r.Context().Err(), context.Canceled) {
		record.Gone = true
	}
	p.Instance, p.CallID, p.Function = access.Clip(r.URL.EscapedPath()), record.ID, record.Function
	body, err := json.Marshal(p)
	if err != nil { // cannot happen: JSON can express every field
		panic(err)
	}
	p.setHeader(w.Header())
	access.WriteResponse(w, r, p.Status, body)
}

func (p *Problem) setHeader(h http.Header) {
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	switch p.Status {
	case http.StatusUnauthorized:
		h.Set("Www-Authenticate", "Bearer")
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		h.Set("Retry-After", strconv.Itoa(max(1, int(math.Ceil(p.RetryAfter.Seconds())))))
	}
	if p.ProxyStatus != "" {
		h.Set("Proxy-Status", "Rabbet; error="+p.ProxyStatus)
	}
	maps.Copy(h, p.Header)
}

// SetHeader adds a header field to the response.
func (p *Problem) SetHeader(name, value string) {
	if p.Header == nil {
		p.Header = http.Header{}
	}
	p.Header.Set(name, value)
}

func typeOf(c contract.Code) string { return "urn:rabbet:" + string(c) }

func titleOf(status int) string {
	if status == access.StatusClientGone {
		return "Client Closed Request"
	}
	return http.StatusText(status)
}
