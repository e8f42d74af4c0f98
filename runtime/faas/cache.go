package faas

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/faas/internal/schema"
)

// CachePolicy says for how long results are cached (TTL), what invalidates them
// (Tags), whether stale ones may be served (StaleWhileRevalidate, StaleIfError),
// whether errors are cached (Negative), and who may share them (Public, Identity,
// Edge). It is an Option of OnRequest; most functions need only Cached.
type CachePolicy = contract.CachePolicy

// Cached caches the results of a request function for ttl (a second to 30 days), or
// until one of the tags is invalidated. A tag is a template over the fields of the
// message: "profile:{id}". Cached is short for a CachePolicy with TTL and Tags.
func Cached(ttl time.Duration, tags ...string) Option { return CachePolicy{TTL: ttl, Tags: tags} }

// cacheOption returns a copy of c with canonical names of header fields.
func cacheOption(c CachePolicy) *CachePolicy {
	c.Tags = slices.Clone(c.Tags)
	c.Identity = slices.Clone(c.Identity)
	for i, name := range c.Identity {
		if !strings.HasPrefix(name, cookiePrefix) {
			c.Identity[i] = http.CanonicalHeaderKey(name)
		}
	}
	return &c
}

const (
	cookiePrefix = "cookie:"

	longestKept = 30 * 24 * time.Hour // Memcached's limit
	largestKept = 16 << 20            // RabbitMQ's limit since 4.0
)

// checkCache reports why c does not work for a function with this route and input.
func checkCache(c *CachePolicy, route *contract.Route, input json.RawMessage) error {
	if route != nil && route.Method != http.MethodGet && route.Method != http.MethodHead && route.Method != http.MethodPost {
		return fmt.Errorf("faas.Cached: %s %s changes something: a cached result would keep it from running", route.Method, route.Path)
	}
	if c.TTL < time.Second || c.TTL > longestKept {
		return fmt.Errorf("faas.Cached: TTL %v: choose a second or more, at most 30 days", c.TTL)
	}
	for _, t := range []struct {
		name  string
		value time.Duration
		after time.Duration // the time that it follows
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
		return fmt.Errorf("faas.CachePolicy: MaxSize %d: choose 1 to %d bytes, or 0 for %d", c.MaxSize, largestKept, contract.DefaultMaxSize)
	}
	if err := checkSharing(c, route); err != nil {
		return err
	}
	for _, tag := range c.Tags {
		_, err := contract.ExpandTemplate(tag, func(name string) (string, bool) { return "", schema.HasProperty(input, name) })
		if err != nil {
			return fmt.Errorf("faas.Cached: %w", err)
		}
	}
	return nil
}

// checkSharing reports what is wrong with Edge, Public and Identity.
func checkSharing(c *CachePolicy, route *contract.Route) error {
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
