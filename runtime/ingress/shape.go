package ingress

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
)

// kind is the JSON type that the text of a parameter becomes.
type kind byte

const (
	kindString kind = iota
	kindInteger
	kindNumber
	kindBoolean
	kindArray
	kindObject // cannot be written as a parameter
)

// member is what the schema says about one member of the input.
type member struct {
	kind      kind
	item      kind   // of an array
	header    string // canonical name of the request header field that it comes from; "" for none
	sensitive bool
}

// isParameter reports whether it can be written as a parameter, or as several.
func (m member) isParameter() bool {
	return m.kind < kindArray || m.kind == kindArray && m.item < kindArray
}

// shape is as much of an input schema as it takes to make a message of
// parameters. The worker checks the message itself.
type shape struct {
	object  bool // the message is an object, and cannot be null
	members map[string]member
	headers []string // names of the members that come from header fields, sorted
	open    bool     // names that members lacks are allowed
	rest    member   // what they are then
}

// schemaNode is what shapeOf and the OpenAPI document read of a JSON Schema.
type schemaNode struct {
	Type                 json.RawMessage            `json:"type"`
	Items                json.RawMessage            `json:"items"`
	Properties           map[string]json.RawMessage `json:"properties"`
	Required             []string                   `json:"required"`
	AdditionalProperties json.RawMessage            `json:"additionalProperties"`
	Description          string                     `json:"description"`
	Header               string                     `json:"x-header"`
	Sensitive            bool                       `json:"x-sensitive"`
}

// shapeOf reads a JSON Schema. One that it does not understand allows anything.
func shapeOf(schema json.RawMessage) shape {
	var s schemaNode
	if json.Unmarshal(schema, &s) != nil {
		return shape{open: true}
	}
	in := shape{object: string(s.Type) == `"object"`, members: make(map[string]member, len(s.Properties)), open: true}
	for name, property := range s.Properties {
		m := memberOf(property)
		in.members[name] = m
		if m.header != "" {
			in.headers = append(in.headers, name)
		}
	}
	slices.Sort(in.headers)
	switch more := strings.TrimSpace(string(s.AdditionalProperties)); {
	case more == "false":
		in.open = false
	case strings.HasPrefix(more, "{"):
		in.rest = memberOf(s.AdditionalProperties)
	}
	return in
}

func memberOf(schema json.RawMessage) member {
	var s schemaNode
	if json.Unmarshal(schema, &s) != nil {
		return member{}
	}
	m := member{kind: kindOf(s.Type), header: http.CanonicalHeaderKey(s.Header), sensitive: s.Sensitive}
	if m.kind == kindArray && s.Items != nil {
		m.item = memberOf(s.Items).kind
	}
	return m
}

// kindOf reads the keyword "type": a name, or several of which null is one.
func kindOf(typ json.RawMessage) kind {
	var names []string
	if json.Unmarshal(typ, &names) != nil {
		names = []string{strings.Trim(string(typ), `"`)}
	}
	for _, name := range names {
		switch name {
		case "integer":
			return kindInteger
		case "number":
			return kindNumber
		case "boolean":
			return kindBoolean
		case "array":
			return kindArray
		case "object":
			return kindObject
		}
	}
	return kindString
}

// member returns what the parameter called name is; false if there is none.
func (s *shape) member(name string) (member, bool) {
	if m, ok := s.members[name]; ok {
		return m, true
	}
	return s.rest, s.open
}

// mistake says why text cannot be of this kind; "" if it can.
func (k kind) mistake(text string) string {
	switch k {
	case kindInteger:
		if digits := strings.TrimPrefix(text, "-"); digits == "" || strings.Trim(digits, "0123456789") != "" || len(digits) > 1 && digits[0] == '0' {
			return "want an integer"
		}
	case kindNumber:
		if !json.Valid([]byte(text)) || text[0] != '-' && (text[0] < '0' || text[0] > '9') {
			return "want a number"
		}
	case kindBoolean:
		if text != "true" && text != "false" {
			return "want true or false"
		}
	case kindArray, kindObject:
		return "it cannot be written as a parameter, only in a body"
	}
	return ""
}

// headerOf is the header field that the member of that name, spelled in any
// case, comes from; "" if it does not.
func (s *shape) headerOf(name string) string {
	for _, h := range s.headers {
		if strings.EqualFold(h, name) {
			return s.members[h].header
		}
	}
	return ""
}
