package faas

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// OncePolicy says by what an event function knows events apart that it is to
// handle once.
type OncePolicy struct {
	// Key is a template over the message's fields, "order:{id}"; "" is the
	// event's id, with its routing key and, of a CloudEvent, its source.
	Key string `json:"key,omitempty"`
}

// Once lets an event function succeed once for all events with the same key, a
// template over the message's fields: "order:{id}". With "" events are known by
// their id, so that copies of one event count as one. Where both may come to
// the function, events under different routing keys can have the same key.
//
// An event whose key has been handled is acknowledged without a run; while its
// key is being handled it waits, and no attempt is counted. A failure never
// counts: the next attempt runs. If the worker dies, or cannot reach the inbox,
// after the function has had its effect and before that is written down, the
// effect happens again: let it be one that survives that.
func Once(key string) Option {
	return optionFunc(func(s *settings) { s.once = &OncePolicy{Key: key} })
}

// Postpone is the error of what stands between a runtime and a function (it
// wraps Function.Handle) and lets an event wait for at least d: the function
// was not run, and no attempt is counted.
func Postpone(d time.Duration, cause error) error {
	return refusal{&Error{Code: CodeUnavailable, Detail: "it is not run yet", After: d, Cause: cause, Executed: ExecutedNo}}
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
	key, err := ExpandTag(p.Key, func(name string) (string, bool) { return scalar(member(members, name)) })
	if err != nil {
		return "", &Error{Code: CodeInvalid, Detail: "the event cannot be told from others", Cause: err}
	}
	return key, nil
}

// check says what about p cannot work for a function with these reactions.
func (p *OncePolicy) check(reactions []Reaction) error {
	fields, secret := 0, ""
	for _, r := range reactions {
		marks := marksOf(r.Input)
		_, err := ExpandTag(p.Key, func(name string) (string, bool) {
			fields++
			if marks.member(name).any() {
				secret = name
			}
			return "", r.Input == nil || hasProperty(r.Input, name) // of a raw event nothing is known
		})
		if err != nil {
			return fmt.Errorf("faas.Once: %w", err)
		}
	}
	if secret != "" {
		return fmt.Errorf("faas.Once: the field %q is sensitive, and the inbox keeps the keys: take another", secret)
	}
	if p.Key != "" && fields == 0 {
		return errors.New(`faas.Once: the key names no field, and all events would be one: write one as in "order:{id}", or "" for the event's id`)
	}
	return nil
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
