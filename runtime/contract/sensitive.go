package contract

import (
	"encoding/json"
	"strings"
)

// HasSensitive reports whether the JSON Schema marks anything as sensitive.
func HasSensitive(schema json.RawMessage) bool { return marksOf(schema).any() }

// marks is what of a schema says where sensitive values are.
type marks struct {
	Sensitive  bool              `json:"x-sensitive"`
	Items      *marks            `json:"items"`
	Properties map[string]*marks `json:"properties"`
	Rest       restMarks         `json:"additionalProperties"`
}

// restMarks are those of members that have no property: true, false or a schema.
type restMarks struct{ *marks }

func (r *restMarks) UnmarshalJSON(b []byte) error {
	if b[0] != '{' {
		return nil
	}
	r.marks = &marks{}
	return json.Unmarshal(b, r.marks)
}

// marksOf reads a schema. One that cannot be read marks everything.
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

// fits reports whether a value that begins so can be what the schema speaks of,
// as far as anything in it is marked: in a value of another kind nobody knows
// where the sensitive part is. A scalar begins with no delimiter.
func (m *marks) fits(opening json.Delim) bool {
	switch {
	case !m.any() || m.Sensitive:
		return true
	case m.Items.any():
		return opening == '['
	}
	return opening == '{'
}

// member returns the marks of a member, whose name is compared as
// encoding/json does when it fills a struct.
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
