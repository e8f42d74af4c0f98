package ingress

import (
	"net/http"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/access"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/body"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/caching"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/header"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/message"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/problem"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/routing"
)

var errNoWorker = &contract.Error{
	Code: contract.CodeUnroutable, Detail: "the function is known, but no worker hosts it now", Executed: contract.ExecutedNo,
}

// terms are what the header fields of a request ask for.
type terms struct {
	function *routing.Function
	status   int           // of a success
	timeout  time.Duration // how long the client waits, once the request has arrived
}

// parseTerms checks what can be checked before the body is read.
func parseTerms(r *http.Request, f *routing.Function) (terms, *problem.Problem) {
	if len(f.Workers) == 0 && !f.Cached {
		return terms{}, problem.FromError(errNoWorker, f.Idempotent)
	}
	status := f.SuccessStatus()
	if status != http.StatusNoContent && !header.Accepts(r.Header, "application", "json") {
		return terms{}, problem.New(http.StatusNotAcceptable, "the response is application/json, which Accept excludes")
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead && !f.Cached {
		if field := caching.Unchecked(r.Header, f.Schema.HasHeader); field != "" {
			return terms{}, problem.New(http.StatusPreconditionFailed, "%s does not check %s: it would run whatever the entity tag is", f.Name, field)
		}
	}
	timeout, p := parseTimeout(r.Header, f.Timeout)
	return terms{function: f, status: status, timeout: timeout}, p
}

// parseTimeout returns the client's timeout, at most limit; limit is
// contract.DefaultTimeout if it is not positive.
func parseTimeout(h http.Header, limit time.Duration) (time.Duration, *problem.Problem) {
	if limit <= 0 {
		limit = contract.DefaultTimeout
	}
	timeout, ok := header.Timeout(h, limit)
	if !ok {
		return 0, problem.New(http.StatusBadRequest, "Request-Timeout: %q: write seconds, more than none, such as 2 or 0.5", access.Clip(h["Request-Timeout"][0]))
	}
	return timeout, nil
}

// call is a request to a function, parsed.
type call struct {
	terms
	httpRequest *http.Request // for the stages that read more of it
	request     contract.Call
	began       time.Time // when the request had arrived; its deadline counts from then
}

// parseCall reads the body and makes the call. params are the names of the path's
// parameters.
func (i *Ingress) parseCall(w http.ResponseWriter, r *http.Request, t terms, params []string) (call, *problem.Problem) {
	json, p := body.ReadJSON(w, r, i.cfg.MaxBody)
	if p != nil {
		return call{}, p
	}
	record := access.RecordOf(r.Context())
	began := record.Start
	if r.ContentLength != 0 {
		began = time.Now()
	}
	f := t.function
	m, p := message.Build(r, json, params, &f.Schema)
	if p != nil {
		return call{}, p
	}
	return call{terms: t, httpRequest: r, began: began, request: contract.Call{
		Key: f.Keys[0], Function: f.Name, ID: record.ID, Deadline: began.Add(t.timeout),
		Body: m, Correlation: header.Correlation(r.Header, record.ID), Trace: header.Trace(r.Header),
	}}, nil
}
