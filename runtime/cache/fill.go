package cache

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// join makes the call, or waits for the same call of somebody else. Whoever
// read other generations is not the same: what runs may have begun before the
// invalidation that this caller knows of.
func (c *call) join(ctx context.Context, forward string, landed uint32) (contract.CacheResult, error) {
	if !c.request.Deadline.IsZero() {
		limited, cancel := context.WithDeadline(ctx, c.request.Deadline)
		defer cancel()
		ctx = limited
	}
	c.joined = true
	return c.results.flights.do(ctx, &c.sum, c.flight(), landed, func(ctx context.Context) (contract.CacheResult, error) {
		return c.fillOnce(ctx, forward, false)
	})
}

// flight is the same for calls that may be one.
func (c *call) flight() string { return string(c.sum[:]) + string(slices.Concat(c.values[1:]...)) }

// refresh makes a fresh result in the background, unless somebody does. It is a
// call of its own, with all the time that its function has.
func (c *call) refresh(ctx context.Context) {
	fresh := c.clone()
	fresh.request.ID, fresh.request.Causation = "", c.request.ID
	fresh.request.Deadline = time.Now().Add(cmp.Or(c.function.Timeout, contract.DefaultTimeout))
	c.results.flights.start(ctx, fresh.request.Deadline, &fresh.sum, fresh.flight(), func(ctx context.Context) (contract.CacheResult, error) {
		return fresh.fillOnce(ctx, forwardStale, true)
	})
}

// fill makes the call and stores what it brings.
func (c *call) fill(ctx context.Context, forward string) (contract.CacheResult, error) {
	born := time.Now()
	result, err := c.run(ctx, forward)
	policy := c.function.Cache
	e := entry{born: born, ttl: policy.TTL, etag: result.ETag, body: result.Body}
	if err != nil {
		failure := contract.AsError(err)
		if policy.Negative == 0 || !keepable(failure) {
			return result, err
		}
		e.ttl, e.failure, e.body = policy.Negative, true, failureBody(failure)
	}
	e.ttl = min(e.ttl, generationTTL)
	if len(e.body) > maxSize(policy) {
		return result, err
	}
	value := c.results.codec.encode(c.keys[0], &e, c.values[1:])
	if failed := c.results.store.set(ctx, c.keys[0], value, keptFor(policy, e.failure, e.ttl)); failed != nil {
		c.results.counts.failure(failed)
		return result, err
	}
	c.results.counts.fills.Add(1)
	c.results.counts.written.Add(uint64(len(value)))
	result.Stored, result.TTL = true, e.ttl
	return result, err
}

// run makes the call.
func (c *call) run(ctx context.Context, forward string) (contract.CacheResult, error) {
	if c.want.OnlyIfCached {
		return contract.CacheResult{Forward: forward}, &contract.Error{Code: contract.CodeUnavailable, Detail: "no result is stored for this input", Executed: contract.ExecutedNo}
	}
	reply, err := c.next.Call(ctx, c.request)
	if err != nil {
		return contract.CacheResult{Forward: forward}, err
	}
	result := contract.CacheResult{Reply: reply, Forward: forward}
	if c.function.Cache != nil {
		result.ETag = etagOf(reply.Body)
	}
	return result, nil
}

// othersLimit reports whether err is about how long a caller could wait, and
// so says nothing to another one.
func othersLimit(err error) bool {
	code := contract.AsError(err).Code
	return code == contract.CodeExpired || code == contract.CodeCanceled
}
