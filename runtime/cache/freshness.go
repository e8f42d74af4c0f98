package cache

import (
	"cmp"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/cache/store"
	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// Why a function ran, in the words of RFC 9211, section 2.2.
const (
	forwardMiss    = "uri-miss"
	forwardStale   = "stale"
	forwardRequest = "request"
	forwardBypass  = "bypass"
)

// decision says how an entry may be used.
type decision struct {
	forward    string        // why it may not be served; "" if it may
	revalidate bool          // run the function in the background
	ifError    bool          // serve the entry if the function cannot be reached
	ttl        time.Duration // for how long it is still fresh; negative: since when it is stale
}

// evaluate decides about an entry of that age, which was stored to be fresh for
// ttl, under the policy of the function and the directives of the caller (RFC
// 9111, sections 4.2 and 5.2.1; RFC 5861).
func evaluate(p *contract.CachePolicy, failure bool, ttl, age time.Duration, want contract.CacheDirectives) decision {
	whileRevalidate, ifError := p.StaleWhileRevalidate, p.StaleIfError
	if failure {
		ttl = min(ttl, p.Negative)
		whileRevalidate, ifError = 0, 0
	} else {
		ttl = min(ttl, p.TTL) // the policy may have changed since
	}
	d := decision{ttl: ttl - age}
	stale := -d.ttl
	switch {
	case want.NoCache, want.MaxAge > 0 && age > want.MaxAge:
		d.forward = forwardRequest
	case stale < 0:
		if d.ttl < want.MinFresh {
			d.forward = forwardRequest
		}
	case want.MinFresh > 0, want.MaxAge > 0 && want.MaxStale == 0: // such a caller accepts nothing stale
		d.forward = forwardStale
	default:
		d.revalidate = stale < whileRevalidate && !want.NoStore
		d.ifError = stale < ifError
		if stale >= max(whileRevalidate, want.MaxStale) {
			d.forward = forwardStale
		}
	}
	return d
}

// storedFor returns for how long the store keeps an entry that is fresh for ttl.
func storedFor(p *contract.CachePolicy, failure bool, ttl time.Duration) time.Duration {
	if !failure {
		ttl += max(p.StaleWhileRevalidate, p.StaleIfError)
	}
	return min(ttl, store.MaxTTL)
}

// maxSize returns the size of the largest result to store, in bytes.
func maxSize(p *contract.CachePolicy) int { return cmp.Or(p.MaxSize, contract.DefaultMaxSize) }

// isStorable reports whether a failure may be stored in place of a result: the
// function ran and said something about the thing that the input names.
func isStorable(e *contract.Error) bool {
	switch e.Code {
	case contract.CodeNotFound, contract.CodeGone, contract.CodeInvalid, contract.CodeConflict:
		return e.Executed == "" || e.Executed == contract.ExecutedYes
	}
	return false
}

// isUnreachable reports whether a failure is no answer of the function, so that a
// stale result is better.
func isUnreachable(e *contract.Error) bool {
	switch e.Code {
	case contract.CodeInternal, contract.CodePanic, contract.CodeUnroutable, contract.CodeRefused, contract.CodeBlocked,
		contract.CodeUnavailable, contract.CodeUnconfirmed, contract.CodeExpired, contract.CodeLost:
		return true
	}
	return false
}

// isCallersLimit reports whether err is about how long one caller could wait, and
// therefore says nothing to another one.
func isCallersLimit(err error) bool {
	code := contract.AsError(err).Code
	return code == contract.CodeExpired || code == contract.CodeCanceled
}
