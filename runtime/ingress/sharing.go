package ingress

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// caching is what a function's cache policy means for those who ask: whose
// result they may get, and what they are told about keeping it.
type caching struct {
	identity []string      // what says who asks; nil: everybody gets the same
	public   bool          // also with Authorization
	edge     time.Duration // for how long a shared cache may serve a result; 0: not at all

	control     string // Cache-Control
	edgeControl string // the same where edge applies
	vary        string
}

// cachingOf prepares a function's policy.
func cachingOf(f *function) caching {
	p := f.Cache
	c := caching{public: p.Public, edge: p.Edge}
	// Only the ingress hears of an invalidation: whoever else stores a result
	// must ask again before using it.
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
	var vary []string
	for _, name := range f.input.headers {
		vary = append(vary, f.input.members[name].header)
	}
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
// while they ask for a fresh one if the policy knows of that (RFC 5861, section
// 3). For everybody else the result is stale at once.
func edgeControl(p *contract.CachePolicy) string {
	control := "max-age=0, must-revalidate, s-maxage=" + seconds(p.Edge)
	if stale := min(p.StaleWhileRevalidate, p.Edge); stale >= time.Second {
		// No must-revalidate: it forbids what the last directive allows.
		control = "max-age=0, s-maxage=" + seconds(p.Edge) + ", stale-while-revalidate=" + seconds(stale)
	}
	if p.Public {
		control = "public, " + control
	}
	return control
}

const cookiePrefix = "cookie:"

// shares reports whether the request may share stored results, and completes
// the call by who asks.
func (c *caching) shares(r *http.Request, call *contract.Call) bool {
	if len(c.identity) > 0 {
		call.Identity = identityOf(r, c.identity)
		return call.Identity != ""
	}
	return c.public || len(r.Header["Authorization"]) == 0 // RFC 9111, section 3.5
}

// controlOf is the Cache-Control of a result.
func (c *caching) controlOf(r *http.Request, result *contract.CacheResult, want contract.CacheDirectives) string {
	switch {
	case want.NoStore:
		return "no-store"
	case c.edge > 0 && (!result.Hit || result.TTL >= c.edge) && (r.Method == http.MethodGet || r.Method == http.MethodHead):
		return c.edgeControl
	}
	return c.control
}

// identityOf is a hash of what says who asks; "" if the request has none of it.
// Nothing but the hash leaves the ingress.
func identityOf(r *http.Request, names []string) string {
	known := false
	h := sha256.New()
	write := func(value string) {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(value)))) // keeps neighbours apart
		h.Write([]byte(value))
	}
	for _, name := range names {
		values := r.Header[name]
		if cookie, ok := strings.CutPrefix(name, cookiePrefix); ok {
			values = nil
			for _, c := range r.CookiesNamed(cookie) {
				values = append(values, c.Value)
			}
		}
		write(strconv.Itoa(len(values)))
		for _, value := range values {
			known = known || value != ""
			write(value)
		}
	}
	if !known {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}
