package faas

import (
	"encoding"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"
)

// schemaOf infers the JSON Schema (2020-12) of what encoding/json makes of t.
// A field is required unless it is a pointer, omitempty or omitzero; its
// description comes from the tag `doc`.
func schemaOf(t reflect.Type) json.RawMessage {
	b, err := json.Marshal(schemaNode(t, nil))
	if err != nil {
		panic(fmt.Sprintf("schema of %v: %v", t, err))
	}
	return b
}

type schema struct {
	Type                 any                `json:"type,omitempty"`
	Format               string             `json:"format,omitempty"`
	Description          string             `json:"description,omitempty"`
	ContentEncoding      string             `json:"contentEncoding,omitempty"`
	Items                *schema            `json:"items,omitempty"`
	Properties           map[string]*schema `json:"properties,omitempty"`
	Required             []string           `json:"required,omitempty"`
	AdditionalProperties any                `json:"additionalProperties,omitempty"`
	Minimum              *int               `json:"minimum,omitempty"`
	Header               string             `json:"x-header,omitempty"`    // the request header field that it comes from
	Sensitive            bool               `json:"x-sensitive,omitempty"` // see Redact
}

var (
	timeType        = reflect.TypeFor[time.Time]()
	unmarshalerType = reflect.TypeFor[json.Unmarshaler]()
	textType        = reflect.TypeFor[encoding.TextUnmarshaler]()
	marshalerType   = reflect.TypeFor[json.Marshaler]()
	textOutType     = reflect.TypeFor[encoding.TextMarshaler]()
)

// opaque reports whether t decodes itself, so that its fields say nothing.
func opaque(t reflect.Type) bool {
	return reflect.PointerTo(t).Implements(unmarshalerType) || reflect.PointerTo(t).Implements(textType)
}

func schemaNode(t reflect.Type, above []reflect.Type) *schema {
	switch {
	case t == timeType:
		return &schema{Type: "string", Format: "date-time"}
	case t.Kind() == reflect.Pointer:
		s := schemaNode(t.Elem(), above)
		if name, ok := s.Type.(string); ok {
			s.Type = []string{name, "null"}
		}
		return s
	case reflect.PointerTo(t).Implements(unmarshalerType):
		return &schema{Sensitive: holdsSensitive(t, nil)}
	case reflect.PointerTo(t).Implements(textType):
		return &schema{Type: "string", Sensitive: holdsSensitive(t, nil)}
	}
	if slices.Contains(above, t) {
		return &schema{Sensitive: holdsSensitive(t, nil)} // recursive: anything goes below
	}
	above = append(above, t)
	switch t.Kind() {
	case reflect.String:
		return &schema{Type: "string"}
	case reflect.Bool:
		return &schema{Type: "boolean"}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return &schema{Type: "integer"}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return &schema{Type: "integer", Minimum: new(0)}
	case reflect.Float32, reflect.Float64:
		return &schema{Type: "number"}
	case reflect.Slice, reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 && t.Kind() == reflect.Slice {
			return &schema{Type: "string", ContentEncoding: "base64"}
		}
		return &schema{Type: "array", Items: schemaNode(t.Elem(), above)}
	case reflect.Map:
		return &schema{Type: "object", AdditionalProperties: schemaNode(t.Elem(), above)}
	case reflect.Struct:
		s := &schema{Type: "object", Properties: map[string]*schema{}, AdditionalProperties: false}
		for _, f := range fieldsOf(t) {
			p := schemaNode(f.written, above)
			p.Description, p.Header, p.Sensitive = f.doc, f.header, p.Sensitive || f.sensitive
			s.Properties[f.name] = p
			if f.required {
				s.Required = append(s.Required, f.name)
			}
		}
		return s
	}
	return &schema{}
}

// field is one JSON member of a struct.
type field struct {
	name     string
	doc      string
	index    []int
	typ      reflect.Type
	written  reflect.Type // what it looks like in JSON
	required bool

	header    string // canonical name of the request header field that it comes from
	sensitive bool
}

// fieldsOf lists the members that encoding/json sees in the struct type t.
func fieldsOf(t reflect.Type) []field {
	var fields []field
	var closed [][]int // embedded structs that JSON does not spread out
	var secret [][]int // embedded structs that are sensitive as a whole
	for _, f := range reflect.VisibleFields(t) {
		in := func(at []int) bool { return len(f.Index) > len(at) && slices.Equal(at, f.Index[:len(at)]) }
		if slices.ContainsFunc(closed, in) {
			continue
		}
		sensitive := taggedSensitive(f) || slices.ContainsFunc(secret, in)
		if f.Anonymous && sensitive {
			secret = append(secret, f.Index)
		}
		tag, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && tag != "" {
			closed = append(closed, f.Index)
		}
		if tag == "-" && options == "" || f.Anonymous && tag == "" && isStruct(f.Type) || !f.IsExported() {
			continue
		}
		name := tag
		if name == "" {
			name = f.Name
		}
		optional := strings.Contains(options, "omitempty") || strings.Contains(options, "omitzero") || f.Type.Kind() == reflect.Pointer
		fields = append(fields, field{
			name: name, doc: f.Tag.Get("doc"), index: f.Index, typ: f.Type, written: writtenAs(f.Type, options), required: !optional,
			header: http.CanonicalHeaderKey(f.Tag.Get("header")), sensitive: sensitive,
		})
	}
	return fields
}

// checkType says what of t encoding/json cannot write or read.
func checkType(t reflect.Type, where string) error { return checkPart(t, where, nil) }

func checkPart(t reflect.Type, where string, above []reflect.Type) error {
	if slices.Contains(above, t) || t == timeType || opaque(t) || reflect.PointerTo(t).Implements(marshalerType) || reflect.PointerTo(t).Implements(textOutType) {
		return nil
	}
	above = append(above, t)
	switch t.Kind() {
	case reflect.Chan, reflect.Func, reflect.Complex64, reflect.Complex128, reflect.UnsafePointer:
		return fmt.Errorf("%s: JSON has no %v: leave it out with `json:\"-\"`", where, t)
	case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
		return checkPart(t.Elem(), where, above)
	case reflect.Struct:
		fields := fieldsOf(t)
		for i, f := range fields {
			if slices.ContainsFunc(fields[:i], func(o field) bool { return o.name == f.name && len(o.index) == len(f.index) }) {
				return fmt.Errorf("%s: two fields have the JSON name %q, of which encoding/json leaves out one or both: rename one", where, f.name)
			}
			if err := checkPart(f.typ, where+"."+f.name, above); err != nil {
				return err
			}
		}
	}
	return nil
}

// writtenAs is a string for a number or a boolean with the option "string" of
// encoding/json, else t itself.
func writtenAs(t reflect.Type, options string) reflect.Type {
	if !slices.Contains(strings.Split(options, ","), "string") {
		return t
	}
	of, quoted := t, reflect.TypeFor[string]()
	if t.Kind() == reflect.Pointer {
		of, quoted = t.Elem(), reflect.TypeFor[*string]()
	}
	if of.Kind() >= reflect.Bool && of.Kind() <= reflect.Float64 {
		return quoted
	}
	return t
}

func isStruct(t reflect.Type) bool {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t.Kind() == reflect.Struct
}

// hasProperty reports whether the object that the schema describes has a
// member of that name.
func hasProperty(schema json.RawMessage, name string) bool {
	var s struct {
		Properties map[string]json.RawMessage `json:"properties"`
	}
	return json.Unmarshal(schema, &s) == nil && s.Properties[name] != nil
}

// headerOf is the request header field that the object's member of that name
// comes from; "" if it does not.
func headerOf(schema json.RawMessage, name string) string {
	var s struct {
		Properties map[string]struct {
			Header string `json:"x-header"`
		} `json:"properties"`
	}
	if json.Unmarshal(schema, &s) != nil {
		return ""
	}
	return s.Properties[name].Header
}
