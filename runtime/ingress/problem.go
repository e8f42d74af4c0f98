package ingress

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// statusClientGone is what NGINX logs for a client that left: nobody gets it.
const statusClientGone = 499

// problem is an RFC 9457 problem document, and what its response says in
// header fields.
type problem struct {
	Type      string                `json:"type"`
	Title     string                `json:"title"`
	Status    int                   `json:"status"`
	Detail    string                `json:"detail,omitempty"`
	Instance  string                `json:"instance,omitempty"` // the path of the request
	Function  string                `json:"function,omitempty"`
	CallID    string                `json:"callId"`
	Attempt   int                   `json:"attempt"` // how often the call was handed to the broker: 0 or 1
	Executed  contract.Executed     `json:"executed"`
	Retryable bool                  `json:"retryable"`
	Errors    []contract.FieldError `json:"errors,omitempty"`

	after       time.Duration // Retry-After
	proxyStatus string        // error type of RFC 9209
	allow       string        // Allow
	cause       error         // for the log
}

// refuse is the problem of a request that the ingress itself turns down.
func refuse(status int, format string, a ...any) *problem {
	return &problem{
		Type: "about:blank", Title: titleOf(status), Status: status,
		Detail: fmt.Sprintf(format, a...), Executed: contract.ExecutedNo,
	}
}

// unfit is the problem of an input that does not fit the function's schema.
func unfit(fields ...contract.FieldError) *problem {
	p := refuse(http.StatusUnprocessableEntity, "the input does not fit")
	p.Type, p.Errors = typeOf(contract.CodeInvalid), fields[:min(len(fields), contract.MaxFieldErrors)]
	return p
}

func typeOf(c contract.Code) string { return "urn:rabbet:" + string(c) }

func titleOf(status int) string {
	if status == statusClientGone {
		return "Client Closed Request"
	}
	return http.StatusText(status)
}

// answer is how a code looks over HTTP.
type answer struct {
	status      int
	transient   bool   // the same request may succeed later
	hidden      bool   // the detail is not for the caller
	proxyStatus string // RFC 9209, where the way to the function is to blame
}

var answers = map[contract.Code]answer{
	contract.CodeInvalid:      {status: http.StatusUnprocessableEntity},
	contract.CodeMalformed:    {status: http.StatusBadRequest},
	contract.CodeUnauthorized: {status: http.StatusUnauthorized},
	contract.CodeForbidden:    {status: http.StatusForbidden},
	contract.CodeNotFound:     {status: http.StatusNotFound},
	contract.CodeConflict:     {status: http.StatusConflict},
	contract.CodeGone:         {status: http.StatusGone},
	contract.CodePrecondition: {status: http.StatusPreconditionFailed},
	contract.CodeThrottled:    {status: http.StatusTooManyRequests, transient: true},
	contract.CodePermanent:    {status: http.StatusInternalServerError},
	contract.CodeExhausted:    {status: http.StatusInternalServerError, hidden: true},
	contract.CodeInternal:     {status: http.StatusInternalServerError, transient: true, hidden: true},
	contract.CodePanic:        {status: http.StatusInternalServerError, hidden: true},
	contract.CodeUnroutable:   {status: http.StatusServiceUnavailable, transient: true, proxyStatus: "destination_unavailable"},
	contract.CodeRefused:      {status: http.StatusServiceUnavailable, transient: true, proxyStatus: "connection_limit_reached"},
	contract.CodeBlocked:      {status: http.StatusServiceUnavailable, transient: true, proxyStatus: "connection_limit_reached"},
	contract.CodeUnavailable:  {status: http.StatusServiceUnavailable, transient: true, proxyStatus: "destination_unavailable"},
	contract.CodeUnconfirmed:  {status: http.StatusGatewayTimeout, transient: true, proxyStatus: "connection_terminated"},
	contract.CodeExpired:      {status: http.StatusGatewayTimeout, transient: true, proxyStatus: "http_response_timeout"},
	contract.CodeLost:         {status: http.StatusBadGateway, transient: true, proxyStatus: "http_response_incomplete"},
	contract.CodeCanceled:     {status: statusClientGone, transient: true},
}

// problemOf is how a failed call looks over HTTP. idempotent says whether the
// client may repeat the call.
func problemOf(err error, idempotent bool) *problem {
	e := contract.AsError(err)
	a, known := answers[e.Code]
	if !known {
		a = answers[contract.CodeInternal]
	}
	p := &problem{
		Type: typeOf(e.Code), Title: titleOf(a.status), Status: a.status,
		Detail: e.Detail, Errors: e.Fields, Executed: e.Executed,
		after: e.After, proxyStatus: a.proxyStatus, cause: err,
	}
	if p.Executed == "" {
		p.Executed = contract.ExecutedYes
	}
	if a.hidden || !known {
		p.Detail = "the function failed"
	}
	if p.Executed == contract.ExecutedYes && e.Code == contract.CodeUnavailable {
		p.proxyStatus = "" // the function's own word, see faas.RetryAfter
	}
	p.Retryable = a.transient && (idempotent || p.Executed == contract.ExecutedNo || e.Code == contract.CodeThrottled)
	return p
}

// fail writes the problem as the response.
func (x *exchange) fail(p *problem) {
	r := x.request
	x.cause = p.cause
	if errors.Is(x.context().Err(), context.Canceled) || x.unwatched && x.conn.left() {
		x.gone = true
	}
	p.Instance, p.CallID = limited(r.URL.EscapedPath()), x.id
	if x.function != nil {
		p.Function = x.function.Name
	}
	if x.sent {
		p.Attempt = 1
	}
	body, err := json.Marshal(p)
	if err != nil { // never: there is nothing in a problem that JSON lacks
		panic(err)
	}
	x.set("Content-Type", "application/problem+json")
	x.set("Cache-Control", "no-store")
	x.set("X-Content-Type-Options", "nosniff")
	if p.allow != "" {
		x.set("Allow", p.allow)
	}
	if p.Status == http.StatusUnauthorized {
		x.set("Www-Authenticate", "Bearer")
	}
	if p.Status == http.StatusServiceUnavailable || p.Status == http.StatusTooManyRequests {
		x.set("Retry-After", strconv.Itoa(max(1, int(math.Ceil(p.after.Seconds())))))
	}
	if p.proxyStatus != "" {
		x.set("Proxy-Status", "Rabbet; error="+p.proxyStatus)
	}
	x.write(p.Status, body)
}

// selfMeasured is the size up to which net/http finds out a body's length by
// itself, in bytes: its buffer is 2,048. A header field fewer to store, copy and
// sort is worth it: the map of a cached result's fields would outgrow its first
// table of eight by this one.
const selfMeasured = 2000

// write sends a response whose header fields are set but for Content-Length.
func (x *exchange) write(status int, body []byte) {
	if len(body) > selfMeasured || x.request.Method == http.MethodHead {
		x.set("Content-Length", strconv.Itoa(len(body)))
	}
	x.WriteHeader(status)
	if x.request.Method != http.MethodHead {
		if _, err := x.Write(body); err != nil && x.cause == nil {
			x.gone, x.cause = true, err
		}
	}
}
