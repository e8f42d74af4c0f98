package ingress

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

func TestMembersAreFoundWithoutDecoding(t *testing.T) {
	body := ` { "a" : 1 , "b\u0041":[ {"x":"}]"} , 2 ],"c":"\"," ,"d":{"e":{}} ,"f":null,"":-1.5e3 } `
	got := ""
	for name, raw := range members([]byte(body)) {
		got += fmt.Sprintf("%s=%s;", name, raw)
	}
	if want := `a=1;bA=[ {"x":"}]"} , 2 ];c="\",";d={"e":{}};f=null;=-1.5e3;`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	for range members([]byte(" {} ")) {
		t.Error("an empty object has a member")
	}
}

func TestShapeOfForeignSchemas(t *testing.T) {
	for _, c := range []struct {
		schema string
		open   bool
		kind   kind
	}{
		{``, true, kindString},
		{`true`, true, kindString},
		{`{}`, true, kindString},
		{`{"type":"object","additionalProperties":{"type":"integer"}}`, true, kindInteger},
		{`{"type":"object","additionalProperties":false}`, false, kindString},
		{`{"type":"object","additionalProperties":false,"properties":{"x":{"type":["null","boolean"]}}}`, true, kindBoolean},
	} {
		s := shapeOf(json.RawMessage(c.schema))
		if m, ok := s.member("x"); ok != c.open || m.kind != c.kind {
			t.Errorf("%s: member x is %v, allowed %v; want %v, %v", c.schema, m.kind, ok, c.kind, c.open)
		}
	}
}

// FuzzMessage checks that whatever comes in, the message is either refused or
// an object that says of the path and the query what they say.
func FuzzMessage(f *testing.F) {
	f.Add("42", "name=a+b&tags=x&tags=y&count=3", `{"where":{"a":[1,"}"]}}`)
	f.Add("4\"2", "ratio=1e5&deep=true", `{"ID":"4"}`)
	f.Add("é", "sizes=1&sizes=2", ` { "n\u0061me" : "x" } `)
	f.Add("\x00", "%zz&&=&a", `{"a":}`)
	i := New(Config{Broker: newBroker()})
	fn := &function{Live: contract.Live{Descriptor: request("f", "PUT /f/{id}")}, input: shapeOf(json.RawMessage(inputSchema))}
	f.Fuzz(func(t *testing.T, id, query, body string) {
		r := httptest.NewRequest("PUT", "/f/x", strings.NewReader(body))
		r.URL.RawQuery = query
		r.SetPathValue("id", id)
		x := i.exchange(httptest.NewRecorder(), r)
		message, p := x.message(fn, []string{"id"})
		if p != nil {
			if p.Status != 400 && p.Status != 422 {
				t.Fatalf("refused with %+v", p)
			}
			return
		}
		var got map[string]any
		if err := json.Unmarshal(message, &got); err != nil {
			t.Fatalf("%q: %v", message, err)
		}
		if got["id"] != id {
			t.Fatalf("%q: id is %q, want %q", message, got["id"], id)
		}
		values, err := url.ParseQuery(query)
		if err != nil {
			return // a semicolon, which is a character like any other to us
		}
		for name, list := range values {
			if got[name] == nil {
				t.Fatalf("%q lacks %q", message, name)
			}
			if items, ok := got[name].([]any); ok && len(items) != len(list) {
				t.Fatalf("%q: %q has %d items, want %d", message, name, len(items), len(list))
			}
		}
	})
}

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

// Whoever reads the message may take names that differ in case for one, as
// encoding/json does: the query must not slip another value in for the path's.
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
