package faas

import (
	"context"
	"time"
)

// Caller makes a call; a Broker is one.
type Caller interface {
	Call(ctx context.Context, r Request) (Reply, error)
}

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
