package contract

import (
	"time"
)

// CachePolicy says for how long the result of a request function may be served
// from the cache, what invalidates it, and who may share it. It is an option of
// faas.OnRequest; most functions need only faas.Cached.
//
// Invalidating one of the tags ends all of these times at once, except Edge. A
// function with sensitive fields in its message or its reply is never cached.
type CachePolicy struct {
	// TTL is how long a result is fresh: a second to 30 days.
	TTL time.Duration `json:"ttl"`
	// Tags name the data that the result was made of. Each is a template over the
	// fields of the message: "profile:{id}".
	Tags []string `json:"tags,omitempty"`

	// StaleWhileRevalidate is how long after TTL a stale result is still served
	// while it is refreshed in the background (RFC 5861, section 3); 0 means never.
	StaleWhileRevalidate time.Duration `json:"staleWhileRevalidate,omitempty"`
	// StaleIfError is how long after TTL a stale result is still served when the
	// function cannot be reached, or fails with an error that it did not declare
	// (RFC 5861, section 4); 0 means never.
	StaleIfError time.Duration `json:"staleIfError,omitempty"`
	// Negative is how long a declared error, such as faas.NotFound, is cached in
	// place of a result: a second to 30 days; 0 means not at all.
	Negative time.Duration `json:"negative,omitempty"`

	// Edge is how long a shared cache in front of the ingress, such as a CDN, may
	// serve a result without revalidation, in whole seconds; 0 means not at all.
	// It is sent as s-maxage (RFC 9111, section 5.2.2.10). Such a cache is not
	// informed of an invalidation: it may serve an outdated result for Edge, and
	// for up to StaleWhileRevalidate longer.
	Edge time.Duration `json:"edge,omitempty"`

	// Public says that the result does not depend on the client. Without it,
	// requests with the header field Authorization are never served from a cache
	// (RFC 9111, section 3.5).
	Public bool `json:"public,omitempty"`
	// Identity lists the request header fields, or "cookie:NAME", that identify
	// the client. Clients with different values do not share results, and
	// responses are marked private. A client that sends none of them, or a caller
	// that does not use HTTP, is not served from the cache.
	Identity []string `json:"identity,omitempty"`

	// MaxSize is the largest result that is stored, in bytes, at most 16 MiB; 0
	// means DefaultMaxSize. Memcached stores at most 1 MiB by default.
	MaxSize int `json:"maxSize,omitempty"`
}

// FunctionOption makes a CachePolicy an option of faas.OnRequest.
func (CachePolicy) FunctionOption() {}

// DefaultMaxSize is the largest result that is stored, in bytes, for a
// CachePolicy without a MaxSize.
const DefaultMaxSize = 512 << 10

// CacheDirectives is what a caller asks of the cache (RFC 9111, section 5.2.1).
type CacheDirectives struct {
	NoStore      bool          // do not store the result
	NoCache      bool          // run the function even if a result is stored
	OnlyIfCached bool          // do not run the function: without a stored result the call fails with ErrUnavailable
	MaxAge       time.Duration // the greatest age of a stored result; 0 means any
	MinFresh     time.Duration // a stored result must stay fresh for at least this long
	MaxStale     time.Duration // a stored result may have been stale for this long, if the store still has it
}

// CacheResult is a reply that came through the cache, with the details of how it
// did. Its body is shared and must not be modified.
type CacheResult struct {
	Reply
	Hit       bool          // the result, or the error (see CachePolicy.Negative), was found in the cache
	Stored    bool          // the result has been stored by this call
	Collapsed bool          // the result is that of a concurrent call with the same key
	Forward   string        // why the function was called: "uri-miss", "stale", "request", "bypass" or "miss" (RFC 9211, section 2.2); with Hit, the call failed and the stored result was served
	ETag      string        // strong and quoted; "" for none
	Age       time.Duration // time since the function began to run
	TTL       time.Duration // how long the result is still fresh; negative if it is stale
}
