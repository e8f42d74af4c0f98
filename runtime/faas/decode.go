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
	required   []field
	strictness strictness
}

func newInput(t reflect.Type, s strictness) *input {
	in := &input{typ: t, schema: schemaOf(t), strictness: s}
	in.required = requiredOf(t, nil)
	return in
}

// requiredOf lists the required members of the struct at index at, and of the
// structs in it; not those behind pointers and in lists, which may be missing.
func requiredOf(t reflect.Type, at []int) []field {
	if t.Kind() != reflect.Struct || opaque(t) {
		return nil
	}
	var required []field
	for _, f := range fieldsOf(t) {
		f.index = slices.Concat(at, f.index)
		if f.required {
			required = append(required, f)
		}
		required = append(required, requiredOf(f.typ, f.index)...)
	}
	return required
}

// decode fills the struct that p points to. It fails with CodeMalformed on
// what is no JSON and with CodeInvalid, a pointer for each mistake, on JSON
// that does not fit.
func (in *input) decode(body []byte, p any) error {
	if len(body) == 0 {
		body = []byte("{}")
	}
	d := json.NewDecoder(bytes.NewReader(body))
	if in.strictness == strict {
		d.DisallowUnknownFields()
	}
	if err := d.Decode(p); err != nil {
		return in.explain(body, err)
	}
	if rest := bytes.TrimLeft(body[d.InputOffset():], " \t\r\n"); len(rest) > 0 {
		return &Error{Code: CodeMalformed, Detail: "the body goes on after its JSON value"}
	}
	if in.strictness == strict && in.zeroRequired(p) {
		if err := in.explain(body, nil); err != nil {
			return err
		}
	}
	if v, ok := p.(Validator); ok {
		return invalid(v.Validate())
	}
	return nil
}

// refuse marks err as about an input that a function was not even run with.
func refuse(err error) error {
	e := *AsError(err)
	e.Executed = ExecutedNo
	return refusal{&e}
}

// refusal is the error of a delivery that a function was not even run with. It
// does not leave Run, so that a call that the function makes and that is
// refused is not taken for it.
type refusal struct{ err *Error }

func (r refusal) Error() string { return r.err.Error() }
func (r refusal) Unwrap() error { return r.err }

// zeroRequired reports whether a required member is zero, and so may have been left out.
func (in *input) zeroRequired(p any) bool {
	v := reflect.ValueOf(p).Elem()
	return slices.ContainsFunc(in.required, func(f field) bool {
		member, err := v.FieldByIndexErr(f.index) // fails in an embedded struct that is nil
		return err != nil || member.IsZero()
	})
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
		return &Error{Code: CodeInvalid, Detail: "the input does not fit", Fields: fields, Cause: cause}
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
	return &Error{Code: CodeMalformed, Detail: fmt.Sprintf("the body is not JSON: %s (at byte %d)", what, at), Cause: err}
}

// mistakes collects where v, at pointer at, does not fit t.
func (in *input) mistakes(v any, t reflect.Type, at string, found []FieldError) []FieldError {
	add := func(detail string) []FieldError { return append(found, FieldError{Pointer: at, Detail: detail}) }
	if t.Kind() == reflect.Pointer {
		if v == nil {
			return found
		}
		return in.mistakes(v, t.Elem(), at, found)
	}
	if t.Kind() == reflect.Interface {
		return found
	}
	if opaque(t) {
		if b, err := json.Marshal(v); err == nil {
			if err := json.Unmarshal(b, reflect.New(t).Interface()); err != nil {
				return add(strings.TrimPrefix(err.Error(), "json: "))
			}
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
		if t.Elem().Kind() != reflect.Uint8 {
			list, ok := v.([]any)
			if !ok {
				return add("want an array, got " + kindOf(v))
			}
			for i, item := range list {
				found = in.mistakes(item, t.Elem(), fmt.Sprintf("%s/%d", at, i), found)
			}
			return found
		}
		fallthrough
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
	fields := fieldsOf(t)
	for _, name := range sortedKeys(object) {
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
			if f.required && !slices.ContainsFunc(sortedKeys(object), func(name string) bool { return strings.EqualFold(name, f.name) }) {
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
