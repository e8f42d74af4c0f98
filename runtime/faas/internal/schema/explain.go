package schema

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// explain decodes the body again, generically, to find every mistake in it. Cause is
// the error of the first decoding; without one and without mistakes, explain returns
// nil.
func (in *Decoder) explain(body []byte, cause error) error {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return malformed(err, len(body))
	}
	if fields := in.mistakes(v, in.Type, "", nil); len(fields) > 0 {
		detail := "the input does not fit"
		if len(fields) > contract.MaxFieldErrors {
			fields, detail = fields[:contract.MaxFieldErrors], fmt.Sprintf("%s; these are the first %d mistakes", detail, contract.MaxFieldErrors)
		}
		return &contract.Error{Code: contract.CodeInvalid, Detail: detail, Fields: fields, Cause: cause}
	}
	if cause == nil {
		return nil
	}
	return &contract.Error{Code: contract.CodeInvalid, Detail: strings.TrimPrefix(cause.Error(), "json: "), Cause: cause}
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
	return &contract.Error{Code: contract.CodeMalformed, Detail: fmt.Sprintf("the body is not JSON: %s (at byte %d)", what, at), Cause: err}
}

// mistakes appends to found where v, at the JSON pointer at, does not fit t.
func (in *Decoder) mistakes(v any, t reflect.Type, at string, found []contract.FieldError) []contract.FieldError {
	if len(found) > contract.MaxFieldErrors {
		return found
	}
	add := func(detail string) []contract.FieldError {
		return append(found, contract.FieldError{Pointer: at, Detail: detail})
	}
	switch kind := t.Kind(); {
	case kind == reflect.Interface, v == nil && kind == reflect.Pointer:
		return found
	case kind == reflect.Pointer:
		return in.mistakes(v, t.Elem(), at, found)
	case v == nil && (kind == reflect.Slice || kind == reflect.Map) && !Reads.Opaque(t):
		return found
	case Reads.text(t), isBytes(t) && !Reads.Opaque(t):
		if _, ok := v.(string); !ok {
			return add("want a string, got " + kindOf(v))
		}
	}
	if Reads.Opaque(t) || isBytes(t) || t == numberType {
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

func (in *Decoder) memberMistakes(object map[string]any, t reflect.Type, at string, found []contract.FieldError) []contract.FieldError {
	fields, names := Fields(t), sortedKeys(object)
	for _, name := range names {
		i := slices.IndexFunc(fields, func(f Field) bool { return strings.EqualFold(f.Name, name) })
		switch {
		case i >= 0 && object[name] == nil && !fields[i].required: // encoding/json ignores it
		case i >= 0 && fields[i].Sensitive:
			if len(in.mistakes(object[name], fields[i].written, "", nil)) > 0 {
				found = append(found, contract.FieldError{Pointer: at + "/" + escape(fields[i].Name), Detail: "it does not fit"})
			}
		case i >= 0:
			found = in.mistakes(object[name], fields[i].written, at+"/"+escape(name), found)
		case in.strictness == Strict:
			found = append(found, contract.FieldError{Pointer: at + "/" + escape(name), Detail: "there is no such field"})
		}
	}
	if in.strictness == Strict {
		for _, f := range fields {
			if f.required && !slices.ContainsFunc(names, func(name string) bool { return strings.EqualFold(name, f.Name) }) {
				found = append(found, contract.FieldError{Pointer: at + "/" + escape(f.Name), Detail: "it is required"})
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

// escape returns a name as a reference token of a JSON pointer (RFC 6901).
func escape(name string) string {
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
}
