package cache

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// sight is what a look at the store showed.
type sight struct {
	verdict
	stored bool // there is an entry, which agrees
	entry  entry
	age    time.Duration
}

// result is the stored one.
func (s *sight) result() (contract.CacheResult, error) {
	result := contract.CacheResult{Hit: true, Forward: s.forward, Age: s.age, TTL: s.ttl}
	if s.entry.failure {
		return result, failureOf(s.entry.body)
	}
	result.Body, result.ETag = s.entry.body, s.entry.etag
	return result, nil
}

// settle falls back on what was seen if that may take the place of a function
// that could not be reached.
func (s *sight) settle(result contract.CacheResult, err error) (contract.CacheResult, error) {
	if err != nil && s.stopgap && unreachable(contract.AsError(err)) {
		return s.result()
	}
	return result, err
}

// look finds out what there is to serve: in this process, or else in the store.
func (c *call) look(ctx context.Context) sight {
	now := time.Now()
	if c.results.local != nil && !c.want.NoCache {
		if seen, ok := c.lookLocally(ctx, now); ok {
			return seen
		}
	}
	return c.lookFarther(ctx, now)
}

// lookFarther reads the store, and keeps what it finds for a while. What has
// been invalidated is never served, whatever the policy allows of what is
// merely old.
func (c *call) lookFarther(ctx context.Context, now time.Time) sight {
	if !c.locate() {
		return sight{verdict: verdict{forward: forwardBypass}}
	}
	l := c.results.local
	var marks []mark
	if l != nil {
		marks = l.observe(c.keys[1:])
	}
	if err := c.results.store.get(ctx, c.keys, c.values); err != nil {
		c.results.counts.failure(err)
		return sight{verdict: verdict{forward: forwardBypass}}
	}
	seen := c.sightOf(now)
	if l != nil && seen.stored {
		l.keep(&c.sum, seen.entry, marks, now)
	}
	return seen
}

// sightOf judges what was read of the store.
func (c *call) sightOf(now time.Time) sight {
	if c.values[0] == nil {
		return sight{verdict: verdict{forward: forwardMiss}}
	}
	c.results.counts.read.Add(uint64(len(c.values[0])))
	e, ok := c.results.codec.decode(c.keys[0], c.values[0])
	if !ok || !e.agrees(c.values[1:]) || e.failure && failureOf(e.body) == nil {
		return sight{verdict: verdict{forward: forwardStale}}
	}
	return c.judge(e, now)
}

// judge judges an entry that agrees with the store.
func (c *call) judge(e entry, now time.Time) sight {
	age := max(now.Sub(e.born), 0) // another machine's clock may be ahead
	return sight{judge(c.function.Cache, e.failure, e.ttl, age, c.want), true, e, age}
}

// learn makes sure that every tag has a generation. It returns false if the
// store does not play along.
func (c *call) learn(ctx context.Context) bool {
	for i := 1; i < len(c.keys); i++ {
		if len(c.values[i]) == generationSize {
			continue
		}
		var err error
		if c.values[i], err = c.results.newGenerationOf(ctx, c.keys[i], c.values[i] != nil); err != nil {
			c.results.counts.failure(err)
			return false
		}
	}
	return true
}

// newGenerationOf adds a generation under key, unless somebody else has just
// done so, and returns it. What is there but is none goes first: to lose a
// generation is harmless.
func (r *Results) newGenerationOf(ctx context.Context, key string, taken bool) ([]byte, error) {
	for try := 1; ; try++ {
		if taken {
			if err := r.store.remove(ctx, key, false); err != nil {
				return nil, err
			}
		}
		there, err := r.store.add(ctx, key, newGeneration(), generationTTL)
		if err == nil && len(there) == generationSize {
			return there, nil
		}
		taken = err == nil || errors.Is(err, errUnsettled)
		if try == 3 || !taken && !deadConnection(err) {
			return nil, cmp.Or(err, errUnsettled)
		}
	}
}
