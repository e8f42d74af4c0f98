package cache

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"slices"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/faas"
)

// maxTags is how many tags an entry has room for.
const maxTags = 255

// Call answers req, which f answers, from the store if it can and through next
// otherwise. Its errors are next's, now or kept from before (then the Result is
// a hit), or faas.ErrUnavailable if want forbids to run the function; none
// comes from the store. It waits for others no longer than req.Deadline.
func (r *Results) Call(ctx context.Context, next Caller, f *faas.Descriptor, req faas.Request, want Directives) (Result, error) {
	c := &call{results: r, next: next, function: f, request: req, want: want}
	if !c.address() {
		return c.run(ctx, forwardBypass)
	}
	if want.NoStore && want.NoCache {
		return c.run(ctx, forwardRequest)
	}
	for first := true; ; first = false {
		landed := r.flights.landed(&c.sum)
		seen := c.look(ctx)
		if seen.forward == "" {
			if seen.refresh {
				c.refresh(ctx)
			}
			return seen.result()
		}
		if want.OnlyIfCached {
			return c.run(ctx, seen.forward)
		}
		if want.NoStore || seen.forward == forwardBypass || !c.learn(ctx) {
			result, err := c.run(ctx, seen.forward)
			return seen.settle(result, err)
		}
		if want.NoCache {
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
	next     Caller
	function *faas.Descriptor
	request  faas.Request
	want     Directives

	input  spelling
	sum    [sha256.Size]byte
	keys   []string // the entry's, then those of its tags' generations
	values [][]byte // what the store has under them; nil for nothing

	someKeys   [4]string // room for them without an allocation
	someValues [4][]byte
}

// address finds out what the call is about. It returns false for one that
// cannot be cached.
func (c *call) address() bool {
	f := c.function
	if f.Kind != faas.KindRequest || f.Cache == nil || f.Sensitive || f.Session {
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
	c.keys = append(c.someKeys[:0], entryKey(c.results.namespace, &c.sum))
	for _, template := range f.Cache.Tags {
		tag, err := faas.ExpandTag(template, c.input.field)
		if err != nil {
			return false // optional and absent, or nothing that names a thing
		}
		c.keys = append(c.keys, generationKey(c.results.namespace, tag))
	}
	c.values = append(c.someValues[:0], make([][]byte, len(c.keys))...)
	return true
}

// sight is what a look at the store showed.
type sight struct {
	verdict
	entry entry // if the verdict is about one
	age   time.Duration
}

// result is the stored one.
func (s *sight) result() (Result, error) {
	result := Result{Hit: true, Forward: s.forward, Age: s.age, TTL: s.ttl}
	if s.entry.failure {
		return result, failureOf(s.entry.body)
	}
	result.Body, result.ETag = s.entry.body, s.entry.etag
	return result, nil
}

// settle falls back on what was seen if that may take the place of a function
// that could not be reached.
func (s *sight) settle(result Result, err error) (Result, error) {
	if err != nil && s.stopgap && unreachable(faas.AsError(err)) {
		return s.result()
	}
	return result, err
}

// look reads the store and judges what is there. What has been invalidated is
// never served, whatever the policy allows of what is merely old.
func (c *call) look(ctx context.Context) sight {
	if c.results.store.get(ctx, c.keys, c.values) != nil {
		return sight{verdict: verdict{forward: forwardBypass}}
	}
	if c.values[0] == nil {
		return sight{verdict: verdict{forward: forwardMiss}}
	}
	e, ok := decode(c.values[0])
	if !ok || !e.agrees(c.values[1:]) || e.failure && failureOf(e.body) == nil {
		return sight{verdict: verdict{forward: forwardStale}}
	}
	age := max(time.Since(e.born), 0) // another machine's clock may be ahead
	return sight{judge(c.function.Cache, e.failure, e.ttl, age, c.want), e, age}
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
	if !c.request.Deadline.IsZero() {
		limited, cancel := context.WithDeadline(ctx, c.request.Deadline)
		defer cancel()
		ctx = limited
	}
	return c.results.flights.do(ctx, &c.sum, c.flight(), landed, func(ctx context.Context) (Result, error) {
		return c.fill(ctx, forward)
	})
}

// flight is the same for calls that may be one.
func (c *call) flight() string { return string(c.sum[:]) + string(slices.Concat(c.values[1:]...)) }

// refresh makes a fresh result in the background, unless somebody does. It is a
// call of its own, with all the time that its function has.
func (c *call) refresh(ctx context.Context) {
	fresh := *c
	fresh.keys, fresh.values = slices.Clone(c.keys), slices.Clone(c.values)
	fresh.request.ID, fresh.request.Causation = "", c.request.ID
	fresh.request.Deadline = time.Now().Add(cmp.Or(c.function.Timeout, faas.DefaultTimeout))
	c.results.flights.start(ctx, fresh.request.Deadline, &c.sum, c.flight(), func(ctx context.Context) (Result, error) {
		return fresh.fill(ctx, forwardStale)
	})
}

// fill makes the call and stores what it brings.
func (c *call) fill(ctx context.Context, forward string) (Result, error) {
	born := time.Now()
	result, err := c.run(ctx, forward)
	policy := c.function.Cache
	e := entry{born: born, ttl: policy.TTL, etag: result.ETag, body: result.Body}
	if err != nil {
		failure := faas.AsError(err)
		if policy.Negative == 0 || !keepable(failure) {
			return result, err
		}
		e.ttl, e.failure, e.body = policy.Negative, true, failureBody(failure)
	}
	e.ttl = min(e.ttl, generationTTL)
	if len(e.body) > maxSize(policy) {
		return result, err
	}
	if c.results.store.set(ctx, c.keys[0], e.encode(c.values[1:]), keptFor(policy, e.failure, e.ttl)) == nil {
		result.Stored, result.TTL = true, e.ttl
	}
	return result, err
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
