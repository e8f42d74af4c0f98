package faas

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"runtime"
	"slices"
	"strings"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/faas/internal/schema"
)

// OnRequest registers fn as a request function: it answers calls with the routing
// key of In. The name is in kebab-case, at most 100 bytes. The message is decoded
// from JSON; unknown and missing fields are errors of the caller, and so is what
// Validate returns (see Validator). The result is encoded as JSON.
//
// A registration that cannot work is reported by Set.Err and Set.With, with its file
// and line.
func OnRequest[D any, In Message, Out any](set *Set[D], name string, fn func(context.Context, *D, In) (Out, error), options ...Option) {
	key, unkeyed := keyOf[In]()
	inType := schema.NewDecoder(reflect.TypeFor[In](), schema.Strict)
	status := http.StatusOK
	if reflect.TypeFor[Out]() == reflect.TypeFor[struct{}]() {
		status = http.StatusNoContent
	}
	d := contract.Descriptor{
		Name: name, Kind: contract.KindRequest, Keys: []string{key},
		Input: inType.Schema, Output: schema.Of(reflect.TypeFor[Out](), schema.Writes),
		Concurrency: 128,
	}
	bind := func(deps *D) Handler {
		return func(ctx context.Context, e *Event) ([]byte, error) {
			var in In
			if err := inType.Decode(e.Body, &in); err != nil {
				return nil, contract.Refuse(err)
			}
			out, err := fn(ctx, deps, in)
			if err != nil {
				return nil, err
			}
			body, err := json.Marshal(out)
			if err != nil {
				return nil, fmt.Errorf("encode the reply: %w", err)
			}
			return body, nil
		}
	}
	register(set, d, options, status, func(*settings) (func(*D) Handler, error) {
		if fn == nil {
			return nil, errNoFunction
		}
		return bind, cmp.Or(unkeyed, schema.Check(inType.Type, "the message", schema.Reads), schema.Check(reflect.TypeFor[Out](), "the reply", schema.Writes), checkHeaders(inType.Type))
	})
}

// OnEvent registers fn as an event function: it reacts to events with the routing
// key of In, or with those of the option Keys. Unknown and missing fields are
// accepted. A function whose In is Event gets the events undecoded, and needs Keys.
// If fn returns an error, the event is delivered again as Retry says, unless the
// error is permanent, see NotFound.
func OnEvent[D any, In Message](set *Set[D], name string, fn func(context.Context, *D, In) error, options ...Option) {
	first := reaction(fn)
	d := contract.Descriptor{Name: name, Kind: contract.KindEvent, Concurrency: 16}
	register(set, d, options, 0, func(s *settings) (func(*D) Handler, error) {
		if len(s.keys) > 0 {
			first.keys = s.keys
		}
		reactions := []reactionTo[D]{first}
		for _, also := range s.also {
			r, ok := also.(reactionTo[D])
			if !ok {
				return nil, fmt.Errorf("faas.Also: its function takes other dependencies than the set's %v", reflect.TypeFor[*D]())
			}
			reactions = append(reactions, r)
		}
		s.keys = nil
		for _, r := range reactions {
			if r.wrong != nil {
				return nil, r.wrong
			}
			s.keys = append(s.keys, r.keys...)
			s.reactions = append(s.reactions, contract.Reaction{Keys: r.keys, Input: r.input})
		}
		return func(deps *D) Handler {
			return func(ctx context.Context, e *Event) ([]byte, error) {
				for _, r := range reactions {
					if r.has(e.Key) {
						return nil, r.run(ctx, deps, e)
					}
				}
				return nil, Permanent("no part of the function reacts to the routing key %q", e.Key)
			}
		}, nil
	})
}

// Also lets an event function react to a further message type, with a function of its
// own.
func Also[D any, In Message](fn func(context.Context, *D, In) error) Option {
	r := reaction(fn)
	return optionFunc(func(s *settings) { s.also = append(s.also, r) })
}

// reactionTo is the part of an event function for one message type.
type reactionTo[D any] struct {
	keys  []string
	input json.RawMessage // nil for undecoded events
	wrong error           // why it does not work
	run   func(context.Context, *D, *Event) error
}

func (r reactionTo[D]) has(key string) bool {
	for _, k := range r.keys {
		if contract.Match(k, key) {
			return true
		}
	}
	return false
}

func reaction[D any, In Message](fn func(context.Context, *D, In) error) reactionTo[D] {
	r := reactionTo[D]{}
	key, unkeyed := keyOf[In]()
	if key != "" {
		r.keys = []string{key}
	}
	r.wrong = unkeyed
	if fn == nil {
		r.wrong = errNoFunction
	}
	if raw, ok := any(fn).(func(context.Context, *D, Event) error); ok {
		r.run = func(ctx context.Context, deps *D, e *Event) error { return raw(ctx, deps, *e) }
		return r
	}
	inType := schema.NewDecoder(reflect.TypeFor[In](), schema.Tolerant)
	r.input = inType.Schema
	r.wrong = cmp.Or(r.wrong, schema.Check(inType.Type, "the message", schema.Reads))
	r.run = func(ctx context.Context, deps *D, e *Event) error {
		var in In
		if err := inType.Decode(e.Body, &in); err != nil {
			return err
		}
		return fn(ctx, deps, in)
	}
	return r
}

// keyOf returns the routing key of the zero value of In.
func keyOf[In Message]() (string, error) {
	switch t := reflect.TypeFor[In](); t.Kind() {
	case reflect.Pointer:
		return "", fmt.Errorf("take the message by value: %v, with RoutingKey declared on it, instead of %v", t.Elem(), t)
	case reflect.Interface:
		name := strings.ReplaceAll(t.String(), "contract.", "faas.") // authors know the alias
		return "", fmt.Errorf("take one type of message instead of the interface %s, or a faas.Event for any", name)
	}
	var in In
	return in.RoutingKey(), nil
}

var errNoFunction = errors.New("there is nothing to run: the function is nil")

// register applies the options to d and adds it to set.
func register[D any](set *Set[D], d contract.Descriptor, options []Option, status int, bind func(*settings) (func(*D) Handler, error)) {
	_, file, line, _ := runtime.Caller(2)
	s := settings{keys: d.Keys, status: status, concurrency: d.Concurrency}
	err := s.apply(options)
	var bound func(*D) Handler
	if err == nil {
		bound, err = bind(&s)
	}
	if err == nil {
		err = complete(&d, &s, status)
	}
	if err != nil {
		set.refuse(fmt.Errorf("%s:%d: function %q: %w", file, line, d.Name, err))
		return
	}
	set.add(entry[D]{descriptor: d, ownRetry: s.retry != nil, file: file, line: line, bind: bound})
}

// complete sets the fields of d that the options determine, and checks d.
func complete(d *contract.Descriptor, s *settings, status int) (err error) {
	if d.Kind == contract.KindRequest && !slices.Equal(s.keys, d.Keys) {
		return errors.New("faas.Keys is for event functions: callers use the key of the message")
	}
	d.Keys, d.Exchange, d.Reactions = s.keys, s.exchange, s.reactions
	d.Cache, d.Once, d.Ordered, d.Session = s.cache, s.once, s.ordered, s.session
	d.Concurrency, d.Timeout = s.concurrency, cmp.Or(s.timeout, contract.DefaultTimeout)
	if d.Ordered {
		d.Concurrency = 1
	}
	if s.retry != nil {
		d.Retry = *s.retry
	}
	if s.route != "" && d.Kind == contract.KindRequest {
		if d.Route, err = parseRoute(s.route, s.status); err != nil {
			return err
		}
	}
	if d.Route == nil && s.status != status {
		return errors.New("faas.Status is for a route of a request function: add faas.HTTP")
	}
	d.ReadOnly = s.readOnly || d.Route != nil && readOnlyMethod(d.Route.Method)
	d.Redeliver = d.ReadOnly || s.idempotent
	d.Idempotent = d.Redeliver || d.Route != nil && idempotentMethod(d.Route.Method)
	d.Version = cmp.Or(s.version, versionOf(d.Input, d.Output))
	if err := check(d, s); err != nil {
		return err
	}
	if d.Sensitive = isSensitive(d); d.Sensitive {
		d.Cache = nil
	}
	return nil
}

// versionOf returns a hash of the schemas of the message and the reply.
func versionOf(in, out json.RawMessage) string {
	h := sha256.New()
	h.Write(in)
	h.Write(out)
	return hex.EncodeToString(h.Sum(nil)[:4])
}
