package cache

import (
	"context"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/cache/internal/entry"
	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// lookup is what a lookup has found.
type lookup struct {
	decision
	found bool // an entry that has not been invalidated
	entry entry.Entry
	age   time.Duration
}

// lookup finds out what there is to serve: in this process, or else in the store.
func (c *call) lookup(ctx context.Context) lookup {
	now := time.Now()
	if c.results.local != nil && !c.want.NoCache {
		if found, ok := c.lookupLocally(ctx, now); ok {
			return found
		}
	}
	return c.lookupInStore(ctx, now)
}

// lookupInStore reads the entry and the generations from the store in one round
// trip, and keeps what it finds in the in-process level. An entry that was
// invalidated is never served, not even where the policy allows stale results.
func (c *call) lookupInStore(ctx context.Context, now time.Time) lookup {
	if !c.locate() {
		return lookup{decision: decision{forward: forwardBypass}}
	}
	l := c.results.local
	var counts []tagCount
	if l != nil {
		counts = l.observe(c.keys[1:])
	}
	if err := c.results.store.Get(ctx, c.keys, c.values); err != nil {
		c.results.counters.failure(err)
		return lookup{decision: decision{forward: forwardBypass}}
	}
	found := c.evaluateValues(now)
	if l != nil && found.found {
		l.keep(&c.sum, found.entry, counts, now)
	}
	return found
}

// evaluateValues decides about the values that were read from the store.
func (c *call) evaluateValues(now time.Time) lookup {
	if c.values[0] == nil {
		return lookup{decision: decision{forward: forwardMiss}}
	}
	c.results.counters.read.Add(uint64(len(c.values[0])))
	e, ok := c.results.codec.Decode(c.keys[0], c.values[0])
	if !ok || !e.Agrees(c.values[1:]) || e.Failure && entry.DecodeFailure(e.Body) == nil {
		return lookup{decision: decision{forward: forwardStale}}
	}
	return c.evaluateEntry(e, now)
}

// evaluateEntry decides about an entry that has not been invalidated.
func (c *call) evaluateEntry(e entry.Entry, now time.Time) lookup {
	age := max(now.Sub(e.Born), 0) // the clock of another machine may be ahead
	return lookup{evaluate(c.function.Cache, e.Failure, e.TTL, age, c.want), true, e, age}
}

// result returns the stored result.
func (l *lookup) result() (contract.CacheResult, error) {
	result := contract.CacheResult{Hit: true, Forward: l.forward, Age: l.age, TTL: l.ttl}
	if l.entry.Failure {
		return result, entry.DecodeFailure(l.entry.Body)
	}
	result.Body, result.ETag = l.entry.Body, l.entry.ETag
	return result, nil
}

// orStale returns the stored result in place of an error, if the policy allows
// that and err says that the function could not be reached.
func (l *lookup) orStale(result contract.CacheResult, err error) (contract.CacheResult, error) {
	if err != nil && l.ifError && isUnreachable(contract.AsError(err)) {
		return l.result()
	}
	return result, err
}
