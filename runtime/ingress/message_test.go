package ingress

import (
	"encoding/json"
	"strings"
	"testing"
)

// null is a message for those whose schema has it, as that of a map does.
func TestNullAsAMessage(t *testing.T) {
	b := newBroker()
	table := request("table", "")
	table.Input = json.RawMessage(`{"type":["object","null"],"additionalProperties":{"type":"integer"}}`)
	b.announce("w2", table)
	h := New(Config{Broker: b})
	for name, want := range map[string]int{"table": 200, "plain": 422} {
		if r := do(h, "POST", "/functions/"+name, "null"); r.StatusCode != want {
			t.Errorf("%s: got %d, want %d", name, r.StatusCode, want)
		}
	}
}

func TestHeaderFieldsBecomeMembers(t *testing.T) {
	for _, c := range []struct {
		name, method, target, body string
		fields                     []string
		message                    string // what the function got; "" for nothing
		pointer, detail            string // of the 422
	}{
		{"one", "GET", "/localized/42", "", []string{"Accept-Language: de, en;q=0.5"}, `{"id":"42","language":"de, en;q=0.5"}`, "", ""},
		{"several lines", "GET", "/localized/42", "", []string{"accept-language: de", "Accept-Language: en"}, `{"id":"42","language":"de, en"}`, "", ""},
		{"none", "GET", "/localized/42", "", nil, `{"id":"42"}`, "", ""},
		{"empty", "GET", "/localized/42", "", []string{"Accept-Language: "}, `{"id":"42","language":""}`, "", ""},
		{"a number", "GET", "/localized/42", "", []string{"X-Limit: 7"}, `{"id":"42","limit":7}`, "", ""},
		{"no number", "GET", "/localized/42", "", []string{"X-Limit: 7, 8"}, "", "/limit", "want an integer"},
		{"not UTF-8", "GET", "/localized/42", "", []string{"Accept-Language: \xff"}, "", "/language", "not UTF-8"},
		{"quoted as JSON", "GET", "/localized/42", "", []string{`Accept-Language: ","id":"43`}, `{"id":"42","language":"\",\"id\":\"43"}`, "", ""},
		{"in the query", "GET", "/localized/42?language=de", "", nil, "", "/language", "header field Accept-Language only"},
		{"in the query, in capitals", "GET", "/localized/42?LANGUAGE=de", "", nil, "", "/LANGUAGE", "header field Accept-Language only"},
		{"in the query as well", "GET", "/localized/42?language=de", "", []string{"Accept-Language: de"}, "", "/language", "header field Accept-Language only"},
		{"by name", "POST", "/functions/localized", `{"id":"42"}`, []string{"Accept-Language: de"}, `{"id":"42","language":"de"}`, "", ""},
		{"by name, without a body", "POST", "/functions/localized", "", []string{"Accept-Language: de"}, `{"language":"de"}`, "", ""},
		{"in the body", "POST", "/functions/localized", `{"language":"de"}`, nil, "", "/language", "header field Accept-Language only"},
		{"in the body, in another case", "POST", "/functions/localized", `{"Language":"de"}`, []string{"Accept-Language: de"}, "", "/Language", "header field Accept-Language only"},
		{"sensitive in the body", "POST", "/functions/localized", `{"pin":"1"}`, nil, `{"pin":"1"}`, "", ""},
		{"sensitive in the query", "POST", "/functions/localized?pin=1", `{}`, nil, "", "/pin", "send it in the body"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, h := cached(&fakeResults{})
			r := do(h, c.method, c.target, c.body, c.fields...)
			if c.message != "" {
				if got := string(b.lastCall(t).Body); r.StatusCode != 200 || got != c.message {
					t.Errorf("%d, the function got %s, want %s", r.StatusCode, got, c.message)
				}
				return
			}
			p := readProblem(t, r)
			if p.Status != 422 || len(p.Errors) != 1 || p.Errors[0].Pointer != c.pointer || !strings.Contains(p.Errors[0].Detail, c.detail) || b.called() != 0 {
				t.Errorf("got %+v after %d calls, want %q at %s", p, b.called(), c.detail, c.pointer)
			}
		})
	}
}

// A function may treat names that differ in case as one, as encoding/json does. The
// query must not replace a value of the path.
func TestQueryInAnotherCase(t *testing.T) {
	b := newBroker()
	open := request("open", "GET /open/{userId}")
	open.Input = json.RawMessage(`{"type":"object"}`)
	b.announce("w2", open)
	r := do(New(Config{Broker: b}), "GET", "/open/1?userid=2", "")
	if p := readProblem(t, r); p.Status != 422 || len(p.Errors) != 1 || p.Errors[0].Pointer != "/userid" {
		t.Errorf("%+v, want a 422 for /userid", p)
	}
}
