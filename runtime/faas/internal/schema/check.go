package schema

import (
	"fmt"
	"reflect"
	"slices"
)

// Check reports parts of t that encoding/json cannot encode or decode. Where is the
// name of t in the error.
func Check(t reflect.Type, where string, s Side) error { return s.check(t, where, nil) }

func (s Side) check(t reflect.Type, where string, above []reflect.Type) error {
	if s.Opaque(t) || slices.Contains(above, t) {
		return nil
	}
	above = append(above, t)
	switch t.Kind() {
	case reflect.Chan, reflect.Func, reflect.Complex64, reflect.Complex128, reflect.UnsafePointer:
		return fmt.Errorf("%s: JSON has no %v: leave it out with `json:\"-\"`", where, t)
	case reflect.Interface:
		if s == Reads && t.NumMethod() > 0 {
			return fmt.Errorf("%s: encoding/json cannot tell which %v to make: choose a type that is no interface", where, t)
		}
	case reflect.Map:
		if !s.isKey(t.Key()) {
			return fmt.Errorf("%s: encoding/json has no map with %v as its key: choose a string or an integer", where, t.Key())
		}
		return s.check(t.Elem(), where, above)
	case reflect.Pointer, reflect.Slice, reflect.Array:
		return s.check(t.Elem(), where, above)
	case reflect.Struct:
		fields := Fields(t)
		for i, f := range fields {
			if slices.ContainsFunc(fields[:i], func(o Field) bool { return o.Name == f.Name }) {
				return fmt.Errorf("%s: two fields have the JSON name %q, of which encoding/json leaves out one or both: rename one", where, f.Name)
			}
			if err := s.check(f.Type, where+"."+f.Name, above); err != nil {
				return err
			}
		}
	}
	return nil
}

// isKey reports whether encoding/json accepts t as the key of a map.
func (s Side) isKey(t reflect.Type) bool {
	if t.Kind() == reflect.String || t.Kind() >= reflect.Int && t.Kind() <= reflect.Uintptr {
		return true
	}
	if s == Reads {
		return reflect.PointerTo(t).Implements(textType)
	}
	return t.Implements(textOutType)
}

// FromText reports whether the text of a header field can be decoded into a t.
func FromText(t reflect.Type) bool {
	s := Reads.schema(t, nil)
	name, ok := s.Type.(string)
	if names, several := s.Type.([]string); several {
		name, ok = names[0], true
	}
	return ok && name != "array" && name != "object" && s.ContentEncoding == ""
}
