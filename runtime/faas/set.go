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

// Set is a collection of functions that all get the same dependencies, a *D.
// The zero Set is ready to use.
type Set[D any] struct {
	mu       sync.Mutex
	entries  []entry[D]
	mistakes []error
}

type entry[D any] struct {
	descriptor contract.Descriptor
	file       string
	line       int
	bind       func(*D) Handler
}

// With returns the set's functions with their dependencies in place, those
// named only (all without names), sorted by name. It fails with Err, and on a
// name that the set does not have.
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
			fns = append(fns, contract.Function{Descriptor: e.descriptor, Handle: e.bind(deps)})
		}
	}
	slices.SortFunc(fns, func(a, b contract.Function) int { return strings.Compare(a.Name, b.Name) })
	return fns, nil
}

// Err returns every registration that cannot work, each with its place: nil if
// there is none.
func (s *Set[D]) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(s.mistakes...)
}

// Descriptors describes the set's functions, sorted by name.
func (s *Set[D]) Descriptors() []contract.Descriptor {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []contract.Descriptor
	for _, e := range s.entries {
		list = append(list, e.descriptor)
	}
	slices.SortFunc(list, func(a, b contract.Descriptor) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// Sources yields each function's name with the base name of the file that
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

// add registers e, unless it clashes with another.
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

func (s *Set[D]) refuse(mistake error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mistakes = append(s.mistakes, mistake)
}

// clashOf says why a and b cannot stand in one set; "" if they can.
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
