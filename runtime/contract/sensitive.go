package contract

import (
	"encoding/json"
	"strings"
)

// HasSensitive reports whether the JSON Schema marks anything as sensitive.
func HasSensitive(schema json.RawMessage) bool { return marksOf(schema).any() }

// marks is the part of a schema that says which values are sensitive.
type marks struct {
	Sensitive  bool              `json:"x-sensitive"`
	Items      *marks            `json:"items"`
	Properties map[string]*marks `json:"properties"`
	Rest       restMarks         `json:"additionalProperties"`
}

// restMarks are the marks of members that the schema does not name: the value of
// additionalProperties, which is true, false or a schema.
type restMarks struct{ *marks }

func (r *restMarks) UnmarshalJSON(b []byte) error {
	if b[0] != '{' {
		return nil
	}
	r.marks = &marks{}
	return json.Unmarshal(b, r.marks)
}

// marksOf parses a schema. A schema that cannot be parsed marks everything.
func marksOf(schema json.RawMessage) *marks {
	if len(schema) == 0 {
		return nil
	}
	m := &marks{}
	if json.Unmarshal(schema, m) != nil {
		m.Sensitive = true
	}
	return m
}

// any reports whether anything is marked.
func (m *marks) any() bool {
	if m == nil {
		return false
	}
	if m.Sensitive || m.Items.any() || m.Rest.any() {
		return true
	}
	for _, p := range m.Properties {
		if p.any() {
			return true
		}
	}
	return false
}

// fits reports whether a value that begins with this delimiter (0 for a scalar) is
// of the kind that the schema describes, if the schema marks anything below it. In
// a value of another kind it is unknown which part is sensitive.
func (m *marks) fits(opening json.Delim) bool {
	switch {
	case !m.any() || m.Sensitive:
		return true
	case m.Items.any():
		return opening == '['
	}
	return opening == '{'
}

// member returns the marks of a member. It compares names as encoding/json does
// when it decodes into a struct.
func (m *marks) member(name string) *marks {
	if m == nil {
		return nil
	}
	if p, ok := m.Properties[name]; ok {
		return p
	}
	for other, p := range m.Properties {
		if strings.EqualFold(other, name) && p.any() {
			return p
		}
	}
	return m.Rest.marks
}

func (m *marks) items() *marks {
	if m == nil {
		return nil
	}
	return m.Items
}
