package cache

import (
	"context"
	"crypto/sha256"
	"errors"
	"slices"
	"sync"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// maxTags is how many tags an entry has room for.
const maxTags = 255

// Call answers req, which f answers, from the store if it can and through next
// otherwise. Its errors are next's, now or kept from before (then the Result is
// a hit), or contract.ErrUnavailable if want forbids to run the function; none
// comes from the store. It waits for others no longer than req.Deadline.
func (r *Results) Call(ctx context.Context, next contract.Caller, f *contract.Descriptor, req contract.Call, want contract.CacheDirectives) (contract.CacheResult, error) {
	c := calls.Get().(*call)
	c.results, c.next, c.function, c.request, c.want = r, next, f, req, want
	result, err := c.answer(ctx)
	r.counts.result(&result)
	if !c.joined {
		*c = call{}
		calls.Put(c)
	}
	return result, err
}

// calls are those that are over: one is large enough for a hit to notice.
var calls = sync.Pool{New: func() any { return new(call) }}

func (c *call) answer(ctx context.Context) (contract.CacheResult, error) {
	if !c.address() {
		return c.run(ctx, forwardBypass)
	}
	if c.want.NoStore && c.want.NoCache {
		return c.run(ctx, forwardRequest)
	}
	for first := true; ; first = false {
		landed := c.results.flights.landed(&c.sum)
		seen := c.look(ctx)
		if seen.forward == "" {
			if seen.refresh {
				c.refresh(ctx)
			}
			return seen.result()
		}
		if c.want.OnlyIfCached {
			return c.run(ctx, seen.forward)
		}
		if c.want.NoStore || seen.forward == forwardBypass || !c.learn(ctx) {
			result, err := c.run(ctx, seen.forward)
			return seen.settle(result, err)
		}
		if c.want.NoCache {
			return c.fill(ctx, seen.forward)
		}
		if !first {
			landed = anyTime
		}
		result, err := c.join(ctx, seen.forward, landed)
		if errors.Is(err, errLanded) {
			continue // the call that this one would have joined has just stored its result
		}
		if err != nil && result.Collapsed && ctx.Err() == nil && othersLimit(err) {
			continue // it was the other caller who could not wait
		}
		return seen.settle(result, err)
	}
}

// call is one call on its way through the cache.
type call struct {
	results  *Results
	next     contract.Caller
	function *contract.Descriptor
	request  contract.Call
	want     contract.CacheDirectives

	input  spelling
	sum    [sha256.Size]byte
	keys   []string // once located: the entry's, then those of its tags' generations
	values [][]byte // what the store has under them; nil for nothing
	joined bool     // a flight may use it for longer than its caller waits

	someKeys   [4]string // room for them without an allocation
	someValues [4][]byte
}

// address finds out what the call is about. It returns false for one that
// cannot be cached.
func (c *call) address() bool {
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
	if !c.input.read(c.request.Body) {
		return false
	}
	c.sum = entrySum(f, c.request.Identity, c.input.text)
	return true
}

// locate finds the keys that the store has it under. It returns false if a tag
// has no value.
func (c *call) locate() bool {
	if len(c.keys) > 0 {
		return true
	}
	keys := append(c.someKeys[:0], entryKey(c.results.namespace, &c.sum))
	for _, template := range c.function.Cache.Tags {
		tag, err := contract.ExpandTemplate(template, c.input.field)
		if err != nil {
			return false // optional and absent, or nothing that names a thing
		}
		keys = append(keys, generationKey(c.results.namespace, tag))
	}
	c.keys = keys
	c.values = append(c.someValues[:0], make([][]byte, len(keys))...)
	return true
}

// clone is a copy that may be used when this call is over.
func (c *call) clone() *call {
	clone := *c
	clone.input.members = slices.Clone(c.input.members)
	clone.keys, clone.values = slices.Clone(c.keys), slices.Clone(c.values)
	return &clone
}
