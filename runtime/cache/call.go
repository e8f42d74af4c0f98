package cache

import (
	"context"
	"crypto/sha256"
	"errors"
	"slices"
	"sync"

	"github.com/rabbet-fn/rabbet/runtime/cache/internal/canonical"
	"github.com/rabbet-fn/rabbet/runtime/cache/internal/entry"
	"github.com/rabbet-fn/rabbet/runtime/cache/internal/singleflight"
	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// maxTags is how many tags an entry has room for.
const maxTags = 255

// Call answers req, which is a call of f, from the store if it can, and through
// next otherwise. An error is one of next, now or kept from before (then the
// result is a hit), or contract.ErrUnavailable if want forbids to run the function;
// an error of the store is never returned. Call waits for an equal call of
// another caller no longer than req.Deadline.
func (r *Results) Call(ctx context.Context, next contract.Caller, f *contract.Descriptor, req contract.Call, want contract.CacheDirectives) (contract.CacheResult, error) {
	c := calls.Get().(*call)
	c.results, c.next, c.function, c.request, c.want = r, next, f, req, want
	result, err := c.answer(ctx)
	r.counters.result(&result)
	if !c.shared {
		*c = call{}
		calls.Put(c)
	}
	return result, err
}

// calls are calls that have ended, for reuse: a call is large enough that a hit
// would notice its allocation.
var calls = sync.Pool{New: func() any { return new(call) }}

// call is one call on its way through the cache.
type call struct {
	results  *Results
	next     contract.Caller
	function *contract.Descriptor
	request  contract.Call
	want     contract.CacheDirectives

	input  canonical.Object
	sum    [sha256.Size]byte
	keys   []string // after locate: that of the entry, then those of its tags' generations
	values [][]byte // what the store has under keys; nil for nothing
	shared bool     // a fill may use the call after its caller has left

	fewKeys   [4]string // room for them without an allocation
	fewValues [4][]byte
}

// answer decides whether the store or the function answers the call.
func (c *call) answer(ctx context.Context) (contract.CacheResult, error) {
	if !c.identify() {
		return c.run(ctx, forwardBypass)
	}
	if c.want.NoStore && c.want.NoCache {
		return c.run(ctx, forwardRequest)
	}
	for first := true; ; first = false {
		epoch := c.results.fills.Epoch(&c.sum)
		found := c.lookup(ctx)
		if found.forward == "" {
			if found.revalidate {
				c.revalidate(ctx)
			}
			return found.result()
		}
		if c.want.OnlyIfCached {
			return c.run(ctx, found.forward)
		}
		if c.want.NoStore || found.forward == forwardBypass || !c.ensureGenerations(ctx) {
			result, err := c.run(ctx, found.forward)
			return found.orStale(result, err)
		}
		if c.want.NoCache {
			return c.fill(ctx, found.forward)
		}
		if !first {
			epoch = singleflight.AnyEpoch
		}
		result, err := c.fillShared(ctx, found.forward, epoch)
		if errors.Is(err, singleflight.ErrFinished) {
			continue // an equal call has just stored its result
		}
		if err != nil && result.Collapsed && ctx.Err() == nil && isCallersLimit(err) {
			continue // the other caller could not wait; this one can
		}
		return found.orStale(result, err)
	}
}

// identify finds out which result the call is about. It returns false if the
// result cannot be cached.
func (c *call) identify() bool {
	f := c.function
	if f.Kind != contract.KindRequest || f.Cache == nil || f.Sensitive || f.Session {
		return false
	}
	if len(f.Cache.Identity) > 0 && c.request.Identity == "" || len(f.Cache.Tags) > maxTags {
		return false
	}
	if t := c.request.ContentType; t != "" && t != "application/json" {
		return false
	}
	if !c.input.Read(c.request.Body) {
		return false
	}
	c.sum = entrySum(f, c.request.Identity, c.input.Text)
	return true
}

// locate finds the keys of the call. It returns false if a tag has no value: its
// member is optional and absent, or does not name a thing.
func (c *call) locate() bool {
	if len(c.keys) > 0 {
		return true
	}
	keys := append(c.fewKeys[:0], entryKey(c.results.namespace, &c.sum))
	for _, template := range c.function.Cache.Tags {
		tag, err := contract.ExpandTemplate(template, c.input.Field)
		if err != nil {
			return false
		}
		keys = append(keys, generationKey(c.results.namespace, tag))
	}
	c.keys = keys
	c.values = append(c.fewValues[:0], make([][]byte, len(keys))...)
	return true
}

// run runs the function. Nothing is stored.
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
		result.ETag = entry.ETag(reply.Body)
	}
	return result, nil
}

// clone returns a copy that may be used after this call has ended.
func (c *call) clone() *call {
	clone := *c
	clone.input = c.input.Clone()
	clone.keys, clone.values = slices.Clone(c.keys), slices.Clone(c.values)
	return &clone
}
