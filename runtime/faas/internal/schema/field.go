package schema

import (
	"cmp"
	"net/http"
	"reflect"
	"slices"
	"strings"
)

// Field is one JSON member of a struct.
type Field struct {
	Name      string       // in JSON
	Type      reflect.Type // in Go
	Header    string       // canonical name of the request header field that it comes from; "" for none
	Sensitive bool

	doc      string
	index    []int
	written  reflect.Type // the type that it looks like in JSON
	required bool
	loose    bool // it belongs to an embedded pointer, which may be nil
}

// Fields lists the members that encoding/json sees in the struct type t. Of two with
// one name at the same depth it lists both, see Check.
func Fields(t reflect.Type) []Field {
	all := allFields(t, Field{}, nil)
	var fields []Field
	for _, f := range all {
		over := func(o Field) bool { return o.Name == f.Name && len(o.index) < len(f.index) }
		if !slices.ContainsFunc(all, over) {
			fields = append(fields, f)
		}
	}
	return fields
}

// allFields lists the fields of t, which is embedded as the field in, and of the
// structs embedded in it, including those that a shallower field hides.
func allFields(t reflect.Type, in Field, above []reflect.Type) []Field {
	if slices.Contains(above, t) {
		return nil // the fields of the outer occurrence hide these
	}
	above = append(above, t)
	var fields []Field
	for f := range t.Fields() {
		tag := f.Tag.Get("json")
		if tag == "-" || !f.IsExported() && !(f.Anonymous && isStruct(f.Type)) {
			continue
		}
		name, options, _ := strings.Cut(tag, ",")
		member := Field{
			Name: cmp.Or(name, f.Name), loose: in.loose,
			doc: f.Tag.Get("doc"), index: append(slices.Clone(in.index), f.Index...), Type: f.Type, written: writtenAs(f.Type, options),
			required: !strings.Contains(options, "omitempty") && !strings.Contains(options, "omitzero") && f.Type.Kind() != reflect.Pointer && !in.loose,
			Header:   http.CanonicalHeaderKey(f.Tag.Get("header")), Sensitive: in.Sensitive || taggedSensitive(f),
		}
		if !f.Anonymous || name != "" || !isStruct(f.Type) {
			fields = append(fields, member)
			continue
		}
		spread := f.Type
		if spread.Kind() == reflect.Pointer {
			spread, member.loose = spread.Elem(), true
		}
		fields = append(fields, allFields(spread, member, above)...)
	}
	return fields
}

// writtenAs returns the string type for a number or a boolean with the option
// "string" of encoding/json, otherwise t itself.
func writtenAs(t reflect.Type, options string) reflect.Type {
	if !slices.Contains(strings.Split(options, ","), "string") {
		return t
	}
	of, quoted := t, reflect.TypeFor[string]()
	if t.Kind() == reflect.Pointer {
		of, quoted = t.Elem(), reflect.TypeFor[*string]()
	}
	if of.Kind() >= reflect.Bool && of.Kind() <= reflect.Float64 {
		return quoted
	}
	return t
}

func isStruct(t reflect.Type) bool {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t.Kind() == reflect.Struct
}

// holdsSensitive reports whether t contains a sensitive field at any depth.
func holdsSensitive(t reflect.Type, above []reflect.Type) bool {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
		return holdsSensitive(t.Elem(), above)
	case reflect.Struct:
		if slices.Contains(above, t) {
			return false
		}
		above = append(above, t)
		for f := range t.Fields() {
			if taggedSensitive(f) || holdsSensitive(f.Type, above) {
				return true
			}
		}
	}
	return false
}

// taggedSensitive reports whether a field has the tag with any value except "false":
// a typing error must not expose a secret.
func taggedSensitive(f reflect.StructField) bool {
	value, tagged := f.Tag.Lookup("sensitive")
	return tagged && value != "false"
}
