// Package cache keeps the results of functions that say faas.Cached, on
// memory, Redis or Memcached, and never serves one that an invalidation has
// made stale. It knows descriptors and calls; not what the functions do, and
// nothing of AMQP or HTTP.
//
// Coherence is by tag generations. Every tag has a generation, a random value
// in the store. An entry carries the generations that its tags had before the
// function ran, is read together with the present ones in one round trip, and
// counts only if they agree. Invalidate removes a tag's generation, and whoever
// needs one next adds another. So an invalidation beats a fill that was under
// way; and it does no more than what a store that is short of room does by
// itself, so that no loss of a generation can bring an old entry back.
package cache

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"time"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/faas"
)

// Config says how Results use their store. The zero value is useful.
type Config struct {
	Namespace string        // systems with different ones share a store and nothing in it; "rabbet"
	Timeout   time.Duration // what one look at the store may cost a call; 100 ms
	Log       *zap.Logger   // nil: silence
}

// Caller makes a call; a faas.Broker is one.
type Caller interface {
	Call(ctx context.Context, r faas.Request) (faas.Reply, error)
}

// Directives is what a caller asks of the cache (RFC 9111, section 5.2.1).
type Directives struct {
	NoStore      bool          // do not store the result
	NoCache      bool          // run the function whatever is stored
	OnlyIfCached bool          // do not run it: an absent result is faas.ErrUnavailable, not executed
	MaxAge       time.Duration // a stored result may be no older; zero is any
	MinFresh     time.Duration // it must stay fresh for at least this long
	MaxStale     time.Duration // it may have been stale for as long, where the store still has it
}

// Result is an answer and how it came about. Its body is shared with others
// and must not be changed.
type Result struct {
	faas.Reply
	Hit       bool          // it was stored; with an error, that was (see faas.CachePolicy.Negative)
	Stored    bool          // it is now
	Collapsed bool          // it was made for another call at the same time
	Forward   string        // why the function ran: "uri-miss", "stale", "request", "bypass" (RFC 9211)
	ETag      string        // strong, quoted; "" for a function that is not cached
	Age       time.Duration // since the function began to run
	TTL       time.Duration // for how long it is still fresh; negative: it is stale
}

// Results serves results from a store where it can. It is safe for concurrent use.
type Results struct {
	namespace string
	store     store
	flights   flights
}

var namespaces = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`)

// Open returns results on the store at url. It does not connect: a store that
// is out of reach makes calls run, not fail.
//
//	memory://                                  in this process, bounded at 64 MiB; ?size=256 is in MiB
//	redis://user:password@host:6379/0          rediss:// with TLS
//	redis+sentinel://a:26379,b,c?master_name=m
//	redis+cluster://a:6379,b,c
//	memcached://a:11211,b,c
func Open(url string, cfg Config) (*Results, error) {
	namespace := cmp.Or(cfg.Namespace, "rabbet")
	if !namespaces.MatchString(namespace) {
		return nil, fmt.Errorf("namespace %q: choose 1 to 64 letters, digits, dots, hyphens and underscores", namespace)
	}
	timeout := cmp.Or(cfg.Timeout, 100*time.Millisecond)
	log := cfg.Log
	if log == nil {
		log = zap.NewNop()
	}
	s, err := openStore(url, timeout, log)
	if err != nil {
		return nil, err
	}
	return &Results{namespace: namespace, store: s}, nil
}

// Close waits for calls that fill the cache and frees the connections.
func (r *Results) Close() error {
	r.flights.running.Wait()
	return r.store.close()
}

// Invalidate makes sure that no result with one of the tags is served again
// once it has returned nil. It fails if the store did not take that; then it
// must be tried again.
func (r *Results) Invalidate(ctx context.Context, tags ...string) error {
	for _, tag := range tags {
		if err := r.store.remove(ctx, generationKey(r.namespace, tag)); err != nil {
			return fmt.Errorf("invalidate %q: the results cache did not take it: %w", tag, err)
		}
	}
	return nil
}
