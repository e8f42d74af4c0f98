// Package cache keeps the results of functions that say faas.Cached, and never
// serves one that was invalidated. It knows descriptors and calls; not what the
// functions do, not which store it uses, and nothing of AMQP or HTTP.
//
// Coherence is by tag generations. The store has a generation for every tag, a
// random value. An entry carries the generations that its tags had before the
// function ran. A lookup reads the entry and the current generations in one round
// trip, and uses the entry only if they agree. Results.Invalidate deletes the
// generation of a tag, and the next fill adds a new one. Therefore an
// invalidation wins against a fill that is in flight. It does no more than a
// store that is short of memory does by itself, so that an evicted generation
// cannot bring an old entry back.
//
// A call goes through the files of this package like this: call.go decides what
// to do, key.go names the keys, lookup.go reads and freshness.go decides, local.go
// is the level inside the process; fill.go runs the function, lease.go once over
// all processes, generation.go adds missing generations. invalidate.go and
// broadcast.go make other processes forget.
package cache

import (
	"cmp"
	"fmt"
	"regexp"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/cache/internal/entry"
	"github.com/rabbet-fn/rabbet/runtime/cache/internal/singleflight"
	"github.com/rabbet-fn/rabbet/runtime/cache/store"
	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// Config configures Results. The zero value is useful.
type Config struct {
	// Namespace separates systems that share a store: 1 to 64 letters, digits,
	// dots, hyphens and underscores; "rabbet" if empty.
	Namespace string
	// Process names this process in Stats; random if empty.
	Process string
	// Log receives what an operator may want to know; nothing is logged if it is nil.
	Log *zap.Logger

	// Keys are secrets of 32 random bytes. If there are any, entries are encrypted
	// with the first one, and only entries that one of them decrypts are read. To
	// rotate a secret, put the new one first and keep the old one for a while.
	// Tags and sizes stay readable.
	Keys [][]byte

	// Broadcast carries invalidations to the in-process levels of other
	// processes. It may be nil if no process has one.
	Broadcast Broadcaster
	// Local is how many bytes of what it has read from the store this process may
	// keep; none if zero. A result that is kept may be stale for up to LocalBound,
	// and is not served while Broadcast is unreachable. A store that is inside
	// this process makes no use of it.
	Local int64

	// For tests: LocalBound, heartbeatInterval and heartbeatTimeout if zero.
	localBound, heartbeatInterval, heartbeatTimeout time.Duration
}

// Results serves results from a store where it can. It is safe for concurrent use.
type Results struct {
	namespace  string
	process    string
	store      store.Store
	codec      *entry.Codec
	local      *local // nil: none
	broadcast  *broadcast
	fills      singleflight.Group[contract.CacheResult]
	background sync.WaitGroup // renewals of leases, and lookups ahead of time
	counters   counters
}

var namespaces = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`)

// New returns results that are stored in s, and closes s if it fails. A store
// that cannot be reached makes calls run; it does not make them fail.
func New(s store.Store, cfg Config) (*Results, error) {
	r, err := newResults(s, cfg)
	if err != nil {
		_ = s.Close()
		return nil, err
	}
	return r, nil
}

func newResults(s store.Store, cfg Config) (*Results, error) {
	namespace := cmp.Or(cfg.Namespace, "rabbet")
	if !namespaces.MatchString(namespace) {
		return nil, fmt.Errorf("namespace %q: choose 1 to 64 letters, digits, dots, hyphens and underscores", namespace)
	}
	codec, err := entry.NewCodec(cfg.Keys)
	if err != nil {
		return nil, err
	}
	log := cfg.Log
	if log == nil {
		log = zap.NewNop()
	}
	r := &Results{
		namespace: namespace, process: cmp.Or(cfg.Process, contract.NewID()),
		store: s, codec: codec, broadcast: newBroadcast(cfg, log),
	}
	if cfg.Local > 0 && s.Shared() {
		r.local = newLocal(cfg.Local, cmp.Or(cfg.localBound, LocalBound), r.broadcast)
		r.listenForInvalidations()
		r.broadcast.startHeartbeat(cmp.Or(cfg.heartbeatInterval, heartbeatInterval))
	}
	r.answerStats()
	return r, nil
}

// Close waits for calls that fill the cache and closes the store. It must be
// called before the Broadcaster is closed.
func (r *Results) Close() error {
	r.wait()
	r.broadcast.close()
	if r.local != nil {
		r.local.close()
	}
	return r.store.Close()
}

// wait waits for everything that runs in the background.
func (r *Results) wait() {
	r.fills.Wait()
	r.background.Wait()
}
