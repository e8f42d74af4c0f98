package ingress

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/faas"
)

// fakeResults answers with result, or lets the call through if it is nil.
type fakeResults struct {
	result *Result
	err    error
	wait   bool       // until ctx is done, and fail
	want   Directives // of the last call
}

func (r *fakeResults) Call(ctx context.Context, next Caller, f *faas.Descriptor, q faas.Request, want Directives) (Result, error) {
	r.want = want
	if r.wait {
		<-ctx.Done()
		return Result{}, faas.Expired(faas.ExecutedUnknown)
	}
	if r.err != nil {
		return Result{}, r.err
	}
	if r.result != nil {
		return *r.result, nil
	}
	reply, err := next.Call(ctx, q)
	return Result{Reply: reply, Stored: true, Forward: "uri-miss", ETag: `"1"`}, err
}

// cached is an ingress with one cached function, GET /cached/{id}.
func cached(r *fakeResults) (*fakeBroker, *Ingress) {
	b := newBroker()
	d := request("cached", "GET /cached/{id}")
	d.Cache = &faas.CachePolicy{TTL: time.Minute}
	b.announce("w2", d)
	return b, New(Config{Broker: b, Results: r})
}

func TestCacheFields(t *testing.T) {
	body := faas.Reply{Body: []byte(`{}`)}
	for _, c := range []struct {
		name   string
		result *Result
		status string
		age    string
	}{
		{"hit", &Result{Reply: body, Hit: true, ETag: `"1"`, Age: 7900 * time.Millisecond, TTL: 30 * time.Second}, "Rabbet; hit; ttl=30", "7"},
		{"stale hit", &Result{Reply: body, Hit: true, TTL: -5 * time.Second}, "Rabbet; hit; ttl=-5", "0"},
		{"miss", nil, "Rabbet; fwd=uri-miss; stored", ""},
		{"collapsed", &Result{Reply: body, Forward: "uri-miss", Collapsed: true}, "Rabbet; fwd=uri-miss; collapsed", ""},
		{"cache down", &Result{Reply: body}, "Rabbet; fwd=miss", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, h := cached(&fakeResults{result: c.result})
			r := do(h, "GET", "/cached/42", "")
			if r.StatusCode != 200 || r.Header.Get("Cache-Status") != c.status || r.Header.Get("Age") != c.age || r.Header.Get("Cache-Control") != "no-cache" {
				t.Errorf("%d, %v; want Cache-Status: %s, Age: %s", r.StatusCode, r.Header, c.status, c.age)
			}
			if r.Header.Get("Server-Timing") == "" {
				t.Error("no Server-Timing")
			}
		})
	}
}

func TestCacheDirectives(t *testing.T) {
	for _, c := range []struct {
		field string
		want  Directives
	}{
		{"Accept: */*", Directives{}},
		{"Cache-Control: no-store", Directives{NoStore: true}},
		{"Cache-Control: foo, No-Cache", Directives{NoCache: true}},
		{"Cache-Control: max-age=0", Directives{NoCache: true}},
		{"Cache-Control: max-age=rubbish", Directives{NoCache: true}},
		{"Cache-Control: max-age=\"5\"", Directives{MaxAge: 5 * time.Second}},
		{"Cache-Control: only-if-cached, max-age=9", Directives{OnlyIfCached: true, MaxAge: 9 * time.Second}},
		{"Pragma: no-cache", Directives{NoCache: true}},
		{"Authorization: Bearer x", Directives{NoStore: true, NoCache: true}},
	} {
		results := &fakeResults{}
		_, h := cached(results)
		r := do(h, "GET", "/cached/42", "", c.field)
		if results.want != c.want {
			t.Errorf("%s: %+v, want %+v", c.field, results.want, c.want)
		}
		if got := r.Header.Get("Cache-Control"); c.want.NoStore && got != "no-store" {
			t.Errorf("%s: answered with Cache-Control: %s, want no-store", c.field, got)
		}
	}
}

func TestConditionalRequests(t *testing.T) {
	for _, c := range []struct {
		etag, field string
		status      int
	}{
		{`"1"`, `If-None-Match: "1"`, 304},
		{`"1"`, `If-None-Match: W/"1"`, 304},
		{`"1"`, `If-None-Match: "0", W/"a,b" ,"1"`, 304},
		{`"1"`, `If-None-Match: *`, 304},
		{`"1"`, `If-None-Match: "2"`, 200},
		{`"1"`, `If-None-Match: 1`, 200},
		{`"1"`, `If-None-Match: "1`, 200},
		{`W/"1"`, `If-None-Match: "1"`, 304},
		{``, `If-None-Match: "1"`, 200},
		{`"1"`, `If-Match: "1"`, 200},
		{`"1"`, `If-Match: *`, 200},
		{`"1"`, `If-Match: W/"1"`, 412},
		{`W/"1"`, `If-Match: W/"1"`, 412},
		{`"1"`, `If-Match: "2"`, 412},
	} {
		for _, method := range []string{"GET", "HEAD"} {
			_, h := cached(&fakeResults{result: &Result{Reply: faas.Reply{Body: []byte(`{"x":1}`)}, Hit: true, ETag: c.etag, TTL: time.Second}})
			r := do(h, method, "/cached/42", "", c.field)
			if r.StatusCode != c.status {
				t.Errorf("%s of %s with %s: %d, want %d", method, c.etag, c.field, r.StatusCode, c.status)
			}
			if body := text(t, r); c.status == 304 && (body != "" || r.Header.Get("Etag") != c.etag || r.Header.Get("Content-Type") != "" || r.Header.Get("Cache-Status") == "") {
				t.Errorf("304 with %v, body %q", r.Header, body)
			}
		}
	}
	_, h := cached(&fakeResults{})
	if r := do(h, "POST", "/functions/cached", `{"id":"1"}`, `If-None-Match: *`); r.StatusCode != 200 || r.Header.Get("Etag") == "" {
		t.Errorf("a POST with If-None-Match: %d, want 200: its result has been made already", r.StatusCode)
	}
}

func TestOnlyIfCached(t *testing.T) {
	absent := &fakeResults{err: faas.ErrUnavailable}
	for name, fields := range map[string][]string{
		"absent":        {"Cache-Control: only-if-cached"},
		"contradiction": {"Cache-Control: only-if-cached, no-cache"},
		"authorized":    {"Cache-Control: only-if-cached", "Authorization: Bearer x"},
	} {
		b, h := cached(absent)
		p := readProblem(t, do(h, "GET", "/cached/42", "", fields...))
		if p.Status != http.StatusGatewayTimeout || p.Executed != faas.ExecutedNo || p.Attempt != 0 || b.called() != 0 {
			t.Errorf("%s: %+v after %d calls, want a 504 after none", name, p, b.called())
		}
	}
}

func TestFailedCallsAreFailedCallsWithACacheToo(t *testing.T) {
	_, h := cached(&fakeResults{err: faas.NotFound("no profile")})
	r := do(h, "GET", "/cached/42", "")
	if p := readProblem(t, r); p.Status != 404 || r.Header.Get("Etag") != "" || r.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("%+v, %v", p, r.Header)
	}
}

func TestDeadlineBoundsTheWaitForTheCache(t *testing.T) {
	results := &fakeResults{wait: true}
	_, h := cached(results)
	p := readProblem(t, do(h, "GET", "/cached/42", "", "Request-Timeout: 0.01"))
	if p.Status != http.StatusGatewayTimeout || p.Executed != faas.ExecutedUnknown {
		t.Errorf("%+v, want a 504", p)
	}
}
