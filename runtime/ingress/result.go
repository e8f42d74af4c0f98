package ingress

import (
	"net/http"
	"strconv"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/caching"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/problem"
)

// result is the outcome of a call that succeeded.
type result struct {
	body []byte
	took time.Duration // between ingress and function, there and back
	run  time.Duration // of the function; at most took

	cached     contract.CacheResult     // what the cache did; for cached functions
	directives contract.CacheDirectives // what the cache was asked to do; likewise

	cookie string // Set-Cookie; "" for none
}

// writeResult writes the response.
func writeResult(w http.ResponseWriter, r *http.Request, c *call, res *result) {
	h := w.Header()
	if res.cookie != "" {
		h.Set("Set-Cookie", res.cookie)
	}
	if !res.cached.Hit {
		h.Set("Server-Timing", queueAndRun(res.took, res.run))
	}
	if c.function.Cached {
		c.function.Caching.SetHeader(h, r, &res.cached, res.directives)
		if answered := writeCondition(w, r, c, &res.cached); answered {
			return
		}
	}
	if res.cached.Hit { // not with a 304, which must cost no more than the result that it replaces
		h.Set("Server-Timing", string(appendMillis(append(make([]byte, 0, 24), "cache;dur="...), res.took)))
	}
	if c.status == http.StatusNoContent {
		w.WriteHeader(c.status)
		return
	}
	writeJSON(w, r, c.status, res.body)
}

// writeCondition answers with 304 or 412 if a condition of the request is false
// for a result of the cache. It reports whether it answered.
func writeCondition(w http.ResponseWriter, r *http.Request, c *call, cached *contract.CacheResult) bool {
	if c.status != http.StatusOK {
		return false
	}
	failed := caching.Precondition(r.Header, cached.ETag)
	switch {
	case failed == "":
		return false
	case failed == "If-None-Match" && (r.Method == http.MethodGet || r.Method == http.MethodHead):
		w.WriteHeader(http.StatusNotModified)
		return true
	}
	p := problem.New(http.StatusPreconditionFailed, "%s does not match the current result", failed)
	if p.Attempt = c.attempt(cached); !cached.Hit {
		p.Executed = contract.ExecutedYes
	}
	problem.Write(w, r, p)
	return true
}

// queueAndRun returns the Server-Timing of a call that ran: run is the function's
// time, queue the rest between ingress and function.
func queueAndRun(total, run time.Duration) string {
	b := make([]byte, 0, 48)
	b = appendMillis(append(b, "queue;dur="...), max(0, total-run))
	b = appendMillis(append(b, ", run;dur="...), run)
	return string(b)
}

func appendMillis(b []byte, d time.Duration) []byte {
	return strconv.AppendFloat(b, float64(d.Microseconds())/1000, 'f', -1, 64)
}
