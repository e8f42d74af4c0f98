package contract

import (
	"time"
)

// CachePolicy says how long callers may serve a result again, and what makes
// it stale. It is an Option of OnRequest; most functions want Cached. It has no
// effect on a function with sensitive fields, in its message or its reply:
// nothing of that is cached.
//
// An invalidation of one of the tags ends all of these times at once, except
// Edge.
type CachePolicy struct {
	// TTL is how long a result is fresh: a second to 30 days.
	TTL time.Duration `json:"ttl"`
	// Tags name what the result was made of, as templates over the input's
	// fields: "profile:{id}".
	Tags []string `json:"tags,omitempty"`

	// StaleWhileRevalidate is for how long after TTL a result is still served
	// while a fresh one is made in the background (RFC 5861, section 3); 0: never.
	StaleWhileRevalidate time.Duration `json:"staleWhileRevalidate,omitempty"`
	// StaleIfError is for how long after TTL a result is still served when the
	// function cannot be reached or fails with an error that it did not declare
	// (RFC 5861, section 4); 0: never.
	StaleIfError time.Duration `json:"staleIfError,omitempty"`
	// Negative is how long a declared error, such as not found, is kept in place
	// of a result: a second to 30 days; 0: not at all.
	Negative time.Duration `json:"negative,omitempty"`

	// Edge is for how long a shared cache in front of the ingress may serve a
	// result without asking, in whole seconds; 0: it may not. It is sent as
	// s-maxage (RFC 9111, section 5.2.2.10). Nothing tells such a cache of an
	// invalidation: it may be wrong for Edge, and for as long again if
	// StaleWhileRevalidate is set.
	Edge time.Duration `json:"edge,omitempty"`

	// Public says that a result is the same for everybody: requests with
	// Authorization, which else get past every cache (RFC 9111, section 3.5),
	// share it too.
	Public bool `json:"public,omitempty"`
	// Identity lists the request header fields, or "cookie:NAME", that say who
	// asks. Results are kept apart by their values, and only the client's own
	// cache may store them (private). A caller who sends none of them, or who
	// does not come by HTTP, gets past every cache.
	Identity []string `json:"identity,omitempty"`

	// MaxSize is the largest result to store, in bytes: at most 16 MiB; 0 is
	// DefaultMaxSize. Memcached takes 1 MiB unless told otherwise.
	MaxSize int `json:"maxSize,omitempty"`
}

// FunctionOption makes a CachePolicy an option of faas.OnRequest.
func (CachePolicy) FunctionOption() {}

// DefaultMaxSize is the size in bytes up to which results are stored if the
// policy does not say.
const DefaultMaxSize = 512 << 10

// CacheDirectives is what a caller asks of the cache (RFC 9111, section 5.2.1).
type CacheDirectives struct {
	NoStore      bool          // do not store the result
	NoCache      bool          // run the function whatever is stored
	OnlyIfCached bool          // do not run it: an absent result is ErrUnavailable, not executed
	MaxAge       time.Duration // a stored result may be no older; zero is any
	MinFresh     time.Duration // it must stay fresh for at least this long
	MaxStale     time.Duration // it may have been stale for as long, where the store still has it
}

// CacheResult is an answer that came through the cache, and how. Its body is
// shared with others and must not be changed.
type CacheResult struct {
	Reply
	Hit       bool          // it was stored; with an error, that was (see CachePolicy.Negative)
	Stored    bool          // it is now
	Collapsed bool          // it was made for another call at the same time
	Forward   string        // why the function was called: "uri-miss", "stale", "request", "bypass", "miss" (RFC 9211); with Hit, in vain
	ETag      string        // strong, quoted; "" for none
	Age       time.Duration // since the function began to run
	TTL       time.Duration // for how long it is still fresh; negative: it is stale
}
