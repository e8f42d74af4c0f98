package contract

import (
	"encoding/json"
	"slices"
	"strings"
)

// OncePolicy says which events an event function handles only once, see
// faas.Once.
type OncePolicy struct {
	// Key is a template over the fields of the message: "order:{id}". "" stands for
	// the id of the event with its routing key and, for a CloudEvent, its source.
	Key string `json:"key,omitempty"`
}

// KeyOf returns the key of e. It fails with CodeMalformed if the body is not a JSON
// object, and with CodeInvalid if a field of the template is missing, empty, null,
// an object or an array.
func (p *OncePolicy) KeyOf(e *Event) (string, error) {
	if p.Key == "" {
		source, _ := e.Headers["cloudEvents_source"].(string)
		parts, err := json.Marshal([]string{e.Key, source, e.ID})
		return string(parts), err
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(e.Body, &members); err != nil {
		return "", &Error{Code: CodeMalformed, Detail: "the body is no JSON object, and has no field to know it by", Cause: err}
	}
	key, err := ExpandTemplate(p.Key, func(name string) (string, bool) { return scalar(member(members, name)) })
	if err != nil {
		return "", &Error{Code: CodeInvalid, Detail: "the event cannot be told from others", Cause: err}
	}
	return key, nil
}

// member returns the member with this name, or else one whose name differs only in
// case, as encoding/json does: the first in alphabetical order.
func member(members map[string]json.RawMessage, name string) json.RawMessage {
	if v, ok := members[name]; ok {
		return v
	}
	var found []string
	for other := range members {
		if strings.EqualFold(other, name) {
			found = append(found, other)
		}
	}
	if len(found) == 0 {
		return nil
	}
	return members[slices.Min(found)]
}

// scalar returns a string, a number or a bool as text.
func scalar(raw json.RawMessage) (string, bool) {
	if len(raw) == 0 {
		return "", false
	}
	switch raw[0] {
	case '{', '[', 'n':
		return "", false
	case '"':
		var text string
		err := json.Unmarshal(raw, &text)
		return text, err == nil && text != ""
	}
	return string(raw), true
}
