package schema

import "encoding/json"

// propertiesOf returns the schemas of the members of the object that the schema
// describes.
func Properties(schema json.RawMessage) map[string]json.RawMessage {
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
func HasProperty(schema json.RawMessage, name string) bool {
	return Properties(schema)[name] != nil
}

// headerOf is the request header field that the object's member of that name
// comes from; "" if it does not.
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
