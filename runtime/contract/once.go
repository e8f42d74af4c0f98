package contract

import (
	"encoding/json"
	"slices"
	"strings"
)

// OncePolicy says by what an event function knows events apart that it is to
// handle once.
type OncePolicy struct {
	// Key is a template over the message's fields, "order:{id}"; "" is the
	// event's id, with its routing key and, of a CloudEvent, its source.
	Key string `json:"key,omitempty"`
}

// KeyOf returns what e is known by. It fails with CodeInvalid if e has nothing
// to put in the place of a field: no such member, or one that is empty, null,
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

// member finds the member of that name, or else one whose name differs in case
// only, as encoding/json does; of several the first in alphabetical order.
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

// scalar is the text of a string, a number or a bool.
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
