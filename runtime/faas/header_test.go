package faas

import (
	"context"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/faas/internal/schema"
)

func TestHeaderFieldsThatCannotWork(t *testing.T) {
	type inner struct {
		Language string `header:"Accept-Language"`
	}
	type recursive struct {
		Next *recursive
		In   []inner
	}
	for _, c := range []struct {
		message reflect.Type
		says    string
	}{
		{reflect.TypeFor[struct {
			A string `header:"X A"`
		}](), "not the name"},
		{reflect.TypeFor[struct {
			A string `header:"X-A"`
			B string `header:"x-a"`
		}](), `"A" and "B"`},
		{reflect.TypeFor[struct {
			A string `header:"transfer-encoding"`
		}](), "not for functions"},
		{reflect.TypeFor[struct {
			A string `header:"X-Forwarded-For"`
		}](), "not for functions"},
		{reflect.TypeFor[struct {
			A string `header:"rabbet-attempt"`
		}](), "not for functions"},
		{reflect.TypeFor[struct {
			A string `header:"authorization"`
		}](), "is a secret"},
		{reflect.TypeFor[struct {
			A string `header:"Cookie" sensitive:"false"`
		}](), "is a secret"},
		{reflect.TypeFor[struct {
			A []string `header:"X-A"`
		}](), "is text"},
		{reflect.TypeFor[struct {
			A []byte `header:"X-A"`
		}](), "is text"},
		{reflect.TypeFor[struct{ A map[string]recursive }](), "message's own"},
	} {
		if err := checkHeaders(c.message); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v: got %v, want %q", c.message, err, c.says)
		}
	}
}

// A function that changes things checks the client's condition itself.
func TestConditionsAreForFunctions(t *testing.T) {
	if err := checkHeaders(reflect.TypeFor[struct {
		A string `header:"If-Match"`
		B string `header:"If-None-Match"`
	}]()); err != nil {
		t.Error(err)
	}
}

type localized struct {
	ID       string    `json:"id"`
	Language string    `json:"language,omitempty" header:"accept-language"`
	Limit    *float64  `json:"limit" header:"X-Limit"`
	Token    string    `json:"token" header:"Authorization" sensitive:"true"`
	Since    time.Time `json:"since" header:"If-Unmodified-Since"`
}

func (localized) RoutingKey() string { return "localized" }

type misplaced struct {
	A string `header:"Host"`
}

func (misplaced) RoutingKey() string { return "misplaced" }

func TestHeaderFieldsOfARegistration(t *testing.T) {
	var s Set[deps]
	localize := func(context.Context, *deps, localized) (get, error) { return get{}, nil }
	OnRequest(&s, "f", localize, HTTP("GET /f/{id}"), Cached(time.Minute, "f:{language}"))
	fns, err := s.With(&deps{})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"id": "", "language": "Accept-Language", "limit": "X-Limit", "token": "Authorization", "since": "If-Unmodified-Since",
	} {
		if got := schema.HeaderOf(fns[0].Input, name); got != want {
			t.Errorf("%s comes from %q, want %q, in %s", name, got, want, fns[0].Input)
		}
	}
	for says, register := range map[string]func(*Set[deps]){
		"already": func(s *Set[deps]) { OnRequest(s, "f", localize, HTTP("GET /f/{language}")) },
		"not for functions": func(s *Set[deps]) {
			OnRequest(s, "f", func(context.Context, *deps, misplaced) (get, error) { return get{}, nil })
		},
	} {
		if text := mistake(t, register); !strings.Contains(text, says) || !strings.Contains(text, "header_test.go:") {
			t.Errorf("want %q and the place in %q", says, text)
		}
	}
}

func TestCachePolicyTravels(t *testing.T) {
	var s Set[deps]
	tags := []string{"f:{id}"}
	policy := CachePolicy{TTL: time.Minute, Tags: tags, StaleIfError: time.Hour, Negative: time.Second, Identity: []string{"x-user", "cookie:id"}}
	OnRequest(&s, "f", onGet, policy)
	tags[0], policy.Identity[0] = "changed", "changed"
	fns, err := s.With(&deps{})
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(fns[0].Cache)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"ttl":60000000000,"tags":["f:{id}"],"staleIfError":3600000000000,"negative":1000000000,"identity":["X-User","cookie:id"]}`
	if string(b) != want {
		t.Errorf("got %s, want %s", b, want)
	}
}
