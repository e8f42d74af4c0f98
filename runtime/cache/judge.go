package cache

import (
	"cmp"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// Why a function ran, in the words of RFC 9211.
const (
	forwardMiss    = "uri-miss"
	forwardStale   = "stale"
	forwardRequest = "request"
	forwardBypass  = "bypass"
)

// verdict is what becomes of an entry whose generations agree.
type verdict struct {
	forward string        // why it may not be served; "" if it may
	refresh bool          // make a fresh one in the background
	stopgap bool          // serve it if the function cannot be reached
	ttl     time.Duration // for how long it is fresh; negative: since when it is not
}

// judge says what becomes of a result of that age, which was kept to be fresh
// for ttl, under a function's policy and a caller's wishes (RFC 9111, sections
// 4.2 and 5.2.1; RFC 5861).
func judge(p *contract.CachePolicy, failure bool, ttl, age time.Duration, want contract.CacheDirectives) verdict {
	whileRevalidate, ifError := p.StaleWhileRevalidate, p.StaleIfError
	if failure {
		ttl = min(ttl, p.Negative)
		whileRevalidate, ifError = 0, 0
	} else {
		ttl = min(ttl, p.TTL) // it may have become shorter since
	}
	v := verdict{ttl: ttl - age}
	stale := -v.ttl
	switch {
	case want.NoCache, want.MaxAge > 0 && age > want.MaxAge:
		v.forward = forwardRequest
	case stale < 0:
		if v.ttl < want.MinFresh {
			v.forward = forwardRequest
		}
	case want.MinFresh > 0, want.MaxAge > 0 && want.MaxStale == 0: // such a caller takes nothing stale
		v.forward = forwardStale
	default:
		v.refresh = stale < whileRevalidate && !want.NoStore
		v.stopgap = stale < ifError
		if stale >= max(whileRevalidate, want.MaxStale) {
			v.forward = forwardStale
		}
	}
	return v
}

// keptFor is how long the store keeps a result that is fresh for ttl.
func keptFor(p *contract.CachePolicy, failure bool, ttl time.Duration) time.Duration {
	if !failure {
		ttl += max(p.StaleWhileRevalidate, p.StaleIfError)
	}
	return min(ttl, generationTTL)
}

// maxSize is the largest result to store.
func maxSize(p *contract.CachePolicy) int { return cmp.Or(p.MaxSize, contract.DefaultMaxSize) }

// keepable reports whether a failure is an answer, which may be kept in place of
// a result: the function's own word about what the input names.
func keepable(e *contract.Error) bool {
	switch e.Code {
	case contract.CodeNotFound, contract.CodeGone, contract.CodeInvalid, contract.CodeConflict:
		return e.Executed == "" || e.Executed == contract.ExecutedYes
	}
	return false
}

// unreachable reports whether a failure is no answer: a stale result is better.
func unreachable(e *contract.Error) bool {
	switch e.Code {
	case contract.CodeInternal, contract.CodePanic, contract.CodeUnroutable, contract.CodeRefused, contract.CodeBlocked,
		contract.CodeUnavailable, contract.CodeUnconfirmed, contract.CodeExpired, contract.CodeLost:
		return true
	}
	return false
}
