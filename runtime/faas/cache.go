package faas

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// CachePolicy says how long callers may serve a result again, and what makes
// it stale. It is an Option of OnRequest; most functions want Cached. It has no
// effect on a function with sensitive fields, in its message or its reply:
// nothing of that is cached.
//
// An invalidation of one of the tags ends all of these times at once, except
// Edge.
type CachePolicy struct {
	// TTL is how long a result is fresh: a second to 30 days.
	TTL time.Duration `json:"ttl"`
	// Tags name what the result was made of, as templates over the input's
	// fields: "profile:{id}".
	Tags []string `json:"tags,omitempty"`

	// StaleWhileRevalidate is for how long after TTL a result is still served
	// while a fresh one is made in the background (RFC 5861, section 3); 0: never.
	StaleWhileRevalidate time.Duration `json:"staleWhileRevalidate,omitempty"`
	// StaleIfError is for how long after TTL a result is still served when the
	// function cannot be reached or fails with an error that it did not declare
	// (RFC 5861, section 4); 0: never.
	StaleIfError time.Duration `json:"staleIfError,omitempty"`
	// Negative is how long a declared error, such as not found, is kept in place
	// of a result: a second to 30 days; 0: not at all.
	Negative time.Duration `json:"negative,omitempty"`

	// Edge is for how long a shared cache in front of the ingress may serve a
	// result without asking, in whole seconds; 0: it may not. It is sent as
	// s-maxage (RFC 9111, section 5.2.2.10). Nothing tells such a cache of an
	// invalidation: it may be wrong for Edge, and for as long again if
	// StaleWhileRevalidate is set.
	Edge time.Duration `json:"edge,omitempty"`

	// Public says that a result is the same for everybody: requests with
	// Authorization, which else get past every cache (RFC 9111, section 3.5),
	// share it too.
	Public bool `json:"public,omitempty"`
	// Identity lists the request header fields, or "cookie:NAME", that say who
	// asks. Results are kept apart by their values, and only the client's own
	// cache may store them (private). A caller who sends none of them, or who
	// does not come by HTTP, gets past every cache.
	Identity []string `json:"identity,omitempty"`

	// MaxSize is the largest result to store, in bytes: at most 16 MiB; 0 is
	// DefaultMaxSize. Memcached takes 1 MiB unless told otherwise.
	MaxSize int `json:"maxSize,omitempty"`
}

// DefaultMaxSize is the size in bytes up to which results are stored if the
// policy does not say.
const DefaultMaxSize = 512 << 10

// Cached lets callers serve a result again for ttl, until one of its tags is
// invalidated. A tag is a template over the input's fields: "profile:{id}". It
// is short for a CachePolicy of these two.
func Cached(ttl time.Duration, tags ...string) Option { return CachePolicy{TTL: ttl, Tags: tags} }

func (c CachePolicy) apply(s *settings) {
	c.Tags = slices.Clone(c.Tags)
	c.Identity = slices.Clone(c.Identity)
	for i, name := range c.Identity {
		if !strings.HasPrefix(name, cookiePrefix) {
			c.Identity[i] = http.CanonicalHeaderKey(name)
		}
	}
	s.cache = &c
}

const (
	cookiePrefix = "cookie:"

	longestKept = 30 * 24 * time.Hour // Memcached's limit
	largestKept = 16 << 20            // RabbitMQ's limit since 4.0
)

// check says what about c cannot work for a function with this route and input.
func (c *CachePolicy) check(route *Route, input json.RawMessage) error {
	if route != nil && route.Method != http.MethodGet && route.Method != http.MethodHead && route.Method != http.MethodPost {
		return fmt.Errorf("faas.Cached: %s %s changes something: a cached result would keep it from running", route.Method, route.Path)
	}
	if c.TTL < time.Second || c.TTL > longestKept {
		return fmt.Errorf("faas.Cached: TTL %v: choose a second or more, at most 30 days", c.TTL)
	}
	for _, t := range []struct {
		name  string
		value time.Duration
		after time.Duration // what it is added to
		least time.Duration
	}{
		{"StaleWhileRevalidate", c.StaleWhileRevalidate, c.TTL, 0},
		{"StaleIfError", c.StaleIfError, c.TTL, 0},
		{"Negative", c.Negative, 0, time.Second},
	} {
		if t.value != 0 && (t.value < t.least || t.value < 0 || t.after+t.value > longestKept) {
			return fmt.Errorf("faas.CachePolicy: %s %v: choose 0 or %v and more, so that nothing is kept for over 30 days", t.name, t.value, t.least)
		}
	}
	if c.MaxSize < 0 || c.MaxSize > largestKept {
		return fmt.Errorf("faas.CachePolicy: MaxSize %d: choose 1 to %d bytes, or 0 for %d", c.MaxSize, largestKept, DefaultMaxSize)
	}
	if err := c.checkSharing(route); err != nil {
		return err
	}
	for _, tag := range c.Tags {
		_, err := ExpandTag(tag, func(name string) (string, bool) { return "", hasProperty(input, name) })
		if err != nil {
			return fmt.Errorf("faas.Cached: %w", err)
		}
	}
	return nil
}

// checkSharing says what about who may get whose result cannot work.
func (c *CachePolicy) checkSharing(route *Route) error {
	if c.Edge != 0 {
		switch {
		case c.Edge < time.Second || c.Edge%time.Second != 0 || c.Edge > c.TTL:
			return fmt.Errorf("faas.CachePolicy: Edge %v: choose whole seconds, no more than TTL", c.Edge)
		case len(c.Identity) > 0:
			return fmt.Errorf("faas.CachePolicy: Edge lets a shared cache serve what Identity keeps apart: choose one of them")
		case route == nil || route.Method != http.MethodGet:
			return fmt.Errorf(`faas.CachePolicy: Edge is for GET requests: add faas.HTTP("GET /…")`)
		}
	}
	if c.Public && len(c.Identity) > 0 {
		return fmt.Errorf("faas.CachePolicy: Public shares what Identity keeps apart: choose one of them")
	}
	for _, name := range c.Identity {
		bare, cookie := strings.CutPrefix(name, cookiePrefix)
		switch {
		case !isToken(bare):
			return fmt.Errorf("faas.CachePolicy: Identity %q: write the name of a header field, or cookie:NAME", name)
		case !cookie && name == "Cookie":
			return fmt.Errorf("faas.CachePolicy: Identity %q: name the cookie that says who asks: cookie:NAME", name)
		case !cookie && ofConnection(name):
			return fmt.Errorf("faas.CachePolicy: Identity %q: this header field says nothing about who asks", name)
		}
	}
	return nil
}
