package faas

import (
	"cmp"
	"encoding"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"
)

// side is which way a type goes through encoding/json. One that implements its
// interfaces for one way only looks different on the other.
type side bool

const (
	reads  side = false // a message
	writes side = true  // a reply
)

// schemaOf infers the JSON Schema (2020-12) of what encoding/json makes of t. A
// slice or a map may be null, as encoding/json writes one that is nil. A field
// is required unless it is a pointer or of an embedded one, omitempty or
// omitzero; its description comes from the tag `doc`.
func schemaOf(t reflect.Type, s side) json.RawMessage {
	b, err := json.Marshal(s.schema(t, nil))
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
	Minimum              *int64             `json:"minimum,omitempty"`
	Maximum              *int64             `json:"maximum,omitempty"`
	Header               string             `json:"x-header,omitempty"`    // the request header field that it comes from
	Sensitive            bool               `json:"x-sensitive,omitempty"` // see Redact
}

var (
	timeType        = reflect.TypeFor[time.Time]()
	numberType      = reflect.TypeFor[json.Number]()
	unmarshalerType = reflect.TypeFor[json.Unmarshaler]()
	textType        = reflect.TypeFor[encoding.TextUnmarshaler]()
	marshalerType   = reflect.TypeFor[json.Marshaler]()
	textOutType     = reflect.TypeFor[encoding.TextMarshaler]()
)

// opaque reports whether t says by itself what it is in JSON, so that its fields
// say nothing.
func (s side) opaque(t reflect.Type) bool {
	pointer := reflect.PointerTo(t)
	if s == reads {
		return pointer.Implements(unmarshalerType) || pointer.Implements(textType)
	}
	return pointer.Implements(marshalerType) || pointer.Implements(textOutType)
}

// text reports whether t is opaque and a string in JSON.
func (s side) text(t reflect.Type) bool {
	pointer := reflect.PointerTo(t)
	switch {
	case t == timeType:
		return true
	case s == reads:
		return pointer.Implements(textType) && !pointer.Implements(unmarshalerType)
	}
	// One with methods of its pointer writes itself only where it can be addressed.
	return t.Kind() != reflect.Interface && t.Implements(textOutType) && !pointer.Implements(marshalerType)
}

// isBytes reports whether encoding/json has a t as a string in base64.
func isBytes(t reflect.Type) bool {
	if t.Kind() != reflect.Slice || t.Elem().Kind() != reflect.Uint8 {
		return false
	}
	item := reflect.PointerTo(t.Elem())
	return !item.Implements(marshalerType) && !item.Implements(textOutType)
}

func orNull(name string) any { return []string{name, "null"} }

func (s side) schema(t reflect.Type, above []reflect.Type) *schema {
	if t.Kind() == reflect.Pointer {
		node := s.schema(t.Elem(), above)
		if name, ok := node.Type.(string); ok {
			node.Type = orNull(name)
		}
		return node
	}
	switch {
	case t == timeType:
		return &schema{Type: "string", Format: "date-time"}
	case t == numberType:
		return &schema{Type: "number"}
	case s.text(t):
		return &schema{Type: "string", Sensitive: holdsSensitive(t, nil)}
	case s.opaque(t), slices.Contains(above, t): // recursive: anything goes below
		return &schema{Sensitive: holdsSensitive(t, nil)}
	case isBytes(t):
		return &schema{Type: orNull("string"), ContentEncoding: "base64"}
	}
	above = append(above, t)
	switch t.Kind() {
	case reflect.String:
		return &schema{Type: "string"}
	case reflect.Bool:
		return &schema{Type: "boolean"}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		node := &schema{Type: "integer"}
		if bits := t.Bits(); bits < 64 {
			node.Minimum, node.Maximum = new(-int64(1)<<(bits-1)), new(int64(1)<<(bits-1)-1)
		}
		return node
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		node := &schema{Type: "integer", Minimum: new(int64(0))}
		if bits := t.Bits(); bits < 64 {
			node.Maximum = new(int64(1)<<bits - 1)
		}
		return node
	case reflect.Float32, reflect.Float64:
		return &schema{Type: "number"}
	case reflect.Slice:
		return &schema{Type: orNull("array"), Items: s.schema(t.Elem(), above)}
	case reflect.Array:
		return &schema{Type: "array", Items: s.schema(t.Elem(), above)}
	case reflect.Map:
		return &schema{Type: orNull("object"), AdditionalProperties: s.schema(t.Elem(), above)}
	case reflect.Struct:
		node := &schema{Type: "object", Properties: map[string]*schema{}, AdditionalProperties: false}
		for _, f := range fieldsOf(t) {
			p := s.schema(f.written, above)
			p.Description, p.Header, p.Sensitive = f.doc, f.header, p.Sensitive || f.sensitive
			node.Properties[f.name] = p
			if f.required {
				node.Required = append(node.Required, f.name)
			}
		}
		return node
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
	loose    bool // it is of an embedded pointer, which may be nil

	header    string // canonical name of the request header field that it comes from
	sensitive bool
}

// fieldsOf lists the members that encoding/json sees in the struct type t, and
// of two with one name that are as deep both, see check.
func fieldsOf(t reflect.Type) []field {
	all := allFields(t, field{}, nil)
	var fields []field
	for _, f := range all {
		over := func(o field) bool { return o.name == f.name && len(o.index) < len(f.index) }
		if !slices.ContainsFunc(all, over) {
			fields = append(fields, f)
		}
	}
	return fields
}

// allFields lists those of t, which is embedded as in says, and of what is
// embedded in it, whether a shallower one hides them or not.
func allFields(t reflect.Type, in field, above []reflect.Type) []field {
	if slices.Contains(above, t) {
		return nil // what is deeper is hidden by what was there
	}
	above = append(above, t)
	var fields []field
	for f := range t.Fields() {
		tag := f.Tag.Get("json")
		if tag == "-" || !f.IsExported() && !(f.Anonymous && isStruct(f.Type)) {
			continue
		}
		name, options, _ := strings.Cut(tag, ",")
		member := field{
			name: cmp.Or(name, f.Name), loose: in.loose,
			doc: f.Tag.Get("doc"), index: append(slices.Clone(in.index), f.Index...), typ: f.Type, written: writtenAs(f.Type, options),
			required: !strings.Contains(options, "omitempty") && !strings.Contains(options, "omitzero") && f.Type.Kind() != reflect.Pointer && !in.loose,
			header:   http.CanonicalHeaderKey(f.Tag.Get("header")), sensitive: in.sensitive || taggedSensitive(f),
		}
		if !f.Anonymous || name != "" || !isStruct(f.Type) {
			fields = append(fields, member)
			continue
		}
		spread := f.Type
		if spread.Kind() == reflect.Pointer {
			spread, member.loose = spread.Elem(), true
		}
		fields = append(fields, allFields(spread, member, above)...)
	}
	return fields
}

// checkType says what of t encoding/json cannot write or read.
func checkType(t reflect.Type, where string, s side) error { return s.check(t, where, nil) }

func (s side) check(t reflect.Type, where string, above []reflect.Type) error {
	if s.opaque(t) || slices.Contains(above, t) {
		return nil
	}
	above = append(above, t)
	switch t.Kind() {
	case reflect.Chan, reflect.Func, reflect.Complex64, reflect.Complex128, reflect.UnsafePointer:
		return fmt.Errorf("%s: JSON has no %v: leave it out with `json:\"-\"`", where, t)
	case reflect.Interface:
		if s == reads && t.NumMethod() > 0 {
			return fmt.Errorf("%s: encoding/json cannot tell which %v to make: choose a type that is no interface", where, t)
		}
	case reflect.Map:
		if !s.isKey(t.Key()) {
			return fmt.Errorf("%s: encoding/json has no map with %v as its key: choose a string or an integer", where, t.Key())
		}
		return s.check(t.Elem(), where, above)
	case reflect.Pointer, reflect.Slice, reflect.Array:
		return s.check(t.Elem(), where, above)
	case reflect.Struct:
		fields := fieldsOf(t)
		for i, f := range fields {
			if slices.ContainsFunc(fields[:i], func(o field) bool { return o.name == f.name }) {
				return fmt.Errorf("%s: two fields have the JSON name %q, of which encoding/json leaves out one or both: rename one", where, f.name)
			}
			if err := s.check(f.typ, where+"."+f.name, above); err != nil {
				return err
			}
		}
	}
	return nil
}

// isKey reports whether encoding/json makes the name of a member of a t, or
// the other way round.
func (s side) isKey(t reflect.Type) bool {
	if t.Kind() == reflect.String || t.Kind() >= reflect.Int && t.Kind() <= reflect.Uintptr {
		return true
	}
	if s == reads {
		return reflect.PointerTo(t).Implements(textType)
	}
	return t.Implements(textOutType)
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

// propertiesOf returns the schemas of the members of the object that the schema
// describes.
func propertiesOf(schema json.RawMessage) map[string]json.RawMessage {
	var s struct {
		Properties map[string]json.RawMessage `json:"properties"`
	}
	if json.Unmarshal(schema, &s) != nil {
		return nil
	}
	return s.Properties
}

// hasProperty reports whether the object that the schema describes has a
// member of that name.
func hasProperty(schema json.RawMessage, name string) bool {
	return propertiesOf(schema)[name] != nil
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
