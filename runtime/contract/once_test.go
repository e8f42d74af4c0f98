package contract

import "testing"

func TestOnceKey(t *testing.T) {
	event := func(id, body string) *Event { return &Event{Key: "order.placed", ID: id, Body: []byte(body)} }
	source := func(s string) map[string]any { return map[string]any{"cloudEvents_source": s} }
	for _, c := range []struct {
		name     string
		template string
		a, b     *Event
		same     bool
	}{
		{"one id", "", event("1", "x"), event("1", "y"), true},
		{"two ids", "", event("1", "x"), event("2", "x"), false},
		{"one id, two routing keys", "", &Event{Key: "a", ID: "1"}, &Event{Key: "b", ID: "1"}, false},
		{"one id, two sources", "", &Event{Key: "a", ID: "1", Headers: source("x")}, &Event{Key: "a", ID: "1", Headers: source("y")}, false},
		{"parts that run together", "", &Event{Key: "a", ID: "b1"}, &Event{Key: "ab", ID: "1"}, false},
		{"one field", "order:{id}", event("1", `{"id":"7","x":1}`), event("2", `{"x":2,"id":"7"}`), true},
		{"one field, two routing keys", "order:{id}", &Event{Key: "a", Body: []byte(`{"id":"7"}`)}, &Event{Key: "b", Body: []byte(`{"id":"7"}`)}, true},
		{"another spelling", "order:{id}", event("1", `{"ID":"7"}`), event("2", `{"id":"7"}`), true},
		{"another value", "order:{id}", event("1", `{"id":"7"}`), event("1", `{"id":"8"}`), false},
		{"a number", "order:{id}", event("1", `{"id":7}`), event("1", `{"id":8}`), false},
		{"a large number", "order:{id}", event("1", `{"id":9007199254740993}`), event("1", `{"id":9007199254740992}`), false},
		{"two fields", "{id}/{n}", event("1", `{"id":"7","n":1}`), event("2", `{"id":"7","n":2}`), false},
	} {
		p := &OncePolicy{Key: c.template}
		a, err := p.KeyOf(c.a)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		b, err := p.KeyOf(c.b)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if (a == b) != c.same {
			t.Errorf("%s: got %q and %q, want them the same: %v", c.name, a, b, c.same)
		}
	}
}

func TestOnceKeyIsMissing(t *testing.T) {
	p := &OncePolicy{Key: "order:{id}"}
	for body, code := range map[string]Code{
		``: CodeMalformed, `[1]`: CodeMalformed, `{`: CodeMalformed,
		`{}`: CodeInvalid, `{"id":null}`: CodeInvalid, `{"id":""}`: CodeInvalid, `{"id":{}}`: CodeInvalid, `{"id":[7]}`: CodeInvalid,
	} {
		key, err := p.KeyOf(&Event{ID: "1", Body: []byte(body)})
		if e := AsError(err); e == nil || e.Code != code || !e.Permanent() {
			t.Errorf("%s: got %q, %v; want %s, for good", body, key, err, code)
		}
	}
}
