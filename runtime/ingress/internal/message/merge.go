package message

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// appendBody appends the members of body, a valid JSON object. It compares names
// without regard to case, as encoding/json does: a body must not replace the
// value of a parameter or a header field.
func appendBody(parts []part, body []byte, schema *Schema) (merged []part, mistakes []contract.FieldError) {
	var buffer [8]part
	given := buffer[:0] // one part of each name: a list may have many, and a body many members
	for _, p := range parts {
		if !p.list || !slices.ContainsFunc(given, func(o part) bool { return o.name == p.name }) {
			given = append(given, p)
		}
	}
	for name, raw := range members(body) {
		if header := schema.headerOf(name); header != "" {
			mistakes = append(mistakes, contract.FieldError{Pointer: Pointer(name), Detail: onlyFrom(header)})
			continue
		}
		n := slices.IndexFunc(given, func(p part) bool { return strings.EqualFold(p.name, name) })
		switch {
		case n < 0:
			parts = append(parts, part{name: name, raw: raw})
		case !given[n].equals(raw):
			where := "the query"
			if given[n].from == fromPath {
				where = "the path"
			}
			mistakes = append(mistakes, contract.FieldError{Pointer: Pointer(name), Detail: "the body contradicts " + where})
		}
	}
	return parts, mistakes
}

// equals reports whether raw is the parameter's value.
func (p *part) equals(raw []byte) bool {
	if p.list {
		return false
	}
	if p.kind != String {
		return string(raw) == p.text
	}
	var s string
	return json.Unmarshal(raw, &s) == nil && s == p.text && raw[0] == '"'
}

// render writes sorted parts as an object.
func render(parts []part) []byte {
	size := 2
	for _, p := range parts {
		size += len(p.name) + len(p.text) + len(p.raw) + len(`"":[""],`)
	}
	b := append(make([]byte, 0, size), '{')
	for n := range parts {
		p := &parts[n]
		if p.list && n > 0 && parts[n-1].list && parts[n-1].name == p.name { // another item of the same array
			b = p.appendText(append(b[:len(b)-1], ','))
			b = append(b, ']')
			continue
		}
		if n > 0 {
			b = append(b, ',')
		}
		b = append(appendString(b, p.name), ':')
		switch {
		case p.raw != nil:
			b = append(b, p.raw...)
		case p.list:
			b = append(p.appendText(append(b, '[')), ']')
		default:
			b = p.appendText(b)
		}
	}
	return append(b, '}')
}

func (p *part) appendText(b []byte) []byte {
	if p.kind == String {
		return appendString(b, p.text)
	}
	return append(b, p.text...)
}

// appendString appends s as a JSON string.
func appendString(b []byte, s string) []byte {
	for n := range len(s) {
		if c := s[n]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			quoted, err := json.Marshal(s)
			if err != nil { // cannot happen: every string can be encoded
				panic(err)
			}
			return append(b, quoted...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}
