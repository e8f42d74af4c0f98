package schema

import (
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"time"
)

// side is which way a type goes through encoding/json. One that implements its
// interfaces for one way only looks different on the other.
type Side bool

const (
	Reads  Side = false // a message
	Writes Side = true  // a reply
)

// schemaOf infers the JSON Schema (2020-12) of what encoding/json makes of t. A
// slice or a map may be null, as encoding/json writes one that is nil. A field
// is required unless it is a pointer or of an embedded one, omitempty or
// omitzero; its description comes from the tag `doc`.
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
