package ingress

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/faas"
)

// fakeResults answers with result and err, or lets the call through if it has neither.
type fakeResults struct {
	result *Result
	err    error

	want    Directives   // of the last call
	request faas.Request // likewise
}

func (r *fakeResults) Call(ctx context.Context, next Caller, f *faas.Descriptor, q faas.Request, want Directives) (Result, error) {
	r.want, r.request = want, q
	if r.result != nil {
		return *r.result, r.err
	}
	if r.err != nil {
		return Result{}, r.err
	}
	reply, err := next.Call(ctx, q)
	return Result{Reply: reply, Stored: true, Forward: "uri-miss", ETag: `"1"`}, err
}

// cached is an ingress with one cached function, GET /cached/{id}.
func cached(r *fakeResults) (*fakeBroker, *Ingress) {
	return cachedBy(r, faas.CachePolicy{TTL: time.Minute})
}

func cachedBy(r *fakeResults, policy faas.CachePolicy) (*fakeBroker, *Ingress) {
	b := newBroker()
	d := request("cached", "GET /cached/{id}")
	d.Cache = &policy
	localized := request("localized", "GET /localized/{id}")
	localized.Cache = &policy
	localized.Input = json.RawMessage(localizedSchema)
	b.announce("w2", d, localized)
	return b, New(Config{Broker: b, Results: r})
}

const localizedSchema = `{"type":"object","additionalProperties":false,"properties":{
	"id":{"type":"string"},"language":{"type":"string","x-header":"Accept-Language"},
	"limit":{"type":"integer","x-header":"X-Limit"},"pin":{"type":"string","x-sensitive":true}}}`

func TestFailedCallsAreFailedCallsWithACacheToo(t *testing.T) {
	_, h := cached(&fakeResults{err: faas.NotFound("no profile")})
	r := do(h, "GET", "/cached/42", "")
	if p := readProblem(t, r); p.Status != 404 || r.Header.Get("Etag") != "" || r.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("%+v, %v", p, r.Header)
	}
}
