package schema

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

type address struct {
	City string `json:"city"`
	Zip  string `json:"zip,omitempty"`
}

type base struct {
	ID string `json:"id"`
}

type person struct {
	base
	Name   string         `json:"name"`
	Age    int8           `json:"age,omitempty"`
	Tags   []string       `json:"tags,omitempty"`
	Born   *time.Time     `json:"born"`
	Home   address        `json:"home"`
	Others []address      `json:"others,omitempty"`
	Marks  map[string]int `json:"marks,omitempty"`
	Photo  []byte         `json:"photo,omitempty"`
}

func (p *person) Validate() error {
	if p.Name == "nobody" {
		return &contract.Error{Code: contract.CodeInvalid, Detail: "the input does not fit", Fields: []contract.FieldError{{Pointer: "/name", Detail: "taken"}}}
	}
	if p.Name == "plain" {
		return errors.New("it makes no sense")
	}
	return nil
}

const good = `{"id":"1","name":"n","home":{"city":"c"}}`

func TestDecode(t *testing.T) {
	with := func(member string) string { return strings.TrimSuffix(good, "}") + "," + member + "}" }
	for _, c := range []struct {
		name, body string
		Strictness Strictness
		code       contract.Code
		pointers   []string
	}{
		{"fits", good, Strict, "", nil},
		{"other case", `{"ID":"","Name":"n","home":{"city":"c"}}`, Strict, "", nil},
		{"zero but there", `{"id":"","name":"","home":{"city":""}}`, Strict, "", nil},
		{"no body", ``, Strict, contract.CodeInvalid, []string{"/home", "/id", "/name"}},
		{"no body of an event", ``, Tolerant, "", nil},
		{"required in an inner struct", `{"id":"1","name":"n","home":{"zip":"z"}}`, Strict, contract.CodeInvalid, []string{"/home/city"}},
		{"unknown", with(`"x":1`), Strict, contract.CodeInvalid, []string{"/x"}},
		{"unknown in an event", with(`"x":1`), Tolerant, "", nil},
		{"several", `{"id":1,"name":true,"home":[]}`, Strict, contract.CodeInvalid, []string{"/home", "/id", "/name"}},
		{"wrong type in an event", `{"id":1}`, Tolerant, contract.CodeInvalid, []string{"/id"}},
		{"too large a number", with(`"age":1000`), Strict, contract.CodeInvalid, []string{"/age"}},
		{"a fraction", with(`"age":1.5`), Strict, contract.CodeInvalid, []string{"/age"}},
		{"item of a list", with(`"tags":["a",2]`), Strict, contract.CodeInvalid, []string{"/tags/1"}},
		{"member of an item", with(`"others":[{"city":"c"},{"city":2}]`), Strict, contract.CodeInvalid, []string{"/others/1/city"}},
		{"value of a map", with(`"marks":{"a/b~":"x"}`), Strict, contract.CodeInvalid, []string{"/marks/a~1b~0"}},
		{"not a time", with(`"born":"yesterday"`), Strict, contract.CodeInvalid, []string{"/born"}},
		{"null for a pointer", with(`"born":null`), Strict, "", nil},
		{"null for an optional member", `{"id":"","name":"n","home":{"city":"c"},"tags":null}`, Strict, "", nil},
		{"null for a required member", `{"id":null,"name":"n","home":{"city":"c"}}`, Strict, contract.CodeInvalid, []string{"/id"}},
		{"null in a list", with(`"tags":["a",null]`), Strict, contract.CodeInvalid, []string{"/tags/1"}},
		{"required in an item of a list", with(`"others":[{"city":"c"},{}]`), Strict, contract.CodeInvalid, []string{"/others/1/city"}},
		{"null", `null`, Strict, contract.CodeInvalid, []string{""}},
		{"an array", `[]`, Strict, contract.CodeInvalid, []string{""}},
		{"no base64", with(`"photo":"***"`), Strict, contract.CodeInvalid, []string{"/photo"}},
		{"cut off", `{"id":`, Strict, contract.CodeMalformed, nil},
		{"not JSON", `id=1`, Strict, contract.CodeMalformed, nil},
		{"more after it", good + ` {}`, Strict, contract.CodeMalformed, nil},
		{"space after it", good + " \n", Strict, "", nil},
		{"its own rule", `{"id":"1","name":"nobody","home":{"city":"c"}}`, Strict, contract.CodeInvalid, []string{"/name"}},
		{"its own plain rule", `{"id":"1","name":"plain","home":{"city":"c"}}`, Strict, contract.CodeInvalid, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			var p person
			err := NewDecoder(reflect.TypeFor[person](), c.Strictness).Decode([]byte(c.body), &p)
			if c.code == "" {
				if err != nil {
					t.Fatalf("got %v, want it to fit", err)
				}
				return
			}
			e, ok := errors.AsType[*contract.Error](err)
			if !ok || e.Code != c.code {
				t.Fatalf("got %v, want the code %s", err, c.code)
			}
			var pointers []string
			for _, f := range e.Fields {
				pointers = append(pointers, f.Pointer)
				if f.Detail == "" || strings.Contains(f.Detail, "json:") || strings.Contains(f.Detail, "2006") {
					t.Errorf("the detail of %s is not for a caller: %q", f.Pointer, f.Detail)
				}
			}
			slices.Sort(pointers)
			if !slices.Equal(pointers, c.pointers) {
				t.Errorf("got mistakes at %q, want %q", pointers, c.pointers)
			}
			if e.Detail == "" || strings.Contains(e.Detail, "json:") {
				t.Errorf("the detail is not for a caller: %q", e.Detail)
			}
		})
	}
}

// What a body decodes to has nothing of the one before, whatever that was.
func TestDecodeOneAfterTheOther(t *testing.T) {
	decode := func(in *Decoder, body string) string {
		var p person
		err := in.Decode([]byte(body), &p)
		return fmt.Sprintf("%+v, %v", p, err)
	}
	bodies := []string{
		good, good + " \n", good + ` {"id":"2"}`, `{"id":"1"}`, `{"id":1}`, `{"id":`, `id=1`, ``, ` `, `null`, `7`, ` ` + good,
		`{"id":"` + strings.Repeat("x", 2*maxStreamed) + `","name":"n","home":{"city":"c"}}`,
	}
	for _, s := range []Strictness{Strict, Tolerant} {
		fresh := func() *Decoder { return NewDecoder(reflect.TypeFor[person](), s) }
		in := fresh()
		for _, first := range bodies {
			for _, second := range bodies {
				decode(in, first)
				if got, want := decode(in, second), decode(fresh(), second); got != want {
					t.Errorf("%q after %q: got %s, want %s", second, first, got, want)
				}
			}
		}
	}
}

// However wrong a body is, what its sender and the log are told has an end.
func TestDecodeTellsTheFirstMistakes(t *testing.T) {
	for name, body := range map[string]string{
		"unknown members": `{"x0":1` + many(func(i int) string { return fmt.Sprintf(`,"x%d":1`, i+1) }) + `}`,
		"items":           `{"id":"1","name":"n","home":{"city":"c"},"tags":[0` + many(func(int) string { return ",0" }) + `]}`,
	} {
		err := contract.AsError(NewDecoder(reflect.TypeFor[person](), Strict).Decode([]byte(body), new(person)))
		if err == nil || len(err.Fields) != contract.MaxFieldErrors || !strings.Contains(err.Detail, "the first 100") {
			t.Errorf("%s: got %d mistakes, %q, want the first %d", name, len(err.Fields), err.Detail, contract.MaxFieldErrors)
		}
	}
}

func many(part func(i int) string) string {
	var b strings.Builder
	for i := range 5 * contract.MaxFieldErrors {
		b.WriteString(part(i))
	}
	return b.String()
}

// A number that JSON has as a string is no mistake beside one that is.
func TestDecodeQuoted(t *testing.T) {
	type quoted struct {
		N int    `json:"n,string"`
		S string `json:"s"`
	}
	in := NewDecoder(reflect.TypeFor[quoted](), Strict)
	for body, want := range map[string][]contract.FieldError{
		`{"n":"5","s":"a"}`: nil,
		`{"n":"5","s":1}`:   {{Pointer: "/s", Detail: "want a string, got a number"}},
		`{"n":5,"s":"a"}`:   {{Pointer: "/n", Detail: "want a string, got a number"}},
	} {
		var got []contract.FieldError
		if err := in.Decode([]byte(body), new(quoted)); err != nil {
			got = contract.AsError(err).Fields
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", body, got, want)
		}
	}
}

// An embedded pointer may be nil and an embedded struct may have a name of its
// own: neither may confuse what is required.
func TestDecodeEmbedded(t *testing.T) {
	type Base struct {
		ID string `json:"id"`
	}
	type pointer struct {
		*Base
		Name string `json:"name"`
	}
	type named struct {
		Base `json:"base"`
		Name string `json:"name"`
	}
	for _, c := range []struct {
		typ     reflect.Type
		body    string
		pointer string
	}{
		{reflect.TypeFor[pointer](), `{"id":"1","name":"n"}`, ""},
		{reflect.TypeFor[pointer](), `{"name":"n"}`, ""},
		{reflect.TypeFor[named](), `{"base":{"id":"1"},"name":"n"}`, ""},
		{reflect.TypeFor[named](), `{"base":{},"name":"n"}`, "/base/id"},
		{reflect.TypeFor[named](), `{"id":"1","name":"n","base":{"id":"1"}}`, "/id"},
	} {
		err := NewDecoder(c.typ, Strict).Decode([]byte(c.body), reflect.New(c.typ).Interface())
		var got string
		if e := contract.AsError(err); e != nil && len(e.Fields) == 1 {
			got = e.Fields[0].Pointer
		}
		if got != c.pointer || (err == nil) != (c.pointer == "") {
			t.Errorf("%v of %s: got %v, want a mistake at %q", c.typ, c.body, err, c.pointer)
		}
	}
}

// What encoding/json cannot decode is refused with a code, and what is
// accepted is what encoding/json makes of it.
func FuzzDecode(f *testing.F) {
	for _, body := range []string{good, ``, `null`, `[]`, `{"id":1}`, `{"others":[{"x":{}}]}`, `{"born":"2026-01-01T00:00:00Z"}`, `{"marks":{"a":1e99}}`, "\xff", `{} {}`} {
		f.Add([]byte(body))
	}
	in := NewDecoder(reflect.TypeFor[person](), Strict)
	lax := NewDecoder(reflect.TypeFor[person](), Tolerant)
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, in := range []*Decoder{in, lax} {
			var got, want person
			err := in.Decode(body, &got)
			plain := json.Unmarshal(body, &want)
			switch e, ok := errors.AsType[*contract.Error](err); {
			case err == nil && len(body) > 0 && plain != nil:
				t.Errorf("%q: accepted, though encoding/json says %v", body, plain)
			case err == nil && len(body) > 0 && !reflect.DeepEqual(got, want):
				t.Errorf("%q: got %+v, want %+v", body, got, want)
			case err != nil && (!ok || e.Code != contract.CodeInvalid && e.Code != contract.CodeMalformed):
				t.Errorf("%q: got %v, want it invalid or malformed", body, err)
			}
		}
	})
}
