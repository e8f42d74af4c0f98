package faas

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// Validator is a message that can say what about itself makes no sense. It is
// asked after decoding; its error becomes CodeInvalid unless it is an *Error.
type Validator interface {
	Validate() error
}

// strictness is how an input treats what its type does not foresee.
type strictness bool

const (
	strict   strictness = true  // a call: unknown and missing members are the caller's mistake
	tolerant strictness = false // an event: publishers may know more than we do, or less
)

// input decodes bodies into one message type.
type input struct {
	typ        reflect.Type
	schema     json.RawMessage
	demands    *demands
	strictness strictness
	streams    sync.Pool // of *stream
}

func newInput(t reflect.Type, s strictness) *input {
	in := &input{typ: t, schema: schemaOf(t, reads), demands: demandsOf(t, map[reflect.Type]*demands{}), strictness: s}
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
	if d, ok := known[t]; ok || reads.opaque(t) {
		return d
	}
	d := &demands{}
	known[t] = d
	switch t.Kind() {
	case reflect.Struct:
		for _, f := range fieldsOf(t) {
			if inside := demandsOf(f.typ, known); f.required || inside != nil {
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
func (in *input) decode(body []byte, p any) error {
	if len(body) == 0 {
		body = []byte("{}")
	}
	s := in.streams.Get().(*stream)
	rest, err := s.decode(bytes.TrimRight(body, " \t\r\n"), p)
	if err != nil {
		return in.explain(body, err)
	}
	if len(rest) > 0 {
		return &Error{Code: contract.CodeMalformed, Detail: "the body goes on after its JSON value"}
	}
	if len(body) <= maxStreamed {
		in.streams.Put(s)
	}
	// null is what encoding/json lets pass everywhere.
	if in.strictness == strict && (bytes.Contains(body, []byte("null")) || !in.demands.met(reflect.ValueOf(p).Elem())) {
		if err := in.explain(body, nil); err != nil {
			return err
		}
	}
	if v, ok := p.(Validator); ok {
		return invalid(v.Validate())
	}
	return nil
}

func invalid(err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Code: CodeInvalid, Detail: err.Error(), Cause: err}
}

// explain walks the body again, slowly, to name every mistake in it. cause is
// what the fast way stumbled over; without one, only what is found counts.
func (in *input) explain(body []byte, cause error) error {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return malformed(err, len(body))
	}
	if fields := in.mistakes(v, in.typ, "", nil); len(fields) > 0 {
		detail := "the input does not fit"
		if len(fields) > contract.MaxFieldErrors {
			fields, detail = fields[:contract.MaxFieldErrors], fmt.Sprintf("%s; these are the first %d mistakes", detail, contract.MaxFieldErrors)
		}
		return &Error{Code: CodeInvalid, Detail: detail, Fields: fields, Cause: cause}
	}
	if cause == nil {
		return nil
	}
	return &Error{Code: CodeInvalid, Detail: strings.TrimPrefix(cause.Error(), "json: "), Cause: cause}
}

func malformed(err error, length int) error {
	at := int64(length)
	if s, ok := errors.AsType[*json.SyntaxError](err); ok {
		at = s.Offset
	}
	what := err.Error()
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		what = "it ends too early"
	}
	return &Error{Code: contract.CodeMalformed, Detail: fmt.Sprintf("the body is not JSON: %s (at byte %d)", what, at), Cause: err}
}

// mistakes collects where v, at pointer at, does not fit t.
func (in *input) mistakes(v any, t reflect.Type, at string, found []FieldError) []FieldError {
	if len(found) > contract.MaxFieldErrors {
		return found
	}
	add := func(detail string) []FieldError { return append(found, FieldError{Pointer: at, Detail: detail}) }
	switch kind := t.Kind(); {
	case kind == reflect.Interface, v == nil && kind == reflect.Pointer:
		return found
	case kind == reflect.Pointer:
		return in.mistakes(v, t.Elem(), at, found)
	case v == nil && (kind == reflect.Slice || kind == reflect.Map) && !reads.opaque(t):
		return found
	case reads.text(t), isBytes(t) && !reads.opaque(t):
		if _, ok := v.(string); !ok {
			return add("want a string, got " + kindOf(v))
		}
	}
	if reads.opaque(t) || isBytes(t) || t == numberType {
		b, err := json.Marshal(v)
		if err == nil {
			err = json.Unmarshal(b, reflect.New(t).Interface())
		}
		if err != nil && t == timeType {
			return add("want a time such as 2030-01-31T09:00:00Z")
		} else if err != nil {
			return add(strings.TrimPrefix(err.Error(), "json: "))
		}
		return found
	}
	switch t.Kind() {
	case reflect.Struct:
		object, ok := v.(map[string]any)
		if !ok {
			return add("want an object, got " + kindOf(v))
		}
		return in.memberMistakes(object, t, at, found)
	case reflect.Map:
		object, ok := v.(map[string]any)
		if !ok {
			return add("want an object, got " + kindOf(v))
		}
		for _, name := range sortedKeys(object) {
			found = in.mistakes(object[name], t.Elem(), at+"/"+escape(name), found)
		}
		return found
	case reflect.Slice, reflect.Array:
		list, ok := v.([]any)
		if !ok {
			return add("want an array, got " + kindOf(v))
		}
		for i, item := range list {
			found = in.mistakes(item, t.Elem(), fmt.Sprintf("%s/%d", at, i), found)
		}
		return found
	case reflect.String:
		if _, ok := v.(string); !ok {
			return add("want a string, got " + kindOf(v))
		}
	case reflect.Bool:
		if _, ok := v.(bool); !ok {
			return add("want true or false, got " + kindOf(v))
		}
	default:
		n, ok := v.(json.Number)
		if !ok {
			return add("want a number, got " + kindOf(v))
		}
		if json.Unmarshal([]byte(n), reflect.New(t).Interface()) != nil {
			return add(fmt.Sprintf("%.40s does not fit %s", n, t.Kind()))
		}
	}
	return found
}

func (in *input) memberMistakes(object map[string]any, t reflect.Type, at string, found []FieldError) []FieldError {
	fields, names := fieldsOf(t), sortedKeys(object)
	for _, name := range names {
		i := slices.IndexFunc(fields, func(f field) bool { return strings.EqualFold(f.name, name) })
		switch {
		case i >= 0 && object[name] == nil && !fields[i].required: // encoding/json leaves it alone
		case i >= 0 && fields[i].sensitive:
			if len(in.mistakes(object[name], fields[i].written, "", nil)) > 0 {
				found = append(found, FieldError{Pointer: at + "/" + escape(fields[i].name), Detail: "it does not fit"})
			}
		case i >= 0:
			found = in.mistakes(object[name], fields[i].written, at+"/"+escape(name), found)
		case in.strictness == strict:
			found = append(found, FieldError{Pointer: at + "/" + escape(name), Detail: "there is no such field"})
		}
	}
	if in.strictness == strict {
		for _, f := range fields {
			if f.required && !slices.ContainsFunc(names, func(name string) bool { return strings.EqualFold(name, f.name) }) {
				found = append(found, FieldError{Pointer: at + "/" + escape(f.name), Detail: "it is required"})
			}
		}
	}
	return found
}

func kindOf(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case bool:
		return "true or false"
	case json.Number:
		return "a number"
	case string:
		return "a string"
	case []any:
		return "an array"
	}
	return "an object"
}

func sortedKeys(m map[string]any) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// escape writes a name as a reference token of RFC 6901.
func escape(name string) string {
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
}
