package message

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/body"
)

const inputSchema = `{"type":"object","additionalProperties":false,"required":["id"],"properties":{
	"id":{"type":"string","description":"the profile's id"},"name":{"type":"string"},"count":{"type":"integer"},
	"ratio":{"type":["number","null"]},"deep":{"type":"boolean"},"tags":{"type":"array","items":{"type":"string"}},
	"sizes":{"type":"array","items":{"type":"integer"}},"where":{"type":"object"}}}`

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

func TestForeignSchemas(t *testing.T) {
	for _, c := range []struct {
		schema string
		open   bool
		kind   Kind
	}{
		{``, true, String},
		{`true`, true, String},
		{`{}`, true, String},
		{`{"type":"object","additionalProperties":{"type":"integer"}}`, true, Integer},
		{`{"type":"object","additionalProperties":false}`, false, String},
		{`{"type":"object","additionalProperties":false,"properties":{"x":{"type":["null","boolean"]}}}`, true, Boolean},
	} {
		s := ParseSchema(json.RawMessage(c.schema))
		if f, ok := s.field("x"); ok != c.open || f.Kind != c.kind {
			t.Errorf("%s: member x is %v, allowed %v; want %v, %v", c.schema, f.Kind, ok, c.kind, c.open)
		}
	}
}

// FuzzMessage checks that any message is either refused or an object with the
// values of the path and the query.
func FuzzMessage(f *testing.F) {
	f.Add("42", "name=a+b&tags=x&tags=y&count=3", `{"where":{"a":[1,"}"]}}`)
	f.Add("4\"2", "ratio=1e5&deep=true", `{"ID":"4"}`)
	f.Add("é", "sizes=1&sizes=2", ` { "n\u0061me" : "x" } `)
	f.Add("\x00", "%zz&&=&a", `{"a":}`)
	schema := ParseSchema(json.RawMessage(inputSchema))
	f.Fuzz(func(t *testing.T, id, query, content string) {
		r := httptest.NewRequest("PUT", "/f/x", strings.NewReader(content))
		r.URL.RawQuery = query
		r.SetPathValue("id", id)
		var message []byte
		input, p := body.ReadJSON(httptest.NewRecorder(), r, 1<<20)
		if p == nil {
			message, p = Build(r, input, []string{"id"}, &schema)
		}
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
			return // a semicolon, which is an ordinary character here
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
