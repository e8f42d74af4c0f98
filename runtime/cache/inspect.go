package cache

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/cache/internal/entry"
	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// Stored describes what the store has for a call.
type Stored struct {
	Key   string      `json:"key"`
	Found bool        `json:"found"` // an entry is stored, and can be read
	Size  int         `json:"size"`  // in bytes, as stored
	Tags  []StoredTag `json:"tags"`

	// The fields below are set if Found.

	Born    time.Time     `json:"born"`              // when the function started to run
	TTL     time.Duration `json:"ttl"`               // for how long it is still fresh; negative: since when it is stale
	Failure contract.Code `json:"failure,omitempty"` // the failure that is stored in place of a result
	ETag    string        `json:"etag,omitempty"`
	Body    []byte        `json:"body,omitempty"`
}

// StoredTag is one tag of a stored result.
type StoredTag struct {
	Tag    string `json:"tag"`
	Agrees bool   `json:"agrees"` // since the function ran, it was not invalidated and its generation was not lost
}

// Valid reports whether an entry is stored that was not invalidated. It may be stale.
func (s *Stored) Valid() bool {
	for _, t := range s.Tags {
		if !t.Agrees {
			return false
		}
	}
	return s.Found
}

// Inspect returns what the store has for a call of f. The function does not run.
// Inspect fails if such a call is never cached, or if the store does not answer.
func (r *Results) Inspect(ctx context.Context, f *contract.Descriptor, req contract.Call) (Stored, error) {
	c := &call{results: r, function: f, request: req}
	if err := c.cacheable(); err != nil {
		return Stored{}, err
	}
	if err := r.store.Get(ctx, c.keys, c.values); err != nil {
		return Stored{}, fmt.Errorf("read the results cache: %w; check that it runs", err)
	}
	stored := Stored{Key: c.keys[0], Size: len(c.values[0])}
	e, ok := r.codec.Decode(c.keys[0], c.values[0])
	for i, template := range f.Cache.Tags {
		tag, err := contract.ExpandTemplate(template, c.input.Field)
		if err != nil {
			return Stored{}, err
		}
		stored.Tags = append(stored.Tags, StoredTag{tag, ok && e.AgreesOn(i, c.values[1+i])})
	}
	if !ok {
		return stored, nil
	}
	stored.Found, stored.Born, stored.ETag, stored.Body = true, e.Born, e.ETag, e.Body
	stored.TTL = c.evaluateEntry(e, time.Now()).ttl
	if e.Failure {
		failure := entry.DecodeFailure(e.Body)
		if failure == nil {
			return Stored{}, errors.New("a failure is stored that cannot be read")
		}
		stored.Failure = failure.Code
	}
	return stored, nil
}

// cacheable locates the call, or returns why it is never cached.
func (c *call) cacheable() error {
	f := c.function
	switch {
	case f.Cache == nil:
		return fmt.Errorf("results of %s are not cached: it does not say faas.Cached", f.Name)
	case f.Sensitive:
		return fmt.Errorf("results of %s are not cached: its message or its reply has sensitive fields", f.Name)
	case f.Session:
		return fmt.Errorf("results of %s are not cached: it uses the session of its client", f.Name)
	case len(f.Cache.Identity) > 0 && c.request.Identity == "":
		return fmt.Errorf("results of %s are stored per caller (%s), and this call names none: see Cache-Status in a response over HTTP", f.Name, strings.Join(f.Cache.Identity, ", "))
	case !c.identify():
		return fmt.Errorf("this call of %s is not cached: its message is not a JSON object, or has a member twice", f.Name)
	case c.locate():
		return nil
	}
	for _, template := range f.Cache.Tags {
		if _, err := contract.ExpandTemplate(template, c.input.Field); err != nil {
			return fmt.Errorf("this call of %s is not cached, because a tag needs a string, an integer, true or false: %w", f.Name, err)
		}
	}
	return nil
}
