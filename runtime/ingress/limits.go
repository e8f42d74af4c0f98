package ingress

import (
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/problem"
)

const maxHeaders = 256 // header fields of a request

// checkTarget refuses requests that no route can serve.
func (i *Ingress) checkTarget(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p := i.targetProblem(r); p != nil {
			problem.Write(w, r, p)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (i *Ingress) targetProblem(r *http.Request) *problem.Problem {
	switch {
	case len(r.RequestURI) > i.cfg.MaxURI || len(r.URL.RawQuery) > i.cfg.MaxURI:
		return problem.New(http.StatusRequestURITooLong, "path and query are longer than %d bytes", i.cfg.MaxURI)
	case len(r.Header) > maxHeaders:
		return problem.New(http.StatusRequestHeaderFieldsTooLarge, "more than %d header fields", maxHeaders)
	case strings.IndexByte(r.URL.Path, 0) >= 0:
		return problem.New(http.StatusBadRequest, "the path contains a NUL byte")
	case r.RequestURI == "*" || !strings.HasPrefix(r.URL.Path, "/"):
		return problem.New(http.StatusBadRequest, "the request target is not a path")
	}
	return nil
}

// limit bounds how many requests of one kind are served at once.
type limit struct {
	max     int64
	current atomic.Int64
}

// acquire reports whether another request may be served. After true, release must
// be called.
func (l *limit) acquire() bool {
	if l.current.Add(1) <= l.max {
		return true
	}
	l.release()
	return false
}

func (l *limit) release() { l.current.Add(-1) }

// full returns the problem of a request above the limit.
func (l *limit) full(retryAfter time.Duration) *problem.Problem {
	p := problem.New(http.StatusServiceUnavailable, "the ingress is at its limit of %d such requests at once", l.max)
	p.Retryable, p.RetryAfter = true, retryAfter
	return p
}
