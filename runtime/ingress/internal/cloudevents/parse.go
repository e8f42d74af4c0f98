package cloudevents

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/header"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/message"
)

// cloudEvent is a CloudEvent 1.0.
type cloudEvent struct {
	attributes map[string]string // by name, without datacontenttype
	dataType   string            // datacontenttype
	data       []byte
}

// parseBinary reads an event in binary mode: its attributes are header fields.
func parseBinary(h http.Header, body []byte) (cloudEvent, []contract.FieldError) {
	e := cloudEvent{attributes: map[string]string{}, dataType: h.Get("Content-Type"), data: body}
	var mistakes []contract.FieldError
	for field, values := range h {
		name, found := strings.CutPrefix(strings.ToLower(field), "ce-")
		if !found {
			continue
		}
		// The value may be quoted, and characters outside of printable ASCII are
		// percent-encoded (HTTP binding, section 3.1.3.2).
		value, err := url.PathUnescape(header.Unquote(values[0]))
		if err != nil || len(values) > 1 {
			mistakes = append(mistakes, contract.FieldError{Pointer: message.Pointer(name), Detail: "want one value, percent-encoded where needed"})
			continue
		}
		e.attributes[name] = value
	}
	return e, e.mistakes("", mistakes)
}

// parseStructured reads events in JSON format. at is the prefix of the pointers to
// mistakes: "/" for a list, whose items have an index, else "".
func parseStructured(list []json.RawMessage, at string) (events []cloudEvent, mistakes []contract.FieldError) {
	for n, raw := range list {
		where := at
		if at != "" {
			where = fmt.Sprintf("/%d", n)
		}
		e, wrong := parseOne(raw, where)
		mistakes = append(mistakes, wrong...)
		events = append(events, e)
	}
	return events, mistakes
}

func parseOne(raw json.RawMessage, at string) (cloudEvent, []contract.FieldError) {
	var object map[string]json.RawMessage
	if err := json.Unmarshal(raw, &object); err != nil || object == nil {
		return cloudEvent{}, []contract.FieldError{{Pointer: at, Detail: "want an object"}}
	}
	e := cloudEvent{attributes: make(map[string]string, len(object)), dataType: "application/json"}
	var mistakes []contract.FieldError
	wrong := func(name, detail string) {
		mistakes = append(mistakes, contract.FieldError{Pointer: at + message.Pointer(name), Detail: detail})
	}
	for name, value := range object {
		switch text := string(value); {
		case name == "data" || name == "data_base64" || text == "null":
		case value[0] == '"':
			e.attributes[name] = unquoteJSON(value)
		case isString(name):
			wrong(name, "it is a string")
		case text == "true" || text == "false" || isInt32(text):
			e.attributes[name] = text
		default:
			wrong(name, "an attribute is a string, an integer of 32 bits, true or false")
		}
	}
	if t, ok := e.attributes["datacontenttype"]; ok {
		e.dataType = t
		delete(e.attributes, "datacontenttype")
	}
	data, plain := object["data"]
	encoded, base := object["data_base64"]
	switch {
	case plain && base:
		wrong("data_base64", "give either data or data_base64")
	case base:
		var text string
		err := json.Unmarshal(encoded, &text)
		if err == nil {
			e.data, err = base64.StdEncoding.DecodeString(text)
		}
		if err != nil {
			wrong("data_base64", "it is not base64")
		}
	case plain && !header.IsJSON(e.dataType) && data[0] == '"':
		e.data = []byte(unquoteJSON(data))
	default:
		e.data = data
	}
	return e, e.mistakes(at, mistakes)
}

// isString reports whether an attribute is a string by the specification. An
// extension may have another type.
func isString(attribute string) bool {
	switch attribute {
	case "specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema":
		return true
	}
	return false
}

func isInt32(text string) bool {
	_, err := strconv.ParseInt(text, 10, 32)
	return err == nil
}

func unquoteJSON(raw []byte) string {
	var s string
	if err := json.Unmarshal(raw, &s); err != nil { // cannot happen: it is a valid JSON string
		panic(err)
	}
	return s
}
