package schema

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"sync"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// validator is faas.Validator.
type validator interface{ Validate() error }

// strictness is how an input treats what its type does not foresee.
type Strictness bool

const (
	Strict   Strictness = true  // a call: unknown and missing members are the caller's mistake
	Tolerant Strictness = false // an event: publishers may know more than we do, or less
)

// input decodes bodies into one message type.
type Decoder struct {
	Type       reflect.Type
	Schema     json.RawMessage
	demands    *demands
	strictness Strictness
	streams    sync.Pool // of *stream
}

func NewDecoder(t reflect.Type, s Strictness) *Decoder {
	in := &Decoder{Type: t, Schema: Of(t, Reads), demands: demandsOf(t, map[reflect.Type]*demands{}), strictness: s}
	in.streams.New = func() any { return newStream(s) }
	return in
}

// demands is what has to be there of a type, and of what is in it.
type demands struct {
	members []demand // of a struct
	items   *demands // of what a pointer, a list or a map holds
}

type demand struct {
	index    []int
	required bool
	inside   *demands
}

// demandsOf returns nil for a type that demands nothing. known has the types
// that are under way or done.
func demandsOf(t reflect.Type, known map[reflect.Type]*demands) *demands {
	if d, ok := known[t]; ok || Reads.Opaque(t) {
		return d
	}
	d := &demands{}
	known[t] = d
	switch t.Kind() {
	case reflect.Struct:
		for _, f := range Fields(t) {
			if inside := demandsOf(f.Type, known); f.required || inside != nil {
				d.members = append(d.members, demand{f.index, f.required, inside})
			}
		}
	case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
		d.items = demandsOf(t.Elem(), known)
	}
	if d.members == nil && d.items == nil {
		known[t] = nil
	}
	return known[t]
}

// met reports whether nothing that is required is zero in v, and so may have
// been left out.
func (d *demands) met(v reflect.Value) bool {
	if d == nil {
		return true
	}
	switch v.Kind() {
	case reflect.Struct:
		for _, m := range d.members {
			member, err := v.FieldByIndexErr(m.index)
			if err != nil {
				continue // of an embedded pointer that is nil
			}
			if m.required && member.IsZero() || !m.inside.met(member) {
				return false
			}
		}
	case reflect.Pointer:
		return v.IsNil() || d.items.met(v.Elem())
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			if !d.items.met(v.Index(i)) {
				return false
			}
		}
	case reflect.Map:
		for _, item := range v.Seq2() {
			if !d.items.met(item) {
				return false
			}
		}
	}
	return true
}

// decode fills the struct that p points to. It fails with CodeMalformed on
// what is no JSON and with CodeInvalid, a pointer for each mistake, on JSON
// that does not fit.
func (in *Decoder) Decode(body []byte, p any) error {
	if len(body) == 0 {
		body = []byte("{}")
	}
	s := in.streams.Get().(*stream)
	rest, err := s.decode(bytes.TrimRight(body, " \t\r\n"), p)
	if err != nil {
		return in.explain(body, err)
	}
	if len(rest) > 0 {
		return &contract.Error{Code: contract.CodeMalformed, Detail: "the body goes on after its JSON value"}
	}
	if len(body) <= maxStreamed {
		in.streams.Put(s)
	}
	// null is what encoding/json lets pass everywhere.
	if in.strictness == Strict && (bytes.Contains(body, []byte("null")) || !in.demands.met(reflect.ValueOf(p).Elem())) {
		if err := in.explain(body, nil); err != nil {
			return err
		}
	}
	if v, ok := p.(validator); ok {
		return invalid(v.Validate())
	}
	return nil
}

func invalid(err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*contract.Error](err); ok {
		return e
	}
	return &contract.Error{Code: contract.CodeInvalid, Detail: err.Error(), Cause: err}
}
