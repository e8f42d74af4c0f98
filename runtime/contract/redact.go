package contract

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
)

// Redacted replaces sensitive values.
const Redacted = "[redacted]"

const redactedJSON = `"` + Redacted + `"`

// Redact returns body, a JSON value, with everything that the JSON Schema marks as
// sensitive replaced by Redacted, and without insignificant white space. If the
// schema marks nothing, Redact returns body itself. If it marks something and body
// is not JSON, all of body is replaced.
func Redact(schema json.RawMessage, body []byte) []byte {
	marks := marksOf(schema)
	if !marks.any() {
		return body
	}
	if !json.Valid(body) {
		return []byte(redactedJSON)
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	return marks.appendRedacted(make([]byte, 0, len(body)), d)
}

// appendRedacted appends the next value of d, which must be valid JSON.
func (m *marks) appendRedacted(b []byte, d *json.Decoder) []byte {
	token, _ := d.Token()
	opening, _ := token.(json.Delim)
	if m != nil && m.Sensitive || token != nil && !m.fits(opening) {
		skip(d, token)
		return append(b, redactedJSON...)
	}
	switch token {
	case json.Delim('{'):
		b = append(b, '{')
		for first := true; d.More(); first = false {
			if !first {
				b = append(b, ',')
			}
			name, _ := d.Token()
			text, _ := name.(string)
			b = append(appendJSON(b, text), ':')
			b = m.member(text).appendRedacted(b, d)
		}
		_, _ = d.Token()
		return append(b, '}')
	case json.Delim('['):
		b = append(b, '[')
		for first := true; d.More(); first = false {
			if !first {
				b = append(b, ',')
			}
			b = m.items().appendRedacted(b, d)
		}
		_, _ = d.Token()
		return append(b, ']')
	}
	return appendJSON(b, token)
}

// skip reads the rest of the value that begins with token.
func skip(d *json.Decoder, token json.Token) {
	for depth := 0; ; token, _ = d.Token() {
		switch token {
		case json.Delim('{'), json.Delim('['):
			depth++
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if depth == 0 {
			return
		}
	}
}

// appendJSON appends a token without escapes for HTML.
func appendJSON(b []byte, token json.Token) []byte {
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	_ = e.Encode(token) // never fails: a token is a scalar
	return append(b, bytes.TrimSuffix(text.Bytes(), []byte("\n"))...)
}

// withoutSecrets returns err with the values of the sensitive fields of the message
// removed from its texts. errors.Is works as before.
func withoutSecrets(err error, schema json.RawMessage, body []byte) error {
	var v any
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	if d.Decode(&v) != nil {
		return err // an error about a body that is not JSON quotes at most one byte of it
	}
	found := marksOf(schema).secrets(v, false, nil)
	slices.SortStableFunc(found, func(a, b string) int { return len(b) - len(a) }) // longest first: one may contain another
	var pairs []string
	for _, secret := range found {
		pairs = append(pairs, secret, Redacted)
	}
	if len(pairs) == 0 {
		return err
	}
	clean := strings.NewReplacer(pairs...).Replace
	e, declared := errors.AsType[*Error](err)
	if !declared {
		return &cleanError{clean(err.Error()), err}
	}
	own := *e
	own.Detail = clean(own.Detail)
	own.Fields = slices.Clone(own.Fields)
	for i, f := range own.Fields {
		own.Fields[i] = FieldError{Pointer: clean(f.Pointer), Detail: clean(f.Detail)}
	}
	if own.Cause != nil {
		own.Cause = &cleanError{clean(own.Cause.Error()), own.Cause}
	}
	return &own
}

// cleanError is an error whose text has been cleaned. It has no Unwrap method,
// which would give access to the original text.
type cleanError struct {
	text string
	err  error
}

func (e *cleanError) Error() string        { return e.text }
func (e *cleanError) Is(target error) bool { return errors.Is(e.err, target) }

// secrets appends the sensitive scalars of v, in each form in which an error may
// quote them. It omits values of one or two bytes: replacing them would make the
// rest of the text unreadable.
func (m *marks) secrets(v any, sensitive bool, found []string) []string {
	var opening json.Delim
	switch v.(type) {
	case map[string]any:
		opening = '{'
	case []any:
		opening = '['
	}
	sensitive = sensitive || m != nil && m.Sensitive || !m.fits(opening)
	switch v := v.(type) {
	case map[string]any:
		for name, member := range v {
			found = m.member(name).secrets(member, sensitive, found)
		}
	case []any:
		for _, item := range v {
			found = m.items().secrets(item, sensitive, found)
		}
	case json.Number:
		if sensitive && len(v) > 2 {
			found = append(found, v.String())
		}
	case string:
		if sensitive && len(v) > 2 {
			found = append(found, v)
			marshaled, _ := json.Marshal(v) // every string can be
			for _, quoted := range []string{strconv.Quote(v), string(appendJSON(nil, v)), string(marshaled)} {
				found = append(found, quoted[1:len(quoted)-1])
			}
		}
	}
	return found
}
