// Package caching is HTTP caching as the ingress does it: what a request asks of
// the cache, whose results it may get, and what the response says about storing
// it (RFC 9110, 9111, 5861 and 9211). It knows no cache.
package caching

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// Policy is a function's cache policy, prepared for HTTP.
type Policy struct {
	identity []string      // what identifies the client; nil: all clients get the same result
	public   bool          // also with Authorization
	edge     time.Duration // how long a shared cache may serve a result; 0: not at all

	control     string // Cache-Control
	edgeControl string // the same where edge applies
	vary        string
}

// NewPolicy prepares a policy of a function whose message takes the header
// fields of these canonical names.
func NewPolicy(p *contract.CachePolicy, headers []string) Policy {
	c := Policy{public: p.Public, edge: p.Edge}
	// Only the ingress learns of an invalidation. All others that store a result
	// must ask again before they use it.
	c.control = "no-cache"
	switch {
	case len(p.Identity) > 0:
		c.control, c.edge = "private, no-cache", 0
	case p.Public:
		c.control = "public, no-cache"
	}
	if c.edge > 0 {
		c.edgeControl = edgeControl(p)
	}
	vary := slices.Clone(headers)
	for _, name := range p.Identity {
		if strings.HasPrefix(name, cookiePrefix) {
			vary = append(vary, "Cookie")
		} else {
			name = http.CanonicalHeaderKey(name)
			vary = append(vary, name)
		}
		c.identity = append(c.identity, name)
	}
	slices.Sort(vary)
	c.vary = strings.Join(slices.Compact(vary), ", ")
	return c
}

// edgeControl lets shared caches serve a result for p.Edge, and as long again
// while they ask for a new one, if the policy allows stale results (RFC 5861,
// section 3). For all others the result is stale at once.
func edgeControl(p *contract.CachePolicy) string {
	control := "max-age=0, must-revalidate, s-maxage=" + Seconds(p.Edge)
	if stale := min(p.StaleWhileRevalidate, p.Edge); stale >= time.Second {
		// Without must-revalidate, which forbids what the last directive allows.
		control = "max-age=0, s-maxage=" + Seconds(p.Edge) + ", stale-while-revalidate=" + Seconds(stale)
	}
	if p.Public {
		control = "public, " + control
	}
	return control
}

// Identify returns the identity under which the results for r are stored, and
// whether r may get and store results at all.
func (c *Policy) Identify(r *http.Request) (identity string, ok bool) {
	if len(c.identity) > 0 {
		identity = identityOf(r, c.identity)
		return identity, identity != ""
	}
	return "", c.public || len(r.Header["Authorization"]) == 0 // RFC 9111, section 3.5
}

// SetHeader sets the header fields that describe a successful result.
func (c *Policy) SetHeader(h http.Header, r *http.Request, result *contract.CacheResult, want contract.CacheDirectives) {
	if result.ETag != "" {
		h.Set("Etag", result.ETag)
	}
	h.Set("Cache-Control", c.controlOf(r, result, want))
	if c.vary != "" {
		h.Set("Vary", c.vary)
	}
	h.Set("Cache-Status", Status(result, false))
	if result.Hit {
		h.Set("Age", Seconds(result.Age))
	}
}

// controlOf returns the Cache-Control of a result.
func (c *Policy) controlOf(r *http.Request, result *contract.CacheResult, want contract.CacheDirectives) string {
	switch {
	case want.NoStore:
		return "no-store"
	case c.edge > 0 && (!result.Hit || result.TTL >= c.edge) && (r.Method == http.MethodGet || r.Method == http.MethodHead):
		return c.edgeControl
	}
	return c.control
}
