package ingress

import (
	"context"
	"net/http"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/access"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/problem"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/routing"
)

// serveCall calls f with the message that r makes, and writes the result. params
// are the names of the path's parameters.
//
// Each stage passes a value to the next one, or ends with a problem:
//
//	parseTerms   what is asked for, by the header fields      → terms
//	parseCall    the message, of path, query, fields and body → call
//	perform      within the session, by the cache or a worker → result
//	writeResult
func (i *Ingress) serveCall(w http.ResponseWriter, r *http.Request, f *routing.Function, params []string) {
	access.RecordOf(r.Context()).Function = f.Name
	t, p := parseTerms(r, f)
	if p != nil {
		problem.Write(w, r, p)
		return
	}
	if !i.inFlight.acquire() { // before the body is read, which takes memory
		problem.Write(w, r, i.inFlight.full(time.Second))
		return
	}
	defer i.inFlight.release()
	c, p := i.parseCall(w, r, t, params)
	if p != nil {
		problem.Write(w, r, p)
		return
	}
	extendWriteDeadline(w, c.timeout)
	res, p := i.perform(r.Context(), &c)
	if p != nil {
		problem.Write(w, r, p)
		return
	}
	writeResult(w, r, &c, &res)
}

// extendWriteDeadline gives the response of a slow function time to be written:
// the server's WriteTimeout counts from the request's arrival.
func extendWriteDeadline(w http.ResponseWriter, timeout time.Duration) {
	if timeout > writeTimeout/2 {
		// Not every ResponseWriter has deadlines; a connection has.
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(timeout + writeTimeout))
	}
}

// perform makes the call: within the client's session, through the cache, or
// directly.
func (i *Ingress) perform(ctx context.Context, c *call) (result, *problem.Problem) {
	switch {
	case c.function.Session:
		return i.callInSession(ctx, c)
	case c.function.Cached:
		return i.callCached(ctx, c)
	}
	return i.callDirectly(ctx, c)
}

func (i *Ingress) callDirectly(ctx context.Context, c *call) (result, *problem.Problem) {
	reply, err := i.cfg.Broker.Call(ctx, c.request)
	if err != nil {
		return result{}, c.problemOf(err)
	}
	return result{body: reply.Body, took: time.Since(c.began), run: reply.Run}, nil
}

// problemOf returns the problem of a call that was passed to the broker.
func (c *call) problemOf(err error) *problem.Problem {
	p := problem.FromError(err, c.function.Idempotent)
	p.Attempt = 1
	return p
}
