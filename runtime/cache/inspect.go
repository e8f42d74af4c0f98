package cache

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// Stored tells what the store has for a call.
type Stored struct {
	Key   string      `json:"key"`
	Found bool        `json:"found"` // something is there, and can be read
	Size  int         `json:"size"`  // of it, in bytes, as stored
	Tags  []StoredTag `json:"tags"`

	// The rest is about what is there, if it can be read.

	Born    time.Time     `json:"born"`              // when the function began to run
	TTL     time.Duration `json:"ttl"`               // for how long it is fresh yet; negative: since when it is not
	Failure contract.Code `json:"failure,omitempty"` // what is kept in place of a result
	ETag    string        `json:"etag,omitempty"`
	Body    []byte        `json:"body,omitempty"`
}

// StoredTag is one tag of a stored result.
type StoredTag struct {
	Tag    string `json:"tag"`
	Agrees bool   `json:"agrees"` // it has not been invalidated, nor its generation lost, since the function ran
}

// Valid reports whether the result may be served, as far as its tags go.
func (s *Stored) Valid() bool {
	for _, t := range s.Tags {
		if !t.Agrees {
			return false
		}
	}
	return s.Found
}

// Inspect returns what the store has for a call of f, and runs nothing. It
// fails if such a call is never cached, or the store does not answer.
func (r *Results) Inspect(ctx context.Context, f *contract.Descriptor, req contract.Call) (Stored, error) {
	c := &call{results: r, function: f, request: req}
	if err := c.cacheable(); err != nil {
		return Stored{}, err
	}
	if err := r.store.get(ctx, c.keys, c.values); err != nil {
		return Stored{}, fmt.Errorf("read the results cache: %w; check that it runs", err)
	}
	stored := Stored{Key: c.keys[0], Size: len(c.values[0])}
	e, ok := r.codec.decode(c.keys[0], c.values[0])
	for i, template := range f.Cache.Tags {
		tag, err := contract.ExpandTemplate(template, c.input.field)
		if err != nil {
			return Stored{}, err
		}
		stored.Tags = append(stored.Tags, StoredTag{tag, ok && e.agreesOn(i, c.values[1+i])})
	}
	if !ok {
		return stored, nil
	}
	stored.Found, stored.Born, stored.ETag, stored.Body = true, e.born, e.etag, e.body
	seen := c.judge(e, time.Now())
	stored.TTL = seen.ttl
	if e.failure {
		failure := failureOf(e.body)
		if failure == nil {
			return Stored{}, errors.New("what is stored is a failure that cannot be read")
		}
		stored.Failure = failure.Code
	}
	return stored, nil
}

// cacheable locates the call, or says why it is never cached.
func (c *call) cacheable() error {
	f := c.function
	switch {
	case f.Cache == nil:
		return fmt.Errorf("results of %s are not cached: it does not say faas.Cached", f.Name)
	case f.Sensitive:
		return fmt.Errorf("results of %s are not cached: its message or its reply has sensitive fields", f.Name)
	case f.Session:
		return fmt.Errorf("results of %s are not cached: it uses its client's session", f.Name)
	case len(f.Cache.Identity) > 0 && c.request.Identity == "":
		return fmt.Errorf("results of %s are kept apart by who asks (%s), and nobody does: see Cache-Status in an answer over HTTP", f.Name, strings.Join(f.Cache.Identity, ", "))
	case !c.address():
		return fmt.Errorf("this call of %s is not cached: its message is no JSON object, or has a member twice", f.Name)
	case c.locate():
		return nil
	}
	for _, template := range f.Cache.Tags {
		if _, err := contract.ExpandTemplate(template, c.input.field); err != nil {
			return fmt.Errorf("this call of %s is not cached, for a tag needs a text, a whole number, true or false: %w", f.Name, err)
		}
	}
	return nil
}
