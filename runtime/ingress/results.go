package ingress

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// Results serves the results of functions that say faas.Cached, from a cache
// where it can and through next otherwise. A cache that is down is no error. A
// call waits no longer than r.Deadline, for others' calls either.
type Results interface {
	Call(ctx context.Context, next contract.Caller, f *contract.Descriptor, r contract.Call, want contract.CacheDirectives) (contract.CacheResult, error)
}

// nobody is the Caller of a function that no worker hosts: what is stored can
// still be served.
type nobody struct{}

func (nobody) Call(context.Context, contract.Call) (contract.Reply, error) {
	return contract.Reply{}, errNoWorker
}

// callCached calls f through the cache.
func (x *exchange) callCached(f *function, status int, request contract.Call, began time.Time) {
	r := x.request
	want := directives(r.Header)
	bypass := !f.caching.shares(r, &request)
	if bypass {
		want.NoStore, want.NoCache = true, true
	}
	if want.OnlyIfCached && want.NoCache {
		x.fail(onlyIfCached())
		return
	}
	var next contract.Caller = x.ingress.cfg.Broker
	if len(f.Workers) == 0 {
		next = nobody{}
	}
	x.sent = true
	result, err := x.ingress.cfg.Results.Call(x.context(), next, &f.Descriptor, request, want)
	x.sent = !result.Hit && len(f.Workers) > 0
	if bypass {
		result.Forward = "bypass"
	}
	if err != nil {
		x.failCached(f, &result, want, err)
		return
	}
	took := time.Since(began)
	x.describe(f, &result, want, took)
	if status == http.StatusOK {
		switch failed := precondition(r.Header, result.ETag); {
		case failed == "":
		case failed == "If-None-Match" && (r.Method == http.MethodGet || r.Method == http.MethodHead):
			x.WriteHeader(http.StatusNotModified)
			return
		default:
			p := refuse(http.StatusPreconditionFailed, "%s does not hold for what is there now", failed)
			if !result.Hit {
				p.Executed = contract.ExecutedYes
			}
			x.fail(p)
			return
		}
	}
	if result.Hit { // but not with a 304, which is to cost no more than the result that it saves
		x.set("Server-Timing", string(appendMillis(append(make([]byte, 0, 24), "cache;dur="...), took)))
	}
	x.reply(status, result.Body)
}

// failCached writes the error of a call through the cache: one that was kept,
// or one of just now.
func (x *exchange) failCached(f *function, result *contract.CacheResult, want contract.CacheDirectives, err error) {
	if want.OnlyIfCached && !result.Hit {
		x.sent = false
		x.fail(onlyIfCached())
		return
	}
	p := problemOf(err, f.Idempotent)
	if result.Hit {
		p.Executed = contract.ExecutedNo
		x.set("Age", seconds(result.Age))
	}
	x.cacheStatus(result, err)
	x.fail(p)
}

func onlyIfCached() *problem {
	return refuse(http.StatusGatewayTimeout, "only-if-cached: nothing is stored for this request")
}

// describe says how the result came about, and who else may keep it.
func (x *exchange) describe(f *function, result *contract.CacheResult, want contract.CacheDirectives, took time.Duration) {
	if result.ETag != "" {
		x.set("Etag", result.ETag)
	}
	x.set("Cache-Control", f.caching.controlOf(x.request, result, want))
	if f.caching.vary != "" {
		x.set("Vary", f.caching.vary)
	}
	x.cacheStatus(result, nil)
	if result.Hit {
		x.set("Age", seconds(result.Age))
	} else {
		x.timing(took, result.Run)
	}
}

// cacheStatus says what the cache did (RFC 9211).
func (x *exchange) cacheStatus(result *contract.CacheResult, err error) {
	b := append(make([]byte, 0, 64), "Rabbet"...)
	ttl := int64(result.TTL / time.Second)
	if result.TTL < 0 {
		ttl = min(ttl, -1) // in its first second, too
	}
	switch {
	case result.Hit && result.Forward != "": // it was asked for in vain, see contract.CachePolicy.StaleIfError
		b = append(append(append(b, "; fwd="...), result.Forward...), "; ttl="...)
		b = append(strconv.AppendInt(b, ttl, 10), "; detail=stale-if-error"...)
	case result.Hit:
		b = strconv.AppendInt(append(b, "; hit; ttl="...), ttl, 10)
	default:
		forward := result.Forward
		if forward == "" {
			forward = "miss"
		}
		b = append(append(b, "; fwd="...), forward...)
		if result.Stored {
			b = append(b, "; stored"...)
		}
		if result.Collapsed {
			b = append(b, "; collapsed"...)
		}
	}
	if err != nil && (result.Hit || result.Stored) {
		b = append(b, "; detail=negative"...)
	}
	x.set("Cache-Status", string(b))
}

func seconds(d time.Duration) string { return strconv.FormatInt(int64(d/time.Second), 10) }
