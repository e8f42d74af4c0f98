package faas

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
)

// A field of a message or a reply tagged `sensitive:"true"` holds what must
// not lie around. In the schema its property, or whatever it is inside of that
// the schema does not spell out, has the keyword "x-sensitive"; the descriptor
// is Sensitive. Nothing of such a function is cached, its errors are logged
// without what the message's sensitive fields hold, and who shows a message
// shows what Redact leaves of it.

// isSensitive reports whether a message or the reply has sensitive fields.
func (d *Descriptor) isSensitive() bool {
	return marksOf(d.Input).any() || marksOf(d.Output).any() ||
		slices.ContainsFunc(d.Reactions, func(r Reaction) bool { return marksOf(r.Input).any() })
}

// checkExposure says which sensitive field the route would put into a URL,
// where every proxy logs it (RFC 9110, section 17.9).
func (d *Descriptor) checkExposure() error {
	input := marksOf(d.Input)
	params := d.Route.params()
	for name, m := range input.Properties {
		switch {
		case !m.any() || headerOf(d.Input, name) != "":
		case slices.Contains(params, name):
			return fmt.Errorf("route %q: the field %q is sensitive and would be in the path, which is logged everywhere: take it from the body or a header field", d.Route.Path, name)
		case !hasBody(d.Route.Method):
			return fmt.Errorf("route %q: the field %q is sensitive and a %s request has no body to carry it: use POST, or take it from a header field", d.Route.Path, name, d.Route.Method)
		}
	}
	return nil
}

func hasBody(method string) bool {
	return method == http.MethodPost || method == http.MethodPut || method == http.MethodPatch
}

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

// holdsSensitive reports whether there is a sensitive field anywhere in t.
func holdsSensitive(t reflect.Type, above []reflect.Type) bool {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
		return holdsSensitive(t.Elem(), above)
	case reflect.Struct:
		if slices.Contains(above, t) {
			return false
		}
		above = append(above, t)
		for f := range t.Fields() {
			if taggedSensitive(f) || holdsSensitive(f.Type, above) {
				return true
			}
		}
	}
	return false
}

// taggedSensitive reports whether a field has the tag, with any value but
// "false": a slip must not give a secret away.
func taggedSensitive(f reflect.StructField) bool {
	value, tagged := f.Tag.Lookup("sensitive")
	return tagged && value != "false"
}
