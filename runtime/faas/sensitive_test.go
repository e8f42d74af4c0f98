package faas

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/faas/internal/schema"
)

type card struct {
	Number string `json:"number" sensitive:"true"`
	Brand  string `json:"brand"`
}

type secretive struct {
	card `sensitive:"true"`
}

type opaqueCard struct{ card }

func (*opaqueCard) UnmarshalJSON([]byte) error { return nil }

type order struct {
	ID    string          `json:"id"`
	PIN   int             `json:"pin,omitempty" sensitive:"true"`
	Notes []string        `json:"notes,omitempty" sensitive:"true"`
	Card  *card           `json:"card,omitempty"`
	Cards []card          `json:"cards,omitempty"`
	By    map[string]card `json:"by,omitempty"`
	Next  *order          `json:"next,omitempty"`
	Blob  *opaqueCard     `json:"blob,omitempty"`
	Until *time.Time      `json:"until,omitempty" sensitive:"true"`
	Slip  string          `json:"slip,omitempty" sensitive:"yes"`
	Not   string          `json:"not,omitempty" sensitive:"false"`
}

func (order) RoutingKey() string     { return "order" }
func (secretive) RoutingKey() string { return "secretive" }

func schemaFor[T any]() json.RawMessage {
	return schema.NewDecoder(reflect.TypeFor[T](), schema.Tolerant).Schema
}

func TestRedact(t *testing.T) {
	for _, c := range []struct{ name, body, want string }{
		{"nothing there", `{"id":"1"}`, `{"id":"1"}`},
		{"a scalar", `{"id":"1","pin":1234}`, `{"id":"1","pin":"[redacted]"}`},
		{"null", `{"pin":null}`, `{"pin":"[redacted]"}`},
		{"a list as a whole", `{"notes":["a",{"b":[]}],"id":"1"}`, `{"notes":"[redacted]","id":"1"}`},
		{"in a struct", `{"card":{"number":"4111","brand":"v"}}`, `{"card":{"number":"[redacted]","brand":"v"}}`},
		{"in a list", `{"cards":[{"number":"4111"},{"brand":"v","number":1}]}`, `{"cards":[{"number":"[redacted]"},{"brand":"v","number":"[redacted]"}]}`},
		{"in a map", `{"by":{"a":{"number":"4111"}}}`, `{"by":{"a":{"number":"[redacted]"}}}`},
		{"below a recursion", `{"next":{"pin":1}}`, `{"next":"[redacted]"}`},
		{"in what decodes itself", `{"blob":{"x":1}}`, `{"blob":"[redacted]"}`},
		{"a slip in the tag", `{"slip":"x","not":"y"}`, `{"slip":"[redacted]","not":"y"}`},
		{"another case", `{"PIN":1234,"Card":{"NUMBER":"4111"}}`, `{"PIN":"[redacted]","Card":{"NUMBER":"[redacted]"}}`},
		{"twice", `{"pin":1234,"pin":5678}`, `{"pin":"[redacted]","pin":"[redacted]"}`},
		{"another type", `{"card":["4111"],"pin":{"a":1},"cards":{"a":[{"number":"4111"}]},"by":null}`, `{"card":"[redacted]","pin":"[redacted]","cards":"[redacted]","by":null}`},
		{"another type altogether", `[{"card":{"number":"4111"}}]`, `"[redacted]"`},
		{"a scalar for it all", `"4111"`, `"[redacted]"`},
		{"unknown members, order, numbers", ` { "z" : 1.50e3, "id" : "<a>&\n", "a" : [ true , null ] } `, `{"z":1.50e3,"id":"<a>&\n","a":[true,null]}`},
		{"no JSON", `pin=1234`, `"[redacted]"`},
		{"more than one value", `{"id":"1"} {"pin":1234}`, `"[redacted]"`},
	} {
		if got := string(contract.Redact(schemaFor[order](), []byte(c.body))); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
	for name, text := range map[string]json.RawMessage{"no schema": nil, "no sensitive field": schemaFor[get]()} {
		if got := string(contract.Redact(text, []byte(` pin=1 `))); got != " pin=1 " {
			t.Errorf("%s: got %s, want it untouched", name, got)
		}
	}
	if got := string(contract.Redact(schemaFor[secretive](), []byte(`{"number":"4111","brand":"v"}`))); got != `{"number":"[redacted]","brand":"[redacted]"}` {
		t.Errorf("an embedded struct: got %s", got)
	}
	if got := string(contract.Redact(json.RawMessage(`{"properties":1}`), []byte(`{}`))); got != `"[redacted]"` {
		t.Errorf("a schema that cannot be read: got %s", got)
	}
}

func TestSensitiveFunctions(t *testing.T) {
	var s Set[deps]
	OnRequest(&s, "asks", func(context.Context, *deps, order) (get, error) { return get{}, nil }, HTTP("POST /orders/{id}"), Cached(time.Minute))
	OnRequest(&s, "answers", func(context.Context, *deps, get) (order, error) { return order{}, nil }, HTTP("GET /orders/{id}"), Cached(time.Minute))
	OnRequest(&s, "neither", onPut, Cached(time.Minute))
	OnEvent(&s, "hears", onEvent, Also(func(context.Context, *deps, order) error { return nil }))
	OnEvent(&s, "deaf", onEvent)
	fns, err := s.With(&deps{})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range fns {
		sensitive := f.Name != "neither" && f.Name != "deaf"
		if f.Sensitive != sensitive || (f.Cache != nil) != (f.Name == "neither") {
			t.Errorf("%s: sensitive %v, cache %v", f.Name, f.Sensitive, f.Cache)
		}
		if f.Name == "hears" {
			if contract.HasSensitive(f.InputOf("thing.get")) || !contract.HasSensitive(f.InputOf("order")) || f.InputOf("else") != nil {
				t.Errorf("schemas by key: %+v", f.Reactions)
			}
		}
	}
	for says, register := range map[string]func(*Set[deps]){
		"the inbox keeps": func(s *Set[deps]) {
			OnEvent(s, "f", func(context.Context, *deps, order) error { return nil }, Once("{id}:{pin}"))
		},
		"logged everywhere": func(s *Set[deps]) {
			OnRequest(s, "f", func(context.Context, *deps, order) (get, error) { return get{}, nil }, HTTP("POST /orders/{pin}"))
		},
		"no body": func(s *Set[deps]) {
			OnRequest(s, "f", func(context.Context, *deps, order) (get, error) { return get{}, nil }, HTTP("GET /orders/{id}"))
		},
	} {
		if text := mistake(t, register); !strings.Contains(text, says) {
			t.Errorf("want %q in %q", says, text)
		}
	}
}

// TestErrorsTellNoSecrets lets a function quote its message in every way.
func TestErrorsTellNoSecrets(t *testing.T) {
	const body = `{"id":"the-id","pin":123456,"notes":["top \"secret\" <é>"],"cards":[{"number":"4111-1111","brand":"v"}]}`
	wrapped := errors.New("4111-1111")
	for name, c := range map[string]struct {
		fn   func(in order) error
		want error
	}{
		"plain": {func(in order) error {
			return fmt.Errorf("no %d %v %q %+v: %w", in.PIN, in.Notes, in.Notes, in.Cards, wrapped)
		}, wrapped},
		"declared": {func(in order) error { return NotFound("no %v: %w", in, wrapped) }, ErrNotFound},
		"fields":   {func(in order) error { return InvalidField("/by/"+in.Cards[0].Number, "%q", in.Notes[0]) }, ErrInvalid},
		"json": {func(in order) error {
			b, _ := json.Marshal(in)
			return RetryAfter(time.Second, errors.New(string(b)))
		}, ErrUnavailable},
		"panic": {func(in order) error { panic(fmt.Sprint(in)) }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var s Set[deps]
			OnRequest(&s, "request", func(_ context.Context, _ *deps, in order) (get, error) { return get{}, c.fn(in) })
			OnEvent(&s, "event", func(_ context.Context, _ *deps, in order) error { return c.fn(in) })
			fns, err := s.With(&deps{})
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range fns {
				_, err := f.Run(t.Context(), &Event{Key: "order", Body: []byte(body)}, time.Time{})
				if err == nil || c.want != nil && !errors.Is(err, c.want) {
					t.Fatalf("%s: got %v, want %v", f.Name, err, c.want)
				}
				for cause := err; cause != nil; cause = errors.Unwrap(cause) {
					for _, secret := range []string{"123456", "secret", "4111"} {
						if text := fmt.Sprintf("%v %+v", cause, cause); strings.Contains(text, secret) {
							t.Errorf("%s: %s tells %q", f.Name, text, secret)
						}
					}
				}
				if name != "fields" && name != "plain" && !strings.Contains(fmt.Sprintf("%v", err), "the-id") {
					t.Errorf("%s: %v has lost what is not secret", f.Name, err)
				}
			}
		})
	}
}

// Nor of a message of another kind than the function's, in which nobody knows
// what is secret.
func TestErrorsTellNothingOfAnotherKind(t *testing.T) {
	for _, body := range []string{`{"card":["4111-1111"]}`, `[{"card":{"brand":"4111-1111"}}]`, `"4111-1111"`} {
		f := contract.Function{
			Descriptor: contract.Descriptor{Kind: contract.KindRequest, Input: schemaFor[order](), Sensitive: true, Timeout: time.Minute},
			Handle:     func(context.Context, *Event) ([]byte, error) { return nil, errors.New("no 4111-1111") },
		}
		_, err := f.Run(t.Context(), &Event{Body: []byte(body)}, time.Time{})
		if want := "no " + contract.Redacted; err == nil || err.Error() != want {
			t.Errorf("%s: got %q, want %q", body, err, want)
		}
	}
}

func TestRefusedInputsTellNoSecrets(t *testing.T) {
	var s Set[deps]
	OnRequest(&s, "f", func(context.Context, *deps, order) (get, error) { return get{}, nil })
	fns, err := s.With(&deps{})
	if err != nil {
		t.Fatal(err)
	}
	for body, pointer := range map[string]string{
		`{"id":"1","pin":1234567890123456789012345678901234567890123456789}`: "/pin",
		`{"id":"1","until":"1234567890"}`:                                    "/until",
		`{"id":"1","notes":{"1234567890":1}}`:                                "/notes",
		`{"id":"1","cards":[{"brand":"v","number":1234567890}]}`:             "/cards/0/number",
	} {
		_, err := fns[0].Run(t.Context(), &Event{Key: "order", Body: []byte(body)}, time.Time{})
		e := AsError(err)
		if e == nil || e.Code != CodeInvalid || len(e.Fields) != 1 || e.Fields[0].Pointer != pointer || e.Executed != ExecutedNo {
			t.Errorf("%s: got %+v, want one mistake at %s", body, e, pointer)
		}
		if strings.Contains(fmt.Sprintf("%v", err), "1234567") {
			t.Errorf("%v tells the secret", err)
		}
	}
}

func FuzzRedact(f *testing.F) {
	text := schemaFor[order]()
	f.Add([]byte(`{"id":"1","pin":1234,"cards":[{"number":"1"}],"next":{"pin":1}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		got := contract.Redact(text, body)
		if !json.Valid(got) {
			t.Fatalf("%q became %q, which is not JSON", body, got)
		}
		if again := contract.Redact(text, got); string(again) != string(got) {
			t.Fatalf("%q, redacted again: %q", got, again)
		}
	})
}
