package problem

import (
	"net/http"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/access"
)

// meaning is what an error code means over HTTP.
type meaning struct {
	status      int
	transient   bool   // the same request may succeed later
	hidden      bool   // the detail is not for the client
	proxyStatus string // error type of RFC 9209, where the function could not be reached
}

var meanings = map[contract.Code]meaning{
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
	contract.CodeCanceled:     {status: access.StatusClientGone, transient: true},
}

// FromError returns the problem of a call that failed with err. idempotent says
// whether the call may safely be made twice.
func FromError(err error, idempotent bool) *Problem {
	e := contract.AsError(err)
	m, known := meanings[e.Code]
	if !known {
		m = meanings[contract.CodeInternal]
	}
	p := &Problem{
		Type: typeOf(e.Code), Title: titleOf(m.status), Status: m.status,
		Detail: e.Detail, Errors: e.Fields, Executed: e.Executed,
		RetryAfter: e.After, ProxyStatus: m.proxyStatus, Cause: err,
	}
	if p.Executed == "" {
		p.Executed = contract.ExecutedYes
	}
	if m.hidden || !known {
		p.Detail = "the function failed"
	}
	if p.Executed == contract.ExecutedYes && e.Code == contract.CodeUnavailable {
		p.ProxyStatus = "" // the function itself said so, see faas.RetryAfter
	}
	p.Retryable = m.transient && (idempotent || p.Executed == contract.ExecutedNo || e.Code == contract.CodeThrottled)
	return p
}
