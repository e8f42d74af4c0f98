package ingress

import (
	"context"
	"net/http"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/caching"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/problem"
)

// Results serves the results of functions that say faas.Cached: stored ones from
// a cache, others through next. A cache that is down is no error. A call returns
// at r.Deadline at the latest, also when it waits for the same call of another
// request.
type Results interface {
	Call(ctx context.Context, next contract.Caller, f *contract.Descriptor, r contract.Call, want contract.CacheDirectives) (contract.CacheResult, error)
}

// callCached makes the call through the cache.
func (i *Ingress) callCached(ctx context.Context, c *call) (result, *problem.Problem) {
	f := c.function
	directives := caching.Directives(c.httpRequest.Header)
	identity, shared := f.Caching.Identify(c.httpRequest)
	if !shared {
		directives.NoStore, directives.NoCache = true, true
	}
	if directives.OnlyIfCached && directives.NoCache {
		return result{}, notCached()
	}
	request := c.request
	request.Identity = identity
	var next contract.Caller = i.cfg.Broker
	if len(f.Workers) == 0 {
		next = noWorker{}
	}
	cached, err := i.cfg.Results.Call(ctx, next, &f.Descriptor, request, directives)
	if !shared {
		cached.Forward = "bypass"
	}
	if err != nil {
		return result{}, c.cachedProblemOf(&cached, directives, err)
	}
	return result{body: cached.Body, took: time.Since(c.began), run: cached.Run, cached: cached, directives: directives}, nil
}

// noWorker is the Caller of a function that no worker hosts. What is stored can
// still be served.
type noWorker struct{}

func (noWorker) Call(context.Context, contract.Call) (contract.Reply, error) {
	return contract.Reply{}, errNoWorker
}

// cachedProblemOf returns the problem of a call through the cache: of an error that
// was stored, or of a new one.
func (c *call) cachedProblemOf(cached *contract.CacheResult, directives contract.CacheDirectives, err error) *problem.Problem {
	if directives.OnlyIfCached && !cached.Hit {
		return notCached()
	}
	p := c.problemOf(err)
	p.Attempt = c.attempt(cached)
	p.SetHeader("Cache-Status", caching.Status(cached, true))
	if cached.Hit {
		p.Executed = contract.ExecutedNo
		p.SetHeader("Age", caching.Seconds(cached.Age))
	}
	return p
}

// attempt returns how often the call was passed to the broker.
func (c *call) attempt(cached *contract.CacheResult) int {
	if cached.Hit || len(c.function.Workers) == 0 {
		return 0
	}
	return 1
}

func notCached() *problem.Problem {
	return problem.New(http.StatusGatewayTimeout, "only-if-cached: nothing is stored for this request")
}
