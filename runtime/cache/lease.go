package cache

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// A process that makes a result says so in the store, so that the others wait
// for it. It says so again every leaseRenewal; when it dies, the others wait for
// leaseTime at the most. A lease only saves work: nothing goes wrong if two hold it.
const (
	leaseTime    = 2 * time.Second
	leaseRenewal = leaseTime / 4
)

// inVain is what a lease becomes when its holder had nothing to store: for a
// while nobody waits for a second holder.
var inVain = []byte("-")

// How long to wait between looks for what another process makes.
const (
	firstLook = 2 * time.Millisecond
	laterLook = 50 * time.Millisecond
)

// fillOnce fills, or waits for another process that does. Nobody asked for a
// background fill: it is left out (errLanded) when one has failed just now.
func (c *call) fillOnce(ctx context.Context, forward string, background bool) (contract.CacheResult, error) {
	if _, alone := c.results.store.(*memory); alone {
		return c.fill(ctx, forward)
	}
	key := leaseKey(c.results.namespace, &c.sum, c.values[1:])
	mine := []byte(rand.Text())
	holder, err := c.results.store.add(ctx, key, mine, leaseTime)
	switch {
	case errors.Is(err, errUnsettled): // whoever held it has just finished
		if result, made, err := c.lookAgain(ctx, forward); made {
			return result, err
		}
	case err != nil:
		c.results.counts.failure(err)
	case bytes.Equal(holder, mine):
		stored := make(chan bool, 1)
		c.results.flights.running.Go(func() { c.results.hold(context.WithoutCancel(ctx), key, mine, stored) })
		result, made, err := c.lookAgain(ctx, forward)
		if !made {
			result, err = c.fill(ctx, forward)
		}
		stored <- made || result.Stored
		return result, err
	case !bytes.Equal(holder, inVain):
		result, made, err := c.await(ctx, forward, key, holder)
		if made {
			return result, err
		}
		if !c.learn(ctx) {
			return c.run(ctx, forwardBypass)
		}
	case background:
		return contract.CacheResult{}, errLanded
	}
	return c.fill(ctx, forward)
}

// lookAgain looks for what another process has made and stored since this call
// looked, before it had the lease. What this call knows of its tags stays as it
// was: older is safe.
func (c *call) lookAgain(ctx context.Context, forward string) (result contract.CacheResult, made bool, err error) {
	known := slices.Clone(c.values)
	if err := c.results.store.get(ctx, c.keys, c.values); err != nil {
		c.results.counts.failure(err)
	} else if seen := c.sightOf(time.Now()); seen.forward == "" && !seen.refresh {
		result, err := seen.ofAnother(forward)
		return result, true, err
	}
	copy(c.values, known)
	return contract.CacheResult{}, false, nil
}

// ofAnother is the result that another process has made meanwhile.
func (s *sight) ofAnother(forward string) (contract.CacheResult, error) {
	result, err := s.result()
	result.Hit, result.Collapsed, result.Forward = false, true, forward
	return result, err
}

// hold renews a lease until it is told whether something was stored.
func (r *Results) hold(ctx context.Context, key string, mine []byte, stored <-chan bool) {
	ticker := time.NewTicker(leaseRenewal)
	defer ticker.Stop()
	for {
		var err error
		select {
		case <-ticker.C:
			err = r.store.set(ctx, key, mine, leaseTime)
		case made := <-stored:
			if made {
				err = r.store.remove(ctx, key, false)
			} else {
				err = r.store.set(ctx, key, inVain, leaseTime)
			}
			r.counts.failure(err)
			return
		}
		r.counts.failure(err)
	}
}

// await looks for what the holder of the lease makes. It returns made false
// when there is nothing to wait for any more; then what this call knows of the
// store is as of now.
func (c *call) await(ctx context.Context, forward, lease string, holder []byte) (result contract.CacheResult, made bool, err error) {
	keys := append(slices.Clone(c.keys), lease)
	values := make([][]byte, len(keys))
	over := false
	for pause := firstLook; ; pause = min(2*pause, laterLook) {
		select {
		case <-ctx.Done():
			return contract.CacheResult{}, true, gone(ctx)
		case <-time.After(pause):
		}
		if err := c.results.store.get(ctx, keys, values); err != nil {
			c.results.counts.failure(err)
			return contract.CacheResult{}, false, nil
		}
		copy(c.values, values)
		if seen := c.sightOf(time.Now()); seen.forward == "" {
			result, err := seen.ofAnother(forward)
			return result, true, err
		}
		now := values[len(keys)-1]
		if over || bytes.Equal(now, inVain) {
			return contract.CacheResult{}, false, nil
		}
		over = !bytes.Equal(now, holder) // one more look: entry and lease may be on servers that answer one after the other
	}
}
