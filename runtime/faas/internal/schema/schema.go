// Package schema connects Go types with JSON: it infers the JSON Schema of a message
// or reply type, reports types that encoding/json cannot handle, and decodes
// messages with errors that name every mistake.
//
// It does not use For of github.com/google/jsonschema-go. That function describes
// the fields of types that implement json.Unmarshaler or encoding.TextUnmarshaler,
// describes []byte as an array, spreads embedded structs that have a JSON name, and
// rejects recursive types and maps with integer keys. The tests validate with that
// library what encoding/json writes for random types. Decoder and the checks of
// header and sensitive fields need the list of fields in any case.
package schema

import (
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"time"
)

// Side says whether a type is decoded or encoded. A type that implements only one of
// json.Marshaler and json.Unmarshaler looks different on the two sides.
type Side bool

// The sides.
const (
	Reads  Side = false // a message
	Writes Side = true  // a reply
)

// Of infers the JSON Schema (2020-12) of t as encoding/json encodes or decodes it. A
// slice or a map may be null, as encoding/json encodes a nil one. A field is
// required unless it is a pointer, belongs to an embedded pointer, or has omitempty
// or omitzero. Its description comes from the tag `doc`.
func Of(t reflect.Type, s Side) json.RawMessage {
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
	Header               string             `json:"x-header,omitempty"`    // request header field that fills it
	Sensitive            bool               `json:"x-sensitive,omitempty"` // see contract.Redact
}

var (
	timeType        = reflect.TypeFor[time.Time]()
	numberType      = reflect.TypeFor[json.Number]()
	unmarshalerType = reflect.TypeFor[json.Unmarshaler]()
	textType        = reflect.TypeFor[encoding.TextUnmarshaler]()
	marshalerType   = reflect.TypeFor[json.Marshaler]()
	textOutType     = reflect.TypeFor[encoding.TextMarshaler]()
)

// Opaque reports whether t has its own JSON encoding, so that its fields say nothing
// about it.
func (s Side) Opaque(t reflect.Type) bool {
	pointer := reflect.PointerTo(t)
	if s == Reads {
		return pointer.Implements(unmarshalerType) || pointer.Implements(textType)
	}
	return pointer.Implements(marshalerType) || pointer.Implements(textOutType)
}

// text reports whether t is opaque and a string in JSON.
func (s Side) text(t reflect.Type) bool {
	pointer := reflect.PointerTo(t)
	switch {
	case t == timeType:
		return true
	case s == Reads:
		return pointer.Implements(textType) && !pointer.Implements(unmarshalerType)
	}
	// A method with a pointer receiver applies only to addressable values.
	return t.Kind() != reflect.Interface && t.Implements(textOutType) && !pointer.Implements(marshalerType)
}

// isBytes reports whether encoding/json encodes t as a string in base64.
func isBytes(t reflect.Type) bool {
	if t.Kind() != reflect.Slice || t.Elem().Kind() != reflect.Uint8 {
		return false
	}
	item := reflect.PointerTo(t.Elem())
	return !item.Implements(marshalerType) && !item.Implements(textOutType)
}

func orNull(name string) any { return []string{name, "null"} }

func (s Side) schema(t reflect.Type, above []reflect.Type) *schema {
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
	case s.Opaque(t), slices.Contains(above, t): // recursive: anything goes below
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
		for _, f := range Fields(t) {
			p := s.schema(f.written, above)
			p.Description, p.Header, p.Sensitive = f.doc, f.Header, p.Sensitive || f.Sensitive
			node.Properties[f.Name] = p
			if f.required {
				node.Required = append(node.Required, f.Name)
			}
		}
		return node
	}
	return &schema{}
}
