package faas

import (
	"errors"
	"fmt"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/faas/internal/schema"
)

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
	return optionFunc(func(s *settings) { s.once = &contract.OncePolicy{Key: key} })
}

// checkOnce says what about p cannot work for a function with these reactions.
func checkOnce(p *contract.OncePolicy, reactions []contract.Reaction) error {
	fields, secret := 0, ""
	for _, r := range reactions {
		properties := schema.Properties(r.Input)
		_, err := contract.ExpandTemplate(p.Key, func(name string) (string, bool) {
			fields++
			if contract.HasSensitive(properties[name]) {
				secret = name
			}
			return "", r.Input == nil || properties[name] != nil // of a raw event nothing is known
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
