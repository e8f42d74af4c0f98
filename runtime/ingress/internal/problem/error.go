package problem

import (
	"net/http"

	"github.com/rabbet-fn/rabbet/runtime/faas"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/access"
)

// meaning is what an error code means over HTTP.
type meaning struct {
	status      int
	transient   bool   // the same request may succeed later
	hidden      bool   // the detail is not for the client
	proxyStatus string // error type of RFC 9209, where the function could not be reached
}

var meanings = map[faas.Code]meaning{
	faas.CodeInvalid:      {status: http.StatusUnprocessableEntity},
	faas.CodeMalformed:    {status: http.StatusBadRequest},
	faas.CodeUnauthorized: {status: http.StatusUnauthorized},
	faas.CodeForbidden:    {status: http.StatusForbidden},
	faas.CodeNotFound:     {status: http.StatusNotFound},
	faas.CodeConflict:     {status: http.StatusConflict},
	faas.CodeGone:         {status: http.StatusGone},
	faas.CodePrecondition: {status: http.StatusPreconditionFailed},
	faas.CodeThrottled:    {status: http.StatusTooManyRequests, transient: true},
	faas.CodePermanent:    {status: http.StatusInternalServerError},
	faas.CodeExhausted:    {status: http.StatusInternalServerError, hidden: true},
	faas.CodeInternal:     {status: http.StatusInternalServerError, transient: true, hidden: true},
	faas.CodePanic:        {status: http.StatusInternalServerError, hidden: true},
	faas.CodeUnroutable:   {status: http.StatusServiceUnavailable, transient: true, proxyStatus: "destination_unavailable"},
	faas.CodeRefused:      {status: http.StatusServiceUnavailable, transient: true, proxyStatus: "connection_limit_reached"},
	faas.CodeBlocked:      {status: http.StatusServiceUnavailable, transient: true, proxyStatus: "connection_limit_reached"},
	faas.CodeUnavailable:  {status: http.StatusServiceUnavailable, transient: true, proxyStatus: "destination_unavailable"},
	faas.CodeUnconfirmed:  {status: http.StatusGatewayTimeout, transient: true, proxyStatus: "connection_terminated"},
	faas.CodeExpired:      {status: http.StatusGatewayTimeout, transient: true, proxyStatus: "http_response_timeout"},
	faas.CodeLost:         {status: http.StatusBadGateway, transient: true, proxyStatus: "http_response_incomplete"},
	faas.CodeCanceled:     {status: access.StatusClientGone, transient: true},
}

// FromError returns the problem of a call that failed with err. repeatable says
// whether the call may safely be made twice.
func FromError(err error, repeatable bool) *Problem {
	e := faas.AsError(err)
	m, known := meanings[e.Code]
	if !known {
		m = meanings[faas.CodeInternal]
	}
	p := &Problem{
		Type: typeOf(e.Code), Title: titleOf(m.status), Status: m.status,
		Detail: e.Detail, Errors: e.Fields, Executed: e.Executed,
		RetryAfter: e.After, ProxyStatus: m.proxyStatus, Cause: err,
	}
	if p.Executed == "" {
		p.Executed = faas.ExecutedYes
	}
	if m.hidden || !known {
		p.Detail = "the function failed"
	}
	if p.Executed == faas.ExecutedYes && e.Code == faas.CodeUnavailable {
		p.ProxyStatus = "" // the function itself said so, see faas.RetryAfter
	}
	p.Retryable = m.transient && (repeatable || p.Executed == faas.ExecutedNo || e.Code == faas.CodeThrottled)
	return p
}
