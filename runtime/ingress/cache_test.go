package ingress

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/faas"
)

// fakeResults answers with result and err, or lets the call through if it has neither.
type fakeResults struct {
	result *contract.CacheResult
	err    error

	want    contract.CacheDirectives // of the last call
	request contract.Call            // likewise
}

func (r *fakeResults) Call(ctx context.Context, next contract.Caller, f *contract.Descriptor, q contract.Call, want contract.CacheDirectives) (contract.CacheResult, error) {
	r.want, r.request = want, q
	if r.result != nil {
		return *r.result, r.err
	}
	if r.err != nil {
		return contract.CacheResult{}, r.err
	}
	reply, err := next.Call(ctx, q)
	return contract.CacheResult{Reply: reply, Stored: true, Forward: "uri-miss", ETag: `"1"`}, err
}

// cached is an ingress with one cached function, GET /cached/{id}.
func cached(r *fakeResults) (*fakeBroker, *Ingress) {
	return cachedBy(r, contract.CachePolicy{TTL: time.Minute})
}

func cachedBy(r *fakeResults, policy contract.CachePolicy) (*fakeBroker, *Ingress) {
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

// What is stored is served whether a worker is there or not; what is not cannot be made.
func TestCachedWithoutAWorker(t *testing.T) {
	fresh := contract.CacheResult{Reply: contract.Reply{Body: []byte(`{"id":"42"}`)}, Hit: true, ETag: `"1"`, TTL: time.Minute}
	for name, c := range map[string]struct {
		results *fakeResults
		fields  string
		status  int
	}{
		"a hit":                       {&fakeResults{result: &fresh}, "Accept: */*", 200},
		"a hit, only-if-cached":       {&fakeResults{result: &fresh}, "Cache-Control: only-if-cached", 200},
		"a miss":                      {&fakeResults{}, "Accept: */*", 503},
		"a miss, which was not there": {&fakeResults{err: errNoWorker}, "Cache-Control: only-if-cached", 504},
	} {
		b, h := cached(c.results)
		b.announce("w2")
		r := do(h, "GET", "/cached/42", "", c.fields)
		if r.StatusCode != c.status || b.called() != 0 {
			t.Errorf("%s: %d after %d calls, want %d after none", name, r.StatusCode, b.called(), c.status)
		}
		if timing := r.Header.Get("Server-Timing"); strings.HasPrefix(timing, "cache;dur=") != (r.StatusCode == 200) {
			t.Errorf("%s: Server-Timing: %q", name, timing)
		}
		if r.StatusCode == 503 {
			if p := readProblem(t, r); p.Executed != contract.ExecutedNo || !p.Retryable || p.Attempt != 0 {
				t.Errorf("%s: got %+v, want it not executed, to be tried again", name, p)
			}
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
