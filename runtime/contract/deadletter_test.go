package contract

import (
	"strings"
	"testing"
	"time"
)

func TestDeadFilter(t *testing.T) {
	noon := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	field := func(s string) DeadLetterFilter {
		f, err := ParseDeadLetterField(s)
		if err != nil {
			t.Fatal(err)
		}
		return DeadLetterFilter{Fields: []DeadLetterField{f}}
	}
	l := DeadLetter{
		Code: CodeNotFound, Error: `not-found: no profile "42"`, Last: noon,
		Event: Event{ID: "a", Key: "order.eu.placed", Body: []byte(`{
			"customer": {"id": 42, "name": "Ada", "vip": true, "note": null, "a.b": "dot", "c/d": "slash"},
			"lines": [{"sku": "x"}, {"sku": "y"}], "big": 12345678901234567890, "price": 1.50}`)},
	}
	for name, c := range map[string]struct {
		filter DeadLetterFilter
		fits   bool
	}{
		"all":                       {DeadLetterFilter{}, true},
		"one of the ids":            {DeadLetterFilter{IDs: []string{"b", "a"}}, true},
		"other ids":                 {DeadLetterFilter{IDs: []string{"b", "c"}}, false},
		"one of the codes":          {DeadLetterFilter{Codes: []Code{CodePanic, CodeNotFound}}, true},
		"other codes":               {DeadLetterFilter{Codes: []Code{CodePanic}}, false},
		"part of the error":         {DeadLetterFilter{Error: "NO profile"}, true},
		"another error":             {DeadLetterFilter{Error: "timeout"}, false},
		"key":                       {DeadLetterFilter{Key: "order.eu.placed"}, true},
		"pattern":                   {DeadLetterFilter{Key: "order.#"}, true},
		"another pattern":           {DeadLetterFilter{Key: "order.*"}, false},
		"before":                    {DeadLetterFilter{Before: noon.Add(1)}, true},
		"not before":                {DeadLetterFilter{Before: noon}, false},
		"after":                     {DeadLetterFilter{After: noon.Add(-1)}, true},
		"not after":                 {DeadLetterFilter{After: noon}, false},
		"all at once":               {DeadLetterFilter{IDs: []string{"a"}, Error: "profile", Key: "#", After: noon.Add(-1)}, true},
		"all but one":               {DeadLetterFilter{IDs: []string{"a"}, Error: "profile", Key: "user.#"}, false},
		"number":                    {field("customer.id=42"), true},
		"another number":            {field("customer.id=43"), false},
		"number, written otherwise": {field("price=1.5"), true},
		"big number":                {field("big=12345678901234567890"), true},
		"big number, close by":      {field("big=12345678901234567891"), false},
		"string":                    {field("customer.name=Ada"), true},
		"string in other case":      {field("customer.name=ada"), false},
		"true":                      {field("customer.vip=true"), true},
		"null":                      {field("customer.note=null"), true},
		"item":                      {field("lines.1.sku=y"), true},
		"no such item":              {field("lines.2.sku=y"), false},
		"no such member":            {field("customer.age=42"), false},
		"an object is no value":     {field("customer="), false},
		"below a value":             {field("customer.id.x=42"), false},
		"pointer":                   {field("/customer/id=42"), true},
		"pointer, dot":              {field("/customer/a.b=dot"), true},
		"pointer, slash":            {field("/customer/c~1d=slash"), true},
	} {
		if got := c.filter.Matches(&l); got != c.fits {
			t.Errorf("%s: got %v, want %v", name, got, c.fits)
		}
	}
	raw := DeadLetter{Event: Event{Body: []byte("\x00")}}
	if f := field("id=1"); f.Matches(&raw) {
		t.Error("a body that is not JSON fits a field")
	}
	for _, bad := range []string{"", "id", "=1", "/=1"} {
		if _, err := ParseDeadLetterField(bad); err == nil {
			t.Errorf("ParseDeadLetterField(%q): got nil, want an error", bad)
		}
	}
}

func TestDeadFilterEmpty(t *testing.T) {
	if f := (&DeadLetterFilter{}); !f.Empty() {
		t.Error("the zero filter is not empty")
	}
	if f := (&DeadLetterFilter{Key: "#"}); f.Empty() {
		t.Error("a filter by key is empty")
	}
}

func TestDeadGroups(t *testing.T) {
	at := func(minute int) time.Time { return time.Date(2026, 1, 2, 3, minute, 0, 0, time.UTC) }
	var g DeadLetterGroups
	for _, l := range []DeadLetter{
		{Function: "mail", Code: CodeNotFound, Error: `not-found: no profile "42"`, Last: at(5)},
		{Function: "mail", Code: CodeNotFound, Error: `not-found: no profile "a \" b"`, Last: at(2)},
		{Function: "mail", Code: CodeExhausted, Error: "exhausted: dial tcp 127.0.0.1:5432: refused", Last: at(3)},
		{Function: "bill", Code: CodeNotFound, Error: `not-found: no profile "42"`, Last: at(4)},
		{Function: "mail", Code: CodeExhausted, Error: "exhausted: dial tcp 10.1.2.3:25: refused", Last: at(1)},
		{Function: "mail", Code: CodeNotFound, Error: `not-found: no profile "7"`, Last: at(9)},
	} {
		g.Add(&l)
	}
	want := []DeadLetterGroup{
		{"bill", CodeNotFound, "not-found: no profile …", 1, at(4), at(4)},
		{"mail", CodeNotFound, "not-found: no profile …", 3, at(2), at(9)},
		{"mail", CodeExhausted, "exhausted: dial tcp …: refused", 2, at(1), at(3)},
	}
	got := g.List()
	if len(got) != len(want) {
		t.Fatalf("got %d groups, want %d: %+v", len(got), len(want), got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("group %d: got %+v, want %+v", i, got[i], want[i])
		}
	}
}

func TestErrorPattern(t *testing.T) {
	for err, want := range map[string]string{
		"plain words":        "plain words",
		"order 4711 is late": "order … is late",
		"id 018f3b2e-7c1d-7abc-9def-0123456789ab is unknown":  "id … is unknown",
		"read tcp 10.0.0.1:33412->10.0.0.2:5432: i/o timeout": "read tcp …->…: i/o timeout",
		"after 1.5s":                  "after …",
		"SMTP 550 5.1.1 no such user": "SMTP … … no such user",
		`an "open quote`:              `an "open quote`,
	} {
		if got := errorPattern(err); got != want {
			t.Errorf("%s: got %q, want %q", err, got, want)
		}
	}
	if long := strings.Repeat("9a-", 1<<14); errorPattern(long) == "" {
		t.Error("a long error has no pattern")
	}
}
