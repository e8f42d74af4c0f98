package cache

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/faas"
)

// maxResult is the size above which a result is not stored: what Memcached
// takes by default, with room for the rest of the entry.
const maxResult = 512 << 10

// maxTags is how many tags an entry has room for.
const maxTags = 255

// Why a function ran, in the words of RFC 9211.
const (
	forwardMiss    = "uri-miss"
	forwardStale   = "stale"
	forwardRequest = "request"
	forwardBypass  = "bypass"
)

// Call answers req, which f answers, from the store if it can and through next
// otherwise. Its errors are next's, or faas.ErrUnavailable if want forbids to
// run the function; none comes from the store.
func (r *Results) Call(ctx context.Context, next Caller, f *faas.Descriptor, req faas.Request, want Directives) (Result, error) {
	c := call{results: r, next: next, function: f, request: req, want: want}
	if f.Kind != faas.KindRequest || f.Cache == nil || f.Sensitive || f.Session {
		return c.run(ctx, forwardBypass)
	}
	if want.NoStore && want.NoCache {
		return c.run(ctx, forwardRequest)
	}
	if !c.address() {
		return c.run(ctx, forwardBypass)
	}
	for first := true; ; first = false {
		landed := r.flights.landed(c.keys[0])
		result, forward, hit := c.look(ctx)
		if hit {
			return result, nil
		}
		switch {
		case want.OnlyIfCached, forward == forwardBypass, want.NoStore:
			return c.run(ctx, forward)
		case !c.learn(ctx):
			return c.run(ctx, forwardBypass)
		case want.NoCache:
			return c.fill(ctx, forward)
		}
		if !first {
			landed = anyTime
		}
		result, err := c.join(ctx, forward, landed)
		if errors.Is(err, errLanded) {
			continue // the call that this one would have joined has just stored its result
		}
		if err != nil && result.Collapsed && ctx.Err() == nil && othersLimit(err) {
			continue // it was the other caller who could not wait
		}
		return result, err
	}
}

// call is one call on its way through the cache.
type call struct {
	results  *Results
	next     Caller
	function *faas.Descriptor
	request  faas.Request
	want     Directives

	keys   []string // the entry's, then those of its tags' generations
	values [][]byte // what the store has under them; nil for nothing

	someKeys   [4]string // room for them without an allocation
	someValues [4][]byte
}

// address finds the keys. It returns false for a call that cannot be cached.
func (c *call) address() bool {
	if t := c.request.ContentType; t != "" && t != "application/json" {
		return false
	}
	in, ok := canonical(c.request.Body)
	if !ok {
		return false
	}
	tags := c.function.Cache.Tags
	if len(tags) > maxTags {
		return false
	}
	c.keys = append(c.someKeys[:0], entryKey(c.results.namespace, c.function, in.text))
	for _, template := range tags {
		tag, err := faas.ExpandTag(template, in.field)
		if err != nil {
			return false // optional and absent, or nothing that names a thing
		}
		c.keys = append(c.keys, generationKey(c.results.namespace, tag))
	}
	c.values = append(c.someValues[:0], make([][]byte, len(c.keys))...)
	return true
}

// look reads the store and returns what it found, or why the function has to run.
func (c *call) look(ctx context.Context) (result Result, forward string, hit bool) {
	if c.results.store.get(ctx, c.keys, c.values) != nil {
		return Result{}, forwardBypass, false
	}
	if c.values[0] == nil {
		return Result{}, forwardMiss, false
	}
	e, ok := decode(c.values[0])
	age := time.Since(e.born)
	if !ok || age >= e.ttl || !e.agrees(c.values[1:]) {
		return Result{}, forwardStale, false
	}
	age = max(age, 0) // another machine's clock may be ahead
	if c.want.NoCache || c.want.MaxAge > 0 && age > c.want.MaxAge {
		return Result{}, forwardRequest, false
	}
	return Result{Reply: faas.Reply{Body: e.body}, Hit: true, ETag: e.etag, Age: age, TTL: e.ttl - age}, "", true
}

// learn makes sure that every tag has a generation. It returns false if the
// store does not play along.
func (c *call) learn(ctx context.Context) bool {
	for i := 1; i < len(c.keys); i++ {
		for try := 1; c.values[i] == nil; try++ {
			var err error
			c.values[i], err = c.results.store.add(ctx, c.keys[i], newGeneration(), generationTTL)
			if err != nil && (try == 3 || !deadConnection(err)) {
				return false
			}
		}
		if len(c.values[i]) != generationSize {
			return false // not ours; an invalidation will mend it
		}
	}
	return true
}

// join makes the call, or waits for the same call of somebody else. Whoever
// read other generations is not the same: what runs may have begun before the
// invalidation that this caller knows of.
func (c *call) join(ctx context.Context, forward string, landed uint32) (Result, error) {
	key := c.keys[0] + string(slices.Concat(c.values[1:]...))
	return c.results.flights.do(ctx, c.keys[0], key, landed, &c.results.fills, func(ctx context.Context) (Result, error) {
		return c.fill(ctx, forward)
	})
}

// fill makes the call and stores its result.
func (c *call) fill(ctx context.Context, forward string) (Result, error) {
	born := time.Now()
	result, err := c.run(ctx, forward)
	if err != nil || len(result.Body) > maxResult {
		return result, err
	}
	e := entry{born: born, ttl: min(c.function.Cache.TTL, generationTTL), etag: result.ETag, body: result.Body}
	if c.results.store.set(ctx, c.keys[0], e.encode(c.values[1:]), e.ttl) == nil {
		result.Stored, result.TTL = true, e.ttl
	}
	return result, nil
}

// run makes the call.
func (c *call) run(ctx context.Context, forward string) (Result, error) {
	if c.want.OnlyIfCached {
		return Result{Forward: forward}, &faas.Error{Code: faas.CodeUnavailable, Detail: "no result is stored for this input", Executed: faas.ExecutedNo}
	}
	reply, err := c.next.Call(ctx, c.request)
	if err != nil {
		return Result{Forward: forward}, err
	}
	result := Result{Reply: reply, Forward: forward}
	if c.function.Cache != nil {
		result.ETag = etagOf(reply.Body)
	}
	return result, nil
}

// othersLimit reports whether err is about how long a caller could wait, and
// so says nothing to another one.
func othersLimit(err error) bool {
	code := faas.AsError(err).Code
	return code == faas.CodeExpired || code == faas.CodeCanceled
}
