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
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"time"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// Config says how Results use their store. The zero value is useful.
type Config struct {
	Namespace string        // systems with different ones share a store and nothing in it; "rabbet"
	Timeout   time.Duration // what one look at the store may cost a call; 100 ms
	Process   string        // names this process in Stats; random
	Log       *zap.Logger   // nil: silence

	// Keys are secrets of 32 random bytes. With any, what is stored is sealed by
	// the first one, and only what one of them opens is read: put a new one first
	// and leave the old one in its place for a while. The tags stay readable.
	Keys [][]byte

	// Broadcast takes invalidations to the in-process levels of other processes;
	// nil: nobody else has one.
	Broadcast Broadcaster
	// Local is how many bytes this process may keep of what it has read from the
	// store; 0: nothing. What is kept may be stale for LocalBound, and is not
	// served while Broadcast is out of reach. A store that is memory:// has no
	// use for it.
	Local int64

	bound, interval, lapse time.Duration // for tests: LocalBound, beatInterval, beatLapse
}

// Results serves results from a store where it can. It is safe for concurrent use.
type Results struct {
	namespace string
	process   string
	store     store
	codec     *codec
	local     *local // nil: none
	news      *news
	flights   flights
	counts    counters
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
	codec, err := newCodec(cfg.Keys)
	if err != nil {
		return nil, err
	}
	s, err := openStore(url, timeout, log)
	if err != nil {
		return nil, err
	}
	r := &Results{namespace: namespace, store: s, codec: codec, process: cmp.Or(cfg.Process, contract.NewID()), news: newNews(cfg, log)}
	if _, here := s.(*memory); cfg.Local > 0 && !here {
		r.local = newLocal(cfg.Local, cmp.Or(cfg.bound, LocalBound), r.news)
		r.hearInvalidations()
		r.news.beatUntilClosed(cmp.Or(cfg.interval, beatInterval))
	}
	r.answerStats()
	return r, nil
}

// hearInvalidations drops what others invalidate.
func (r *Results) hearInvalidations() {
	r.news.listen(topicInvalidate, func(body []byte) {
		var i invalidation
		if json.Unmarshal(body, &i) == nil {
			r.local.drop(i.Keys)
		}
	})
}

// Close waits for calls that fill the cache and frees the connections. It is to
// be called before the Broadcaster is closed.
func (r *Results) Close() error {
	r.flights.running.Wait()
	r.news.close()
	if r.local != nil {
		r.local.close()
	}
	return r.store.close()
}

// Invalidate makes sure that no result with one of the tags is served again
// once it has returned nil; by the in-process levels of others, not for longer
// than LocalBound. It fails if the store did not take that; then it must be
// tried again.
func (r *Results) Invalidate(ctx context.Context, tags ...string) error {
	var failed error
	keys := make([]string, len(tags))
	for i, tag := range tags {
		keys[i] = generationKey(r.namespace, tag)
		if err := r.store.remove(ctx, keys[i], true); err != nil {
			r.counts.failure(err)
			failed = errors.Join(failed, fmt.Errorf("invalidate %q: the results cache did not take it: %w", tag, err))
		}
	}
	// The store comes first: who hears of it looks there. One that failed may have taken it.
	if r.local != nil {
		r.local.drop(keys)
	}
	r.news.tell(ctx, topicInvalidate, invalidation{keys})
	r.counts.invalidated.Add(uint64(len(tags)))
	return failed
}
