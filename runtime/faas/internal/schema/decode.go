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

// Strictness says how a Decoder treats unknown and missing members.
type Strictness bool

// The degrees of strictness.
const (
	Strict   Strictness = true  // for a call: they are mistakes of the caller
	Tolerant Strictness = false // for an event: its publisher may have another version of the type
)

// Decoder decodes bodies into one message type. It is safe for concurrent use.
type Decoder struct {
	Type       reflect.Type
	Schema     json.RawMessage // of Type, as a message
	demands    *demands
	strictness Strictness
	streams    sync.Pool // of *stream
}

// NewDecoder returns a Decoder for the type t.
func NewDecoder(t reflect.Type, s Strictness) *Decoder {
	in := &Decoder{Type: t, Schema: Of(t, Reads), demands: demandsOf(t, map[reflect.Type]*demands{}), strictness: s}
	in.streams.New = func() any { return newStream(s) }
	return in
}

// demands lists the required members of a type and of the types in it.
type demands struct {
	members []demand // of a struct
	items   *demands // of the element of a pointer, a list or a map
}

type demand struct {
	index    []int
	required bool
	inside   *demands
}

// demandsOf returns nil for a type without required members. The map known has the
// types that are done or in progress.
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

// met reports whether no required member of v is zero. One that is zero may have been
// missing.
func (d *demands) met(v reflect.Value) bool {
	if d == nil {
		return true
	}
	switch v.Kind() {
	case reflect.Struct:
		for _, m := range d.members {
			member, err := v.FieldByIndexErr(m.index)
			if err != nil {
				continue // it belongs to an embedded pointer that is nil
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

// Decode decodes body into the struct that p points to. An empty body is {}. It fails
// with CodeMalformed if body is not JSON, and with CodeInvalid and a FieldError for
// each mistake if the JSON does not fit the type.
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
	// encoding/json accepts null everywhere.
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
