package cache

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/cache/internal/entry"
	"github.com/rabbet-fn/rabbet/runtime/cache/internal/singleflight"
	"github.com/rabbet-fn/rabbet/runtime/cache/store"
	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// fillShared fills the entry, or waits for an equal call that is filling it. It
// fails with singleflight.ErrFinished if one has filled it since epoch.
func (c *call) fillShared(ctx context.Context, forward string, epoch uint32) (contract.CacheResult, error) {
	waiting := ctx
	if !c.request.Deadline.IsZero() {
		limited, cancel := context.WithDeadline(ctx, c.request.Deadline)
		defer cancel()
		waiting = limited
	}
	c.shared = true
	result, shared, err := c.results.fills.Do(waiting, c.flightKey(), epoch, func(ctx context.Context) (contract.CacheResult, error) {
		return c.fillWithLease(ctx, forward, false)
	})
	if shared {
		result.Collapsed, result.Stored = true, false
	}
	return result, asFailure(waiting, err)
}

// flightKey is equal for calls that may share a run. A call that read other
// generations may not: the run may have started before an invalidation that
// this caller knows of.
func (c *call) flightKey() singleflight.Key {
	return singleflight.Key{Sum: c.sum, Variant: string(slices.Concat(c.values[1:]...))}
}

// asFailure returns the error that the caller of fillShared gets.
func asFailure(waiting context.Context, err error) error {
	if p, ok := errors.AsType[*singleflight.PanicError](err); ok {
		return &contract.Error{Code: contract.CodeInternal, Detail: "the call panicked", Executed: contract.ExecutedUnknown, Cause: p}
	}
	if errors.Is(err, singleflight.ErrGaveUp) {
		return stoppedWaiting(waiting)
	}
	return err
}

// stoppedWaiting returns the error of a caller whose ctx ended while another one
// ran the function.
func stoppedWaiting(ctx context.Context) error {
	if ctx.Err() == context.DeadlineExceeded {
		return contract.Expired(contract.ExecutedUnknown)
	}
	return &contract.Error{Code: contract.CodeCanceled, Detail: "the caller went away", Cause: context.Cause(ctx), Executed: contract.ExecutedUnknown}
}

// revalidate fills the entry in the background, unless an equal call does. It is
// a call of its own, with all the time that the function may take.
func (c *call) revalidate(ctx context.Context) {
	own := c.clone()
	own.request.ID, own.request.Causation = "", c.request.ID
	own.request.Deadline = time.Now().Add(cmp.Or(c.function.Timeout, contract.DefaultTimeout))
	c.results.fills.Start(ctx, own.request.Deadline, own.flightKey(), func(ctx context.Context) (contract.CacheResult, error) {
		return own.fillWithLease(ctx, forwardStale, true)
	})
}

// fill runs the function and stores what it returns.
func (c *call) fill(ctx context.Context, forward string) (contract.CacheResult, error) {
	started := time.Now()
	result, err := c.run(ctx, forward)
	policy := c.function.Cache
	e := entry.Entry{Born: started, TTL: policy.TTL, ETag: result.ETag, Body: result.Body}
	if err != nil {
		failure := contract.AsError(err)
		if policy.Negative == 0 || !isStorable(failure) {
			return result, err
		}
		e.TTL, e.Failure, e.Body = policy.Negative, true, entry.EncodeFailure(failure)
	}
	e.TTL = min(e.TTL, store.MaxTTL)
	if len(e.Body) > maxSize(policy) {
		return result, err
	}
	value := c.results.codec.Encode(c.keys[0], &e, c.values[1:])
	if failed := c.results.store.Set(ctx, c.keys[0], value, storedFor(policy, e.Failure, e.TTL)); failed != nil {
		c.results.counters.failure(failed)
		return result, err
	}
	c.results.counters.fills.Add(1)
	c.results.counters.written.Add(uint64(len(value)))
	result.Stored, result.TTL = true, e.TTL
	return result, err
}
