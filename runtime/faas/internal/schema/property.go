package schema

import "encoding/json"

// Properties returns the schemas of the members of the object that schema describes.
func Properties(schema json.RawMessage) map[string]json.RawMessage {
	var s struct {
		Properties map[string]json.RawMessage `json:"properties"`
	}
	if json.Unmarshal(schema, &s) != nil {
		return nil
	}
	return s.Properties
}

// HasProperty reports whether the object that schema describes has a member with this
// name.
func HasProperty(schema json.RawMessage, name string) bool {
	return Properties(schema)[name] != nil
}

// HeaderOf returns the request header field that fills the member with this name of
// the object that schema describes; "" for none.
func HeaderOf(schema json.RawMessage, name string) string {
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
