package contract

import (
	"fmt"
	"strings"
)

// ExpandTemplate replaces the fields in a template such as "profile:{id}" with their
// values. Field returns the value of a field as text, and whether it exists.
func ExpandTemplate(template string, field func(name string) (string, bool)) (string, error) {
	var b strings.Builder
	for rest := template; ; {
		before, after, found := strings.Cut(rest, "{")
		b.WriteString(before)
		if !found {
			return b.String(), nil
		}
		name, tail, closed := strings.Cut(after, "}")
		if !closed || name == "" {
			return "", fmt.Errorf("template %q: write a field as {name}", template)
		}
		value, ok := field(name)
		if !ok {
			return "", fmt.Errorf("template %q: there is no field %q", template, name)
		}
		b.WriteString(value)
		rest = tail
	}
}
