// Package canonical writes a JSON object in the one form that all its spellings
// share, so that equal inputs have equal cache keys.
package canonical

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"unicode"
)

// An Object is a JSON object in canonical form: no white space, members sorted
// by name, numbers as written.
type Object struct {
	Text    []byte
	members []member
	few     [4]member // room for members without an allocation
}

type member struct{ name, value []byte } // both as JSON, without the quotes of the name

// Read makes o the canonical form of body; an empty body is an empty object. It
// returns false if body is no JSON object, is nested too deeply, or has members
// whose names differ only in case or not at all: their meaning depends on their
// order.
//
// Text refers to body where that is in canonical form already.
func (o *Object) Read(body []byte) bool {
	if len(body) == 0 {
		body = []byte("{}")
	}
	o.members = o.few[:0]
	if o.scan(body) {
		o.Text = body
		return true
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	text, err := appendCanonical(nil, d, 0)
	if err != nil || text[0] != '{' {
		return false
	}
	if _, err := d.Token(); err != io.EOF {
		return false
	}
	o.Text = text
	var members map[string]json.RawMessage
	if json.Unmarshal(text, &members) != nil {
		return false
	}
	o.members = o.few[:0]
	for name, value := range members {
		o.members = append(o.members, member{[]byte(name), value})
	}
	return true
}

// Clone returns a copy that may be used when o is reused. It shares Text.
func (o *Object) Clone() Object {
	clone := *o
	clone.members = slices.Clone(o.members)
	return clone
}

// Field returns the member of that name as text: a string, an integer, true or
// false. It returns false for any other value, and if there is none. Names are
// compared as encoding/json compares them when it fills a struct.
func (o *Object) Field(name string) (string, bool) {
	for _, m := range o.members {
		if !strings.EqualFold(string(m.name), name) {
			continue
		}
		switch c := m.value[0]; {
		case c == '"' && simpleString(m.value) == len(m.value):
			return string(m.value[1 : len(m.value)-1]), true
		case c == '"':
			var s string
			err := json.Unmarshal(m.value, &s)
			return s, err == nil
		case c == 't' || c == 'f' || integer(m.value):
			return string(m.value), true
		}
		return "", false // null, a composite, or a number with more than one spelling
	}
	return "", false
}

// integer reports whether b is an integer with only one spelling.
func integer(b []byte) bool {
	b, negative := bytes.CutPrefix(b, []byte("-"))
	return !(negative && string(b) == "0") && len(b) > 0 && len(b) < 20 && !bytes.ContainsFunc(b, func(r rune) bool { return r < '0' || r > '9' }) && (b[0] != '0' || len(b) == 1)
}

const (
	// maxScanned bounds the members that scan compares with each other.
	maxScanned = 32
	// maxDepth bounds the nesting, because the contents of an object are copied
	// once for each object around it.
	maxDepth = 100
)

var (
	errDeep      = errors.New("objects and arrays are nested too deeply")
	errAmbiguous = errors.New("names of members differ only in case")
)

// scan recognizes what most calls send: a flat object of simple strings,
// integers and booleans that is in canonical form already.
func (o *Object) scan(b []byte) bool {
	if len(b) < 2 || b[0] != '{' || b[len(b)-1] != '}' {
		return false
	}
	for b = b[1:]; len(b) > 1; {
		if b[0] != '"' {
			return false
		}
		end := simpleString(b)
		if end < 0 || end+1 >= len(b) || b[end] != ':' {
			return false
		}
		name, rest := b[1:end-1], b[end+1:]
		length := simpleValue(rest)
		if length <= 0 || length >= len(rest) {
			return false
		}
		if len(o.members) == maxScanned {
			return false
		}
		if n := len(o.members); n > 0 && bytes.Compare(o.members[n-1].name, name) >= 0 {
			return false
		}
		for _, m := range o.members {
			if strings.EqualFold(string(m.name), string(name)) {
				return false
			}
		}
		o.members = append(o.members, member{name, rest[:length]})
		switch b = rest[length:]; {
		case len(b) == 1:
			return b[0] == '}'
		case b[0] != ',':
			return false
		}
		b = b[1:]
	}
	return len(o.members) == 0 && len(b) == 1
}

// simpleString returns the length of the string that b begins with, quotes
// included. It returns -1 for a string that may have another spelling.
func simpleString(b []byte) int {
	for i := 1; i < len(b); i++ {
		switch c := b[i]; {
		case c == '"':
			return i + 1
		case c < ' ' || c > '~' || c == '\\' || c == '<' || c == '>' || c == '&':
			return -1
		}
	}
	return -1
}

// simpleValue is simpleString for strings, integers and booleans.
func simpleValue(b []byte) int {
	if len(b) == 0 {
		return -1
	}
	if b[0] == '"' {
		return simpleString(b)
	}
	end := bytes.IndexAny(b, ",}")
	if end < 0 {
		return -1
	}
	if v := b[:end]; string(v) == "true" || string(v) == "false" || integer(v) {
		return end
	}
	return -1
}

// appendCanonical appends the canonical form of the next value of d.
func appendCanonical(b []byte, d *json.Decoder, depth int) ([]byte, error) {
	if depth > maxDepth {
		return nil, errDeep
	}
	token, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch token {
	case json.Delim('{'):
		return appendObject(b, d, depth)
	case json.Delim('['):
		b = append(b, '[')
		for i := 0; d.More(); i++ {
			if i > 0 {
				b = append(b, ',')
			}
			if b, err = appendCanonical(b, d, depth+1); err != nil {
				return nil, err
			}
		}
		_, err = d.Token()
		return append(b, ']'), err
	}
	value, err := json.Marshal(token)
	return append(b, value...), err
}

func appendObject(b []byte, d *json.Decoder, depth int) ([]byte, error) {
	type pair struct {
		folded, name string
		value        []byte
	}
	var pairs []pair
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, err
		}
		value, err := appendCanonical(nil, d, depth+1)
		if err != nil {
			return nil, err
		}
		text, _ := name.(string)
		pairs = append(pairs, pair{fold(text), text, value})
	}
	slices.SortFunc(pairs, func(a, b pair) int { return strings.Compare(a.folded, b.folded) })
	for i := 1; i < len(pairs); i++ {
		if pairs[i].folded == pairs[i-1].folded {
			return nil, errAmbiguous
		}
	}
	slices.SortFunc(pairs, func(a, b pair) int { return strings.Compare(a.name, b.name) })
	b = append(b, '{')
	for i, p := range pairs {
		if i > 0 {
			b = append(b, ',')
		}
		name, err := json.Marshal(p.name)
		if err != nil {
			return nil, err
		}
		b = append(append(append(b, name...), ':'), p.value...)
	}
	_, err := d.Token()
	return append(b, '}'), err
}

// fold maps names that encoding/json takes for the same to one name. It takes the
// smallest rune of each case orbit, as strings.EqualFold does.
func fold(name string) string {
	return strings.Map(func(r rune) rune {
		for {
			next := unicode.SimpleFold(r)
			if next <= r {
				return next
			}
			r = next
		}
	}, name)
}
