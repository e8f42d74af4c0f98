package ingress

import (
	"cmp"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/faas"
)

// stored is what the fake cache has: seven seconds old, with 30 to go.
var stored = contract.CacheResult{
	Reply: contract.Reply{Body: []byte(`{"x":1}`)}, Hit: true, ETag: `"1"`, Age: 7900 * time.Millisecond, TTL: 30*time.Second + 1,
}

// changed is stored, but for what change does to it.
func changed(change func(*contract.CacheResult)) *contract.CacheResult {
	r := stored
	change(&r)
	return &r
}

// TestCachingByTheBook goes through what RFC 9111 (caching), 9110 (semantics),
// 5861 (stale) and 9211 (Cache-Status) ask of a response, one case each.
func TestCachingByTheBook(t *testing.T) {
	fresh := &stored
	miss := changed(func(r *contract.CacheResult) { r.Hit, r.Stored, r.Forward, r.Age = false, true, "uri-miss", 0 })
	edge := contract.CachePolicy{TTL: time.Minute, Edge: 2 * time.Second}
	for _, c := range []struct {
		section, name string
		policy        contract.CachePolicy // a TTL of a minute if there is none
		result        *contract.CacheResult
		request       string // method, path, and header fields, one per line; GET /cached/42 if empty
		status        int    // 200 if zero
		want          string // header fields of the response, one per line; "Name:" for one that must not be there
	}{
		// RFC 9111, HTTP Caching
		{"9111 4", "a hit says how old it is", contract.CachePolicy{}, fresh, "", 0, "Age: 7"},
		{"9111 5.1", "a response of just now has no age", contract.CachePolicy{}, miss, "", 0, "Age:"},
		{"9111 4.1", "what the result depends on is named", contract.CachePolicy{}, fresh, "GET /localized/42", 0, "Vary: Accept-Language, X-Limit"},
		{"9111 4.1", "what identifies the client is named, too", contract.CachePolicy{Identity: []string{"cookie:id", "X-User"}}, fresh,
			"GET /localized/42\nX-User: a", 0, "Vary: Accept-Language, Cookie, X-Limit, X-User\nCache-Control: private, no-cache"},
		{"9111 4.1", "a result that depends on nothing else names nothing", contract.CachePolicy{}, fresh, "", 0, "Vary:"},
		{"9111 5.2.2.4", "others must ask again: they do not learn of an invalidation", contract.CachePolicy{}, fresh, "", 0, "Cache-Control: no-cache"},
		{"9111 5.2.2.7", "a result of one's own is private", contract.CachePolicy{Identity: []string{"X-User"}}, fresh, "GET /cached/42\nX-User: a", 0, "Cache-Control: private, no-cache"},
		{"9111 5.2.2.9", "a result for everybody is public", contract.CachePolicy{Public: true}, fresh, "GET /cached/42\nAuthorization: Bearer x", 0, "Cache-Control: public, no-cache"},
		{"9111 5.2.2.10", "the edge gets a time of its own", edge, fresh, "", 0, "Cache-Control: max-age=0, must-revalidate, s-maxage=2"},
		{"9111 5.2.2.10", "of a new result, too", edge, miss, "", 0, "Cache-Control: max-age=0, must-revalidate, s-maxage=2"},
		{"9111 5.2.2.10", "for everybody, where it is public", contract.CachePolicy{Edge: time.Second, Public: true}, miss, "GET /cached/42\nAuthorization: Bearer x", 0, "Cache-Control: public, max-age=0, must-revalidate, s-maxage=1"},
		{"9111 5.2.2.10", "nothing for the edge about to go stale here", edge, changed(func(r *contract.CacheResult) { r.TTL = 1900 * time.Millisecond }), "", 0, "Cache-Control: no-cache"},
		{"9111 5.2.2.10", "nothing stale for the edge", edge, changed(func(r *contract.CacheResult) { r.TTL = -time.Second }), "", 0, "Cache-Control: no-cache"},
		{"9111 5.2.2.10", "nothing with Authorization for the edge", edge, miss, "GET /cached/42\nAuthorization: Bearer x", 0, "Cache-Control: no-store"},
		{"9111 5.2.2.10", "nothing called by name for the edge", edge, miss, "POST /functions/cached", 0, "Cache-Control: no-cache"},
		{"9111 3.5", "nothing is kept with Authorization", contract.CachePolicy{}, changed(func(r *contract.CacheResult) { r.Hit, r.Forward = false, "request" }), "GET /cached/42\nAuthorization: Bearer x", 0, "Cache-Control: no-store\nCache-Status: Rabbet; fwd=bypass"},
		{"9111 5.2.1.5", "nor where the client says so", contract.CachePolicy{}, fresh, "GET /cached/42\nCache-Control: no-store", 0, "Cache-Control: no-store"},
		{"9111 5.2.1.5", "the client outranks the edge", edge, fresh, "GET /cached/42\nCache-Control: no-store", 0, "Cache-Control: no-store"},
		{"9111 5.2.1.7", "only-if-cached, and it is", contract.CachePolicy{}, fresh, "GET /cached/42\nCache-Control: only-if-cached", 0, "Age: 7"},

		// RFC 5861, stale content
		{"5861 3", "the edge may serve stale for as long again", contract.CachePolicy{Edge: time.Second, StaleWhileRevalidate: time.Hour}, fresh, "", 0, "Cache-Control: max-age=0, s-maxage=1, stale-while-revalidate=1"},
		{"5861 3", "or for less", contract.CachePolicy{Edge: 9 * time.Second, StaleWhileRevalidate: 5 * time.Second}, fresh, "", 0, "Cache-Control: max-age=0, s-maxage=9, stale-while-revalidate=5"},
		{"5861 3", "others may not", contract.CachePolicy{StaleWhileRevalidate: time.Hour, StaleIfError: time.Hour}, fresh, "", 0, "Cache-Control: no-cache"},
		{"5861 3", "the client's own cache neither", contract.CachePolicy{StaleWhileRevalidate: time.Hour, Identity: []string{"X-User"}}, fresh, "GET /cached/42\nX-User: a", 0, "Cache-Control: private, no-cache"},

		// RFC 9211, Cache-Status
		{"9211 2.1", "hit", contract.CachePolicy{}, fresh, "", 0, "Cache-Status: Rabbet; hit; ttl=30"},
		{"9211 2.4", "stale hit", contract.CachePolicy{}, changed(func(r *contract.CacheResult) { r.TTL = -5 * time.Second }), "", 0, "Cache-Status: Rabbet; hit; ttl=-5"},
		{"9211 2.2", "miss", contract.CachePolicy{}, miss, "", 0, "Cache-Status: Rabbet; fwd=uri-miss; stored"},
		{"9211 2.2", "a miss that was not stored", contract.CachePolicy{}, changed(func(r *contract.CacheResult) { r.Hit, r.Forward = false, "uri-miss" }), "", 0, "Cache-Status: Rabbet; fwd=uri-miss"},
		{"9211 2.2", "stale, and the function failed", contract.CachePolicy{}, changed(func(r *contract.CacheResult) { r.Forward, r.TTL = "stale", -9*time.Second }), "", 0, "Cache-Status: Rabbet; fwd=stale; ttl=-9; detail=stale-if-error\nAge: 7"},
		{"9211 2.2", "stale", contract.CachePolicy{}, changed(func(r *contract.CacheResult) { r.Hit, r.Forward = false, "stale" }), "", 0, "Cache-Status: Rabbet; fwd=stale"},
		{"9211 2.2", "at the client's request", contract.CachePolicy{}, changed(func(r *contract.CacheResult) { r.Hit, r.Stored, r.Forward = false, true, "request" }), "", 0, "Cache-Status: Rabbet; fwd=request; stored"},
		{"9211 2.2", "the cache is out of reach", contract.CachePolicy{}, changed(func(r *contract.CacheResult) { r.Hit, r.Forward = false, "bypass" }), "", 0, "Cache-Status: Rabbet; fwd=bypass"},
		{"9211 2.2", "for no reason given", contract.CachePolicy{}, changed(func(r *contract.CacheResult) { r.Hit = false }), "", 0, "Cache-Status: Rabbet; fwd=miss"},
		{"9211 2.6", "collapsed", contract.CachePolicy{}, changed(func(r *contract.CacheResult) { r.Hit, r.Collapsed, r.Forward = false, true, "uri-miss" }), "", 0, "Cache-Status: Rabbet; fwd=uri-miss; collapsed"},

		// RFC 9110, HTTP Semantics
		{"9110 8.8.3", "the entity tag", contract.CachePolicy{}, fresh, "", 0, `Etag: "1"`},
		{"9110 9.3.2", "HEAD is GET without the content", contract.CachePolicy{}, fresh, "HEAD /cached/42", 0, "Content-Length: 7\nContent-Type: application/json\nEtag: \"1\"\nAge: 7"},
		{"9110 15.4.5", "304 has what the 200 would have had, but for the content's own", edge, fresh, "GET /localized/42\nIf-None-Match: \"1\"", 304,
			"Etag: \"1\"\nCache-Control: max-age=0, must-revalidate, s-maxage=2\nVary: Accept-Language, X-Limit\nAge: 7\nCache-Status: Rabbet; hit; ttl=30\nServer-Timing:\nContent-Type:\nContent-Length:"},
		{"9110 13.1.2", "If-None-Match compares weakly", contract.CachePolicy{}, fresh, "GET /cached/42\nIf-None-Match: W/\"1\"", 304, ""},
		{"9110 13.1.2", "of several", contract.CachePolicy{}, fresh, "GET /cached/42\nIf-None-Match: \"0\", W/\"a,b\" ,\"1\"", 304, ""},
		{"9110 13.1.2", "on several lines", contract.CachePolicy{}, fresh, "GET /cached/42\nIf-None-Match: \"0\"\nIf-None-Match: \"1\"", 304, ""},
		{"9211 2.2", "the ttl of what has just become stale is negative", contract.CachePolicy{}, changed(func(r *contract.CacheResult) { r.TTL = -time.Millisecond }), "GET /cached/42", 200, "Cache-Status: Rabbet; hit; ttl=-1"},
		{"9110 13.1.2", "any", contract.CachePolicy{}, fresh, "GET /cached/42\nIf-None-Match: *", 304, ""},
		{"9110 13.1.2", "HEAD, too", contract.CachePolicy{}, fresh, "HEAD /cached/42\nIf-None-Match: \"1\"", 304, ""},
		{"9110 13.1.2", "a result of just now, too", contract.CachePolicy{}, miss, "GET /cached/42\nIf-None-Match: \"1\"", 304, "Cache-Status: Rabbet; fwd=uri-miss; stored"},
		{"9110 13.1.2", "another", contract.CachePolicy{}, fresh, "GET /cached/42\nIf-None-Match: \"2\"", 200, ""},
		{"9110 13.1.2", "without quotes", contract.CachePolicy{}, fresh, "GET /cached/42\nIf-None-Match: 1", 200, ""},
		{"9110 13.1.2", "cut off", contract.CachePolicy{}, fresh, "GET /cached/42\nIf-None-Match: \"1", 200, ""},
		{"9110 13.1.2", "nothing to compare with", contract.CachePolicy{}, changed(func(r *contract.CacheResult) { r.ETag = "" }), "GET /cached/42\nIf-None-Match: \"1\"", 200, "Etag:"},
		{"9110 13.1.1", "If-Match with a POST by name, too", contract.CachePolicy{}, fresh, "POST /functions/cached\nIf-Match: \"0\"", 412, ""},
		{"9110 13.1.2", "304 is for GET and HEAD", contract.CachePolicy{}, fresh, "POST /functions/cached\nIf-None-Match: \"1\"", 412, "Cache-Control: no-store"},
		{"9110 13.1.2", "another, with a POST by name", contract.CachePolicy{}, fresh, "POST /functions/cached\nIf-None-Match: \"2\"", 200, `Etag: "1"`},
		{"9110 13.1.1", "If-Match, and it does", contract.CachePolicy{}, fresh, "GET /cached/42\nIf-Match: \"1\"", 200, ""},
		{"9110 13.1.1", "any that is there", contract.CachePolicy{}, fresh, "GET /cached/42\nIf-Match: *", 200, ""},
		{"9110 13.1.1", "If-Match, and it does not", contract.CachePolicy{}, fresh, "GET /cached/42\nIf-Match: \"2\"", 412, "Cache-Control: no-store"},
		{"9110 13.1.1", "If-Match compares strongly", contract.CachePolicy{}, fresh, "GET /cached/42\nIf-Match: W/\"1\"", 412, ""},
		{"9110 13.2.2", "If-Match comes first", contract.CachePolicy{}, fresh, "GET /cached/42\nIf-None-Match: \"1\"\nIf-Match: \"2\"", 412, ""},
		{"9110 13.1.3", "no date, no If-Modified-Since", contract.CachePolicy{}, fresh, "GET /cached/42\nIf-Modified-Since: Tue, 01 Jan 2030 00:00:00 GMT", 200, ""},
		{"9110 13.1.4", "no date, no If-Unmodified-Since", contract.CachePolicy{}, fresh, "GET /cached/42\nIf-Unmodified-Since: Thu, 01 Jan 1970 00:00:00 GMT", 200, ""},
		{"9110 14.2", "no ranges", contract.CachePolicy{}, fresh, "GET /cached/42\nRange: bytes=0-1", 200, ""},
		{"9110 5.6.1", "an empty list of tags", contract.CachePolicy{}, fresh, "GET /cached/42\nIf-None-Match: , ,", 200, ""},
	} {
		t.Run(c.section+" "+c.name, func(t *testing.T) {
			if c.policy.TTL == 0 {
				c.policy.TTL = time.Minute
			}
			_, h := cachedBy(&fakeResults{result: c.result}, c.policy)
			r := doLines(h, c.request)
			if want := cmp.Or(c.status, 200); r.StatusCode != want {
				t.Fatalf("status %d, want %d: %s", r.StatusCode, want, text(t, r))
			}
			for line := range strings.SplitSeq(c.want, "\n") {
				if name, want, _ := strings.Cut(line, ":"); r.Header.Get(name) != strings.TrimSpace(want) {
					t.Errorf("got %s: %q, want %q", name, r.Header.Get(name), strings.TrimSpace(want))
				}
			}
			if body := text(t, r); (r.StatusCode == 304 || strings.HasPrefix(c.request, "HEAD")) && body != "" {
				t.Errorf("body %q", body)
			}
			if r.Header.Get("Warning") != "" || r.Header.Get("Set-Cookie") != "" {
				t.Errorf("header fields %v", r.Header)
			}
		})
	}
}

// doLines serves a request written as "METHOD path", then one header field per line.
func doLines(h http.Handler, lines string) *http.Response {
	first, fields, _ := strings.Cut(lines, "\n")
	method, target, _ := strings.Cut(first, " ")
	if method == "" {
		method, target = "GET", "/cached/42"
	}
	body := ""
	if method == http.MethodPost {
		body = `{"id":"42"}`
	}
	var list []string
	if fields != "" {
		list = strings.Split(fields, "\n")
	}
	return do(h, method, target, body, list...)
}

// TestDirectivesByTheBook is what a request asks of the cache (RFC 9111,
// section 5.2.1).
func TestDirectivesByTheBook(t *testing.T) {
	for _, c := range []struct {
		section, fields string
		want            contract.CacheDirectives
	}{
		{"5.2", "Accept: */*", contract.CacheDirectives{}},
		{"5.2", "Cache-Control: unknown, x=\"no-store, no-cache\\\", no-store\", y=1", contract.CacheDirectives{}},
		{"5.2", "Cache-Control: ,, No-Cache ,", contract.CacheDirectives{NoCache: true}},
		{"5.2", "Cache-Control: no-store\nCache-Control: no-cache", contract.CacheDirectives{NoStore: true, NoCache: true}},
		{"5.2.1.1", "Cache-Control: max-age=5", contract.CacheDirectives{MaxAge: 5 * time.Second}},
		{"5.2.1.1", "Cache-Control: max-age=0", contract.CacheDirectives{NoCache: true}},
		{"5.2", "Cache-Control: max-age=\"5\"", contract.CacheDirectives{MaxAge: 5 * time.Second}},
		{"4.2.1", "Cache-Control: max-age=9, max-age=5, max-age=7", contract.CacheDirectives{MaxAge: 5 * time.Second}},
		{"4.2.1", "Cache-Control: max-age=soon", contract.CacheDirectives{NoCache: true}},
		{"4.2.1", "Cache-Control: max-age=-1", contract.CacheDirectives{NoCache: true}},
		{"4.2.1", "Cache-Control: max-age", contract.CacheDirectives{NoCache: true}},
		{"1.2.2", "Cache-Control: max-age=99999999999999999999", contract.CacheDirectives{MaxAge: 1 << 31 * time.Second}},
		{"5.2.1.2", "Cache-Control: max-stale=10", contract.CacheDirectives{MaxStale: 10 * time.Second}},
		{"5.2.1.2", "Cache-Control: max-stale", contract.CacheDirectives{MaxStale: math.MaxInt64}},
		{"5.2.1.2", "Cache-Control: max-stale, max-stale=1", contract.CacheDirectives{MaxStale: time.Second}},
		{"5.2.1.2", "Cache-Control: max-stale=much", contract.CacheDirectives{}},
		{"5.2.1.3", "Cache-Control: min-fresh=20", contract.CacheDirectives{MinFresh: 20 * time.Second}},
		{"5.2.1.3", "Cache-Control: min-fresh=20, min-fresh=30", contract.CacheDirectives{MinFresh: 30 * time.Second}},
		{"5.2.1.3", "Cache-Control: min-fresh=very", contract.CacheDirectives{NoCache: true}},
		{"5.2.1.4", "Cache-Control: no-cache", contract.CacheDirectives{NoCache: true}},
		{"5.2.1.5", "Cache-Control: no-store", contract.CacheDirectives{NoStore: true}},
		{"5.2.1.6", "Cache-Control: no-transform", contract.CacheDirectives{}},
		{"5.2.1.7", "Cache-Control: only-if-cached, max-age=9", contract.CacheDirectives{OnlyIfCached: true, MaxAge: 9 * time.Second}},
		{"5.4", "Pragma: no-cache", contract.CacheDirectives{NoCache: true}},
		{"5.4", "Pragma: no-cache\nCache-Control: max-age=5", contract.CacheDirectives{MaxAge: 5 * time.Second}},
		{"3.5", "Authorization: Bearer x", contract.CacheDirectives{NoStore: true, NoCache: true}},
	} {
		results := &fakeResults{result: &stored}
		_, h := cached(results)
		doLines(h, "GET /cached/42\n"+c.fields)
		if results.want != c.want {
			t.Errorf("RFC 9111, section %s: %q: %+v, want %+v", c.section, c.fields, results.want, c.want)
		}
	}
}

func TestOnlyIfCached(t *testing.T) { // RFC 9111, section 5.2.1.7
	absent := &fakeResults{err: contract.ErrUnavailable}
	for name, fields := range map[string][]string{
		"absent":        {"Cache-Control: only-if-cached"},
		"contradiction": {"Cache-Control: only-if-cached, no-cache"},
		"authorized":    {"Cache-Control: only-if-cached", "Authorization: Bearer x"},
	} {
		b, h := cached(absent)
		p := readProblem(t, do(h, "GET", "/cached/42", "", fields...))
		if p.Status != http.StatusGatewayTimeout || p.Executed != contract.ExecutedNo || p.Attempt != 0 || b.called() != 0 {
			t.Errorf("%s: %+v after %d calls, want a 504 after none", name, p, b.called())
		}
	}
}

func TestNegativeResults(t *testing.T) {
	kept := &contract.CacheResult{Hit: true, Age: 3 * time.Second, TTL: 9 * time.Second}
	for _, c := range []struct {
		name, field, status, age string
		result                   *contract.CacheResult
		executed                 contract.Executed
		attempt                  int
	}{
		{"kept", "Accept: */*", "Rabbet; hit; ttl=9; detail=negative", "3", kept, contract.ExecutedNo, 0},
		{"kept, and only that", "Cache-Control: only-if-cached", "Rabbet; hit; ttl=9; detail=negative", "3", kept, contract.ExecutedNo, 0},
		{"kept from now on", "Accept: */*", "Rabbet; fwd=uri-miss; stored; detail=negative", "", &contract.CacheResult{Forward: "uri-miss", Stored: true}, contract.ExecutedYes, 1},
		{"not kept", "Accept: */*", "Rabbet; fwd=uri-miss", "", &contract.CacheResult{Forward: "uri-miss"}, contract.ExecutedYes, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, h := cached(&fakeResults{result: c.result, err: faas.NotFound("no profile")})
			r := do(h, "GET", "/cached/42", "", c.field)
			p := readProblem(t, r)
			if p.Status != 404 || p.Executed != c.executed || p.Attempt != c.attempt {
				t.Errorf("got %+v, want a 404, executed %s, attempt %d", p, c.executed, c.attempt)
			}
			if r.Header.Get("Cache-Status") != c.status || r.Header.Get("Age") != c.age || r.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("%v, want Cache-Status: %s, Age: %s", r.Header, c.status, c.age)
			}
		})
	}
}

// TestIdentity checks that different clients have different identities, and that a
// client without one does not use the cache.
func TestIdentity(t *testing.T) {
	results := &fakeResults{result: &stored}
	_, h := cachedBy(results, contract.CachePolicy{TTL: time.Minute, Identity: []string{"X-User", "cookie:id"}})
	seen := map[string]string{}
	for _, fields := range []string{
		"X-User: a", "X-User: b", "X-User: a\nX-User: b", "X-User: a, b", "Cookie: id=a", "Cookie: id=b; other=c", "X-User: a\nCookie: id=a",
		"X-User: a\nCookie: id=a\nCookie: id=b", "Cookie: id=ab", "X-User: ab", "X-User: a\nX-User: ",
	} {
		doLines(h, "GET /cached/42\n"+fields)
		id := results.request.Identity
		if len(id) != 43 || results.want.NoStore || results.want.NoCache {
			t.Fatalf("%q: identity %q, %+v", fields, id, results.want)
		}
		if other, clash := seen[id]; clash {
			t.Errorf("%q and %q are one", fields, other)
		}
		seen[id] = fields
	}
	doLines(h, "GET /cached/42\nCookie: other=x; id=b\nAuthorization: Bearer x")
	if seen[results.request.Identity] != "Cookie: id=b; other=c" || results.want.NoStore {
		t.Errorf("what is not declared makes a difference: identity %q, %+v", results.request.Identity, results.want)
	}
	for _, fields := range []string{"Accept: */*", "X-User: ", "Cookie: id=", "Cookie: other=a", "Authorization: Bearer x"} {
		r := doLines(h, "GET /cached/42\n"+fields)
		if want := (contract.CacheDirectives{NoStore: true, NoCache: true}); results.request.Identity != "" || results.want != want || r.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%q: identity %q, %+v, %v; want it to get past the cache", fields, results.request.Identity, results.want, r.Header)
		}
	}
}

// TestUncachedByPromise has descriptors that say what faas.OnRequest would not
// let them.
func TestUncachedByPromise(t *testing.T) {
	for name, change := range map[string]func(*contract.Descriptor){
		"sensitive": func(d *contract.Descriptor) { d.Sensitive = true },
		"session":   func(d *contract.Descriptor) { d.Session = true },
	} {
		results := &fakeResults{result: &stored}
		b := newBroker()
		d := request("cached", "GET /cached/{id}")
		d.Cache = &contract.CachePolicy{TTL: time.Minute}
		change(&d)
		b.announce("w2", d)
		r := do(New(Config{Broker: b, Results: results, Sessions: &fakeSessions{}}), "GET", "/cached/42", "")
		if b.called() != 1 || r.Header.Get("Cache-Control") != "no-store" || r.Header.Get("Etag") != "" {
			t.Errorf("%s: %d calls, %v; want it to get past the cache", name, b.called(), r.Header)
		}
	}
}

// TestConditionsOnChanges is RFC 9110, sections 13.1.1 and 13.1.2, for
// functions that change something: a condition holds, or is refused.
func TestConditionsOnChanges(t *testing.T) {
	b := newBroker()
	careful := request("careful", "PUT /careful/{id}")
	careful.Input = []byte(`{"type":"object","properties":{"id":{"type":"string"},"match":{"type":"string","x-header":"If-Match"}}}`)
	b.announce("w2", careful)
	h := New(Config{Broker: b})
	for _, c := range []struct {
		method, target, field string
		status                int
	}{
		{"PUT", "/profiles/42", `If-Match: "1"`, 412},
		{"PUT", "/profiles/42", `If-Match: *`, 412},
		{"PUT", "/profiles/42", `If-None-Match: *`, 412},
		{"PUT", "/profiles/42", `If-None-Match: "1"`, 200}, // nothing here has that tag
		{"DELETE", "/profiles/42", `If-Match: "1"`, 412},
		{"POST", "/functions/plain", `If-Match: "1"`, 412},
		{"PUT", "/careful/42", `If-Match: "1"`, 200},
		{"PUT", "/careful/42", `If-None-Match: *`, 412},
	} {
		before := b.called()
		r := do(h, c.method, c.target, "{}", c.field)
		if r.StatusCode != c.status || (b.called() == before) != (c.status == 412) {
			t.Errorf("%s %s with %s: %d after %d calls, want %d", c.method, c.target, c.field, r.StatusCode, b.called()-before, c.status)
		}
	}
	do(h, "PUT", "/careful/42", "{}", `If-Match: "1"`)
	if got := string(b.lastCall(t).Body); got != `{"id":"42","match":"\"1\""}` {
		t.Errorf("the function got %s", got)
	}
}
