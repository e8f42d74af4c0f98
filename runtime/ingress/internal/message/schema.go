package message

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
)

// Schema is the part of an input schema that it takes to make a message of
// parameters.
type Schema struct {
	object  bool // the message is an object, and cannot be null
	fields  map[string]Field
	headers []string // names of the fields that come from header fields, sorted
	open    bool     // names that fields lacks are allowed
	rest    Field    // describes those
}

// Field describes one member of the message.
type Field struct {
	Kind      Kind
	Item      Kind   // of an array's items
	Header    string // canonical name of the request header field that it comes from; "" for none
	Sensitive bool
}

// Kind is the JSON type that the text of a parameter becomes.
type Kind byte

// The kinds.
const (
	String Kind = iota
	Integer
	Number
	Boolean
	Array
	Object // cannot be written as a parameter
)

// Node is one level of a JSON Schema, as far as the ingress reads it.
type Node struct {
	Type                 json.RawMessage            `json:"type"`
	Items                json.RawMessage            `json:"items"`
	Properties           map[string]json.RawMessage `json:"properties"`
	Required             []string                   `json:"required"`
	AdditionalProperties json.RawMessage            `json:"additionalProperties"`
	Description          string                     `json:"description"`
	Header               string                     `json:"x-header"`
	Sensitive            bool                       `json:"x-sensitive"`
}

// ParseSchema reads a JSON Schema. One that it does not understand allows
// anything.
func ParseSchema(schema json.RawMessage) Schema {
	var n Node
	if json.Unmarshal(schema, &n) != nil {
		return Schema{open: true}
	}
	s := Schema{object: string(n.Type) == `"object"`, fields: make(map[string]Field, len(n.Properties)), open: true}
	for name, property := range n.Properties {
		f := ParseField(property)
		s.fields[name] = f
		if f.Header != "" {
			s.headers = append(s.headers, name)
		}
	}
	slices.Sort(s.headers)
	switch more := strings.TrimSpace(string(n.AdditionalProperties)); {
	case more == "false":
		s.open = false
	case strings.HasPrefix(more, "{"):
		s.rest = ParseField(n.AdditionalProperties)
	}
	return s
}

// Headers returns the canonical names of the request header fields that the
// message takes, in the order of the members' names.
func (s *Schema) Headers() []string {
	var names []string
	for _, name := range s.headers {
		names = append(names, s.fields[name].Header)
	}
	return names
}

// HasHeader reports whether the message takes the header field of that canonical
// name.
func (s *Schema) HasHeader(header string) bool {
	return slices.ContainsFunc(s.headers, func(name string) bool { return s.fields[name].Header == header })
}

// field returns what the parameter called name is; ok is false if there is none.
func (s *Schema) field(name string) (f Field, ok bool) {
	if f, ok := s.fields[name]; ok {
		return f, true
	}
	return s.rest, s.open
}

// headerOf returns the header field that the member of that name, in any case,
// comes from; "" if it comes from none.
func (s *Schema) headerOf(name string) string {
	for _, h := range s.headers {
		if strings.EqualFold(h, name) {
			return s.fields[h].Header
		}
	}
	return ""
}

// ParseField reads the schema of a member.
func ParseField(schema json.RawMessage) Field {
	var n Node
	if json.Unmarshal(schema, &n) != nil {
		return Field{}
	}
	f := Field{Kind: KindOf(n.Type), Header: http.CanonicalHeaderKey(n.Header), Sensitive: n.Sensitive}
	if f.Kind == Array && n.Items != nil {
		f.Item = ParseField(n.Items).Kind
	}
	return f
}

// IsParameter reports whether the member can be written as a parameter, or as
// several of the same name.
func (f Field) IsParameter() bool {
	return f.Kind < Array || f.Kind == Array && f.Item < Array
}

// KindOf reads the keyword "type": a name, or a list of names with null in it.
func KindOf(typ json.RawMessage) Kind {
	var names []string
	if json.Unmarshal(typ, &names) != nil {
		names = []string{strings.Trim(string(typ), `"`)}
	}
	for _, name := range names {
		switch name {
		case "integer":
			return Integer
		case "number":
			return Number
		case "boolean":
			return Boolean
		case "array":
			return Array
		case "object":
			return Object
		}
	}
	return String
}

// mistake returns why text cannot be of this kind; "" if it can.
func (k Kind) mistake(text string) string {
	switch k {
	case Integer:
		if digits := strings.TrimPrefix(text, "-"); digits == "" || strings.Trim(digits, "0123456789") != "" || len(digits) > 1 && digits[0] == '0' {
			return "want an integer"
		}
	case Number:
		if !json.Valid([]byte(text)) || text[0] != '-' && (text[0] < '0' || text[0] > '9') {
			return "want a number"
		}
	case Boolean:
		if text != "true" && text != "false" {
			return "want true or false"
		}
	case Array, Object:
		return "it cannot be written as a parameter, only in a body"
	}
	return ""
}
