package faas

import (
	"errors"
	"fmt"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/faas/internal/schema"
)

// Once lets an event function succeed only once for all events with the same key. The
// key is a template over the fields of the message: "order:{id}". With "" the key is
// the id of the event, so that only copies of one event have the same key. Events
// with different routing keys can have the same key.
//
// If a run with the same key has succeeded, the event is acknowledged without a run.
// While a run with the same key is active, the event waits, which does not count as
// an attempt. A run that fails does not count: the next one runs.
//
// The success is recorded after the function has returned. If the worker dies in
// between, or cannot reach the inbox, the function runs again. Its effect should
// therefore be harmless when it is repeated.
func Once(key string) Option {
	return optionFunc(func(s *settings) { s.once = &contract.OncePolicy{Key: key} })
}

// checkOnce reports why p does not work for a function with these reactions.
func checkOnce(p *contract.OncePolicy, reactions []contract.Reaction) error {
	fields, secret := 0, ""
	for _, r := range reactions {
		properties := schema.Properties(r.Input)
		_, err := contract.ExpandTemplate(p.Key, func(name string) (string, bool) {
			fields++
			if contract.HasSensitive(properties[name]) {
				secret = name
			}
			return "", r.Input == nil || properties[name] != nil // the fields of an undecoded event are unknown
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
