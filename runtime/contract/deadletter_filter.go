package contract

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"
)

// DeadLetterFilter selects dead letters. A letter must satisfy every field that is
// set; the zero value selects all letters.
type DeadLetterFilter struct {
	IDs    []string          // one of these ids
	Codes  []Code            // one of these codes
	Error  string            // part of the error, ignoring case
	Key    string            // the routing key, or a pattern such as "order.#"
	Before time.Time         // the last failure was before this time
	After  time.Time         // the last failure was after this time
	Fields []DeadLetterField // all of these fields match
}

// Empty reports whether f selects all letters.
func (f *DeadLetterFilter) Empty() bool {
	return len(f.IDs) == 0 && len(f.Codes) == 0 && f.Error == "" && f.Key == "" &&
		f.Before.IsZero() && f.After.IsZero() && len(f.Fields) == 0
}

// Matches reports whether f selects l.
func (f *DeadLetterFilter) Matches(l *DeadLetter) bool {
	switch {
	case len(f.IDs) > 0 && !slices.Contains(f.IDs, l.Event.ID),
		len(f.Codes) > 0 && !slices.Contains(f.Codes, l.Code),
		f.Error != "" && !strings.Contains(strings.ToLower(l.Error), strings.ToLower(f.Error)),
		f.Key != "" && !Match(f.Key, l.Event.Key),
		!f.Before.IsZero() && !l.Last.Before(f.Before),
		!f.After.IsZero() && !l.Last.After(f.After):
		return false
	}
	if len(f.Fields) == 0 {
		return true
	}
	d := json.NewDecoder(bytes.NewReader(l.Event.Body))
	d.UseNumber()
	var body any
	if d.Decode(&body) != nil {
		return false
	}
	return !slices.ContainsFunc(f.Fields, func(field DeadLetterField) bool { return !field.fits(body) })
}

// DeadLetterField selects letters by one value in their JSON body.
type DeadLetterField struct {
	path  []string
	value string
}

// ParseDeadLetterField reads "customer.id=42" or, as a JSON pointer (RFC 6901),
// "/customer/id=42". Items of arrays are counted from 0. The value is compared
// with a string, a number, true, false or null.
func ParseDeadLetterField(s string) (DeadLetterField, error) {
	path, value, ok := strings.Cut(s, "=")
	if !ok || path == "" || path == "/" {
		return DeadLetterField{}, fmt.Errorf("field %q: write it as customer.id=42", s)
	}
	f := DeadLetterField{path: strings.Split(path, "."), value: value}
	if pointer, ok := strings.CutPrefix(path, "/"); ok {
		f.path = strings.Split(pointer, "/")
		for i, name := range f.path {
			f.path[i] = strings.NewReplacer("~1", "/", "~0", "~").Replace(name)
		}
	}
	return f, nil
}

func (f DeadLetterField) fits(v any) bool {
	for _, name := range f.path {
		switch inner := v.(type) {
		case map[string]any:
			member, ok := inner[name]
			if !ok {
				return false
			}
			v = member
		case []any:
			i, err := strconv.Atoi(name)
			if err != nil || i < 0 || i >= len(inner) {
				return false
			}
			v = inner[i]
		default:
			return false
		}
	}
	switch v := v.(type) {
	case string:
		return v == f.value
	case json.Number:
		return v.String() == f.value || sameNumber(v.String(), f.value)
	case bool:
		return strconv.FormatBool(v) == f.value
	case nil:
		return f.value == "null"
	}
	return false
}

// sameNumber compares decimals exactly: 1.50 equals 1.5, but two ids that differ
// only beyond the 53 bits of a float64 are not equal.
func sameNumber(a, b string) bool {
	const longest = 40 // a huge exponent would take too long
	if len(a) > longest || len(b) > longest || strings.ContainsAny(a+b, "eE/") {
		return false
	}
	x, okX := new(big.Rat).SetString(a)
	y, okY := new(big.Rat).SetString(b)
	return okX && okY && x.Cmp(y) == 0
}
