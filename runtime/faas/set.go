package faas

import (
	"errors"
	"fmt"
	"iter"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// Set is a collection of functions that all get the same dependencies, a *D. The
// zero Set is ready to use:
//
//	var All faas.Set[Deps]
type Set[D any] struct {
	// Retry is the policy of event functions that are registered without a Retry
	// of their own. Set it before the functions are used, at best where the set
	// is declared.
	Retry Retry

	mu         sync.Mutex
	entries    []entry[D]
	middleware []func(next Handler) Handler
	mistakes   []error
}

// entry is one registered function.
type entry[D any] struct {
	descriptor contract.Descriptor
	ownRetry   bool // it was registered with a Retry
	file       string
	line       int
	bind       func(*D) Handler
}

// Use adds middleware around every function of the set, whether it is registered
// before or after. The first that is added is the outermost, as in
//
//	All.Use(withTracing, withAuthorization) // tracing → authorization → function
//
// A middleware is called once for each function, and the Handler that it returns
// once for each run. MetaOf(ctx).Function is the name of the function that runs.
// A middleware may return an error without calling next. It runs inside of the
// limits of the run: its timeout, and the recovery from panics. For an event
// that Once suppresses, it does not run.
func (s *Set[D]) Use(middleware ...func(next Handler) Handler) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.middleware = append(s.middleware, middleware...)
}

// With returns the functions with these names, or all without names, bound to
// their dependencies and sorted by name. It fails with Err, and if the set has
// no function of one of the names.
func (s *Set[D]) With(deps *D, names ...string) ([]contract.Function, error) {
	if err := s.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range names {
		if !slices.ContainsFunc(s.entries, func(e entry[D]) bool { return e.descriptor.Name == name }) {
			return nil, fmt.Errorf("there is no function %q", name)
		}
	}
	var fns []contract.Function
	for _, e := range s.entries {
		if len(names) == 0 || slices.Contains(names, e.descriptor.Name) {
			fns = append(fns, contract.Function{Descriptor: s.describe(e), Handle: s.wrap(e.bind(deps))})
		}
	}
	slices.SortFunc(fns, func(a, b contract.Function) int { return strings.Compare(a.Name, b.Name) })
	return fns, nil
}

// Err returns all registrations that cannot work, each with its file and line;
// nil if there are none.
func (s *Set[D]) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(append(slices.Clone(s.mistakes), s.checkDefaults()...)...)
}

// Descriptors describes the functions of the set, sorted by name.
func (s *Set[D]) Descriptors() []contract.Descriptor {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []contract.Descriptor
	for _, e := range s.entries {
		list = append(list, s.describe(e))
	}
	slices.SortFunc(list, func(a, b contract.Descriptor) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// Sources yields the name of each function with the base name of the file that
// registers it.
func (s *Set[D]) Sources() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		s.mu.Lock()
		entries := slices.Clone(s.entries)
		s.mu.Unlock()
		for _, e := range entries {
			if !yield(e.descriptor.Name, filepath.Base(e.file)) {
				return
			}
		}
	}
}

// describe returns the descriptor of e with the defaults of the set.
func (s *Set[D]) describe(e entry[D]) contract.Descriptor {
	d := e.descriptor
	if d.Kind == contract.KindEvent && !e.ownRetry {
		d.Retry = s.Retry
	}
	return d
}

// wrap puts the middleware of the set around handle.
func (s *Set[D]) wrap(handle Handler) Handler {
	for _, middleware := range slices.Backward(s.middleware) {
		handle = middleware(handle)
	}
	return handle
}

// checkDefaults reports what is wrong with the defaults of the set, and with
// what they make of its functions.
func (s *Set[D]) checkDefaults() []error {
	if err := s.Retry.Validate(); err != nil {
		return []error{fmt.Errorf("the Retry of the set: %w", err)}
	}
	var mistakes []error
	for _, e := range s.entries {
		d := s.describe(e)
		if err := checkRetry(&d); err != nil {
			mistakes = append(mistakes, fmt.Errorf("%s:%d: function %q, with the Retry of the set: %w", e.file, e.line, d.Name, err))
		}
	}
	return mistakes
}

// add registers e, unless it clashes with another function.
func (s *Set[D]) add(e entry[D]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, old := range s.entries {
		if clash := clashOf(&old.descriptor, &e.descriptor); clash != "" {
			s.mistakes = append(s.mistakes, fmt.Errorf("%s: function %q (%s:%d) and function %q (%s:%d): keep one, or change the other",
				clash, old.descriptor.Name, old.file, old.line, e.descriptor.Name, e.file, e.line))
			return
		}
	}
	s.entries = append(s.entries, e)
}

// refuse notes a registration that cannot work.
func (s *Set[D]) refuse(mistake error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mistakes = append(s.mistakes, mistake)
}

// clashOf returns why a and b cannot be in one set; "" if they can.
func clashOf(a, b *contract.Descriptor) string {
	switch {
	case a.Name == b.Name:
		return "two functions with one name"
	case a.Route != nil && b.Route != nil && routesClash(a.Route, b.Route):
		return fmt.Sprintf("two functions on one HTTP route (%s %s)", b.Route.Method, b.Route.Path)
	case a.Kind == contract.KindRequest && b.Kind == contract.KindRequest && a.Keys[0] == b.Keys[0]:
		return fmt.Sprintf("two functions on one request key (%s)", b.Keys[0])
	}
	return ""
}
