package cache

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/cache/internal/singleflight"
	"github.com/rabbet-fn/rabbet/runtime/cache/store"
	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// A process that fills an entry holds a lease in the store, and the others wait
// for its result. The holder renews the lease every leaseRenewal; if it dies, the
// others wait for leaseTTL at most. A lease only saves work: two holders do no
// harm.
const (
	leaseTTL     = 2 * time.Second
	leaseRenewal = leaseTTL / 4
)

// leaseFailed is the value of a lease whose holder had nothing to store. Until
// it expires, other processes do not wait for a new holder.
var leaseFailed = []byte("-")

// The pauses between lookups for the result of another process.
const (
	firstLeasePause = 2 * time.Millisecond
	maxLeasePause   = 50 * time.Millisecond
)

// fillWithLease fills the entry, or waits for another process that fills it. A
// fill in the background, which no caller waits for, is omitted
// (singleflight.ErrFinished) while the lease says that one has just failed.
func (c *call) fillWithLease(ctx context.Context, forward string, background bool) (contract.CacheResult, error) {
	if !c.results.store.Shared() {
		return c.fill(ctx, forward)
	}
	key := leaseKey(c.results.namespace, &c.sum, c.values[1:])
	own := []byte(rand.Text())
	holder, err := c.results.store.Add(ctx, key, own, leaseTTL)
	switch {
	case errors.Is(err, store.ErrConflict): // another holder has just finished
		if result, found, err := c.lookupAgain(ctx, forward); found {
			return result, err
		}
	case err != nil:
		c.results.counters.failure(err)
	case bytes.Equal(holder, own):
		return c.fillAsHolder(ctx, forward, key, own)
	case !bytes.Equal(holder, leaseFailed):
		result, done, err := c.awaitHolder(ctx, forward, key, holder)
		if done {
			return result, err
		}
		if !c.ensureGenerations(ctx) {
			return c.run(ctx, forwardBypass)
		}
	case background:
		return contract.CacheResult{}, singleflight.ErrFinished
	}
	return c.fill(ctx, forward)
}

// fillAsHolder fills the entry while it holds the lease. It looks it up first,
// because the lease may have been free only because another process has just
// released it.
func (c *call) fillAsHolder(ctx context.Context, forward, key string, own []byte) (contract.CacheResult, error) {
	released, stored := make(chan bool, 1), false
	defer func() { released <- stored }() // also after a panic
	c.results.background.Go(func() { c.results.holdLease(context.WithoutCancel(ctx), key, own, released) })
	result, found, err := c.lookupAgain(ctx, forward)
	if !found {
		result, err = c.fill(ctx, forward)
	}
	stored = found || result.Stored
	return result, err
}

// holdLease renews a lease until released says whether a result was stored.
func (r *Results) holdLease(ctx context.Context, key string, own []byte, released <-chan bool) {
	ticker := time.NewTicker(leaseRenewal)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			r.counters.failure(r.store.Set(ctx, key, own, leaseTTL))
		case stored := <-released:
			if stored {
				r.counters.failure(r.store.Delete(ctx, key))
			} else {
				r.counters.failure(r.store.Set(ctx, key, leaseFailed, leaseTTL))
			}
			return
		}
	}
}

// lookupAgain looks for a result that another process has stored since the first
// lookup. The generations that the call knows stay as they were: older ones are
// safe.
func (c *call) lookupAgain(ctx context.Context, forward string) (result contract.CacheResult, found bool, err error) {
	known := slices.Clone(c.values)
	if err := c.results.store.Get(ctx, c.keys, c.values); err != nil {
		c.results.counters.failure(err)
	} else if l := c.evaluateValues(time.Now()); l.forward == "" && !l.revalidate {
		result, err := l.resultOfOther(forward)
		return result, true, err
	}
	copy(c.values, known)
	return contract.CacheResult{}, false, nil
}

// awaitHolder looks for the result of the holder of the lease again and again.
// It returns done false when there is nothing to wait for any more; the call
// then knows the current generations.
func (c *call) awaitHolder(ctx context.Context, forward, lease string, holder []byte) (result contract.CacheResult, done bool, err error) {
	keys := append(slices.Clone(c.keys), lease)
	values := make([][]byte, len(keys))
	released := false
	for pause := firstLeasePause; ; pause = min(2*pause, maxLeasePause) {
		select {
		case <-ctx.Done():
			return contract.CacheResult{}, true, stoppedWaiting(ctx)
		case <-time.After(pause):
		}
		if err := c.results.store.Get(ctx, keys, values); err != nil {
			c.results.counters.failure(err)
			return contract.CacheResult{}, false, nil
		}
		copy(c.values, values)
		if l := c.evaluateValues(time.Now()); l.forward == "" {
			result, err := l.resultOfOther(forward)
			return result, true, err
		}
		current := values[len(keys)-1]
		if released || bytes.Equal(current, leaseFailed) {
			return contract.CacheResult{}, false, nil
		}
		// One more lookup: entry and lease may be on two servers, which answer one
		// after the other.
		released = !bytes.Equal(current, holder)
	}
}

// resultOfOther returns the result that another process has stored in the
// meantime.
func (l *lookup) resultOfOther(forward string) (contract.CacheResult, error) {
	result, err := l.result()
	result.Hit, result.Collapsed, result.Forward = false, true, forward
	return result, err
}
