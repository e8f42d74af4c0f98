package ingress

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// part is one member of a message under construction: text of a parameter or
// a header field, or a raw value out of the body.
type part struct {
	name string
	text string
	raw  []byte // from the body; nil for text
	kind kind
	list bool // text is one item of an array
	from source
}

// source is where a part's text comes from.
type source byte

const (
	fromQuery source = iota
	fromPath
	fromHeader
)

// message makes the bytes that the function gets of path, query, header fields
// and body. A body that nothing needs to be merged with passes through as it is; otherwise
// the members are written in the order of their names, so that equal requests
// make equal bytes.
func (x *exchange) message(f *function, params []string) ([]byte, *problem) {
	body, p := x.body(&f.input)
	if p != nil {
		return nil, p
	}
	r := x.request
	if len(params) == 0 && len(f.input.headers) == 0 && r.URL.RawQuery == "" {
		if body == nil {
			return []byte("{}"), nil
		}
		return body, nil
	}
	var room [8]part // most messages need no more
	parts := room[:0]
	for _, name := range params {
		parts = append(parts, part{name: name, text: r.PathValue(name), from: fromPath})
	}
	for _, name := range f.input.headers {
		if values := r.Header[f.input.members[name].header]; len(values) > 0 {
			parts = append(parts, part{name: name, text: strings.Join(values, ", "), from: fromHeader})
		}
	}
	if parts, p = queryParts(parts, r.URL.RawQuery); p != nil {
		return nil, p
	}
	mistakes := check(parts, &f.input)
	if body != nil && len(mistakes) == 0 {
		if !startsObject(body) {
			return nil, unfit(contract.FieldError{Detail: "want an object"})
		}
		parts, mistakes = merge(parts, body, &f.input)
	}
	if len(mistakes) > 0 {
		return nil, unfit(mistakes...)
	}
	slices.SortStableFunc(parts, func(a, b part) int { return strings.Compare(a.name, b.name) })
	return render(parts), nil
}

// queryParts appends the parameters of a query.
func queryParts(parts []part, query string) ([]part, *problem) {
	for query != "" {
		var pair string
		if pair, query, _ = strings.Cut(query, "&"); pair == "" {
			continue
		}
		name, text, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(name)
		if err == nil {
			text, err = url.QueryUnescape(text)
		}
		if err != nil {
			return nil, refuse(http.StatusBadRequest, "the query is not well formed: %v", err)
		}
		parts = append(parts, part{name: name, text: text})
	}
	return parts, nil
}

// check gives each parameter its kind and says which do not fit.
func check(parts []part, input *shape) (mistakes []contract.FieldError) {
	wrong := func(name, detail string) {
		mistakes = append(mistakes, contract.FieldError{Pointer: pointer(name), Detail: detail})
	}
	query := slices.IndexFunc(parts, func(p part) bool { return p.from == fromQuery }) // where it begins
	for n := range parts {
		p := &parts[n]
		m, known := input.member(p.name)
		if !known && input.headerOf(p.name) == "" {
			wrong(p.name, "there is no such field")
			continue
		}
		p.kind = m.kind
		if m.kind == kindArray {
			p.kind, p.list = m.item, true
		}
		others := parts[:n]
		if p.list && p.from == fromQuery {
			others = parts[:query] // the query may say it as often as there are items
		}
		twice := slices.ContainsFunc(others, func(o part) bool { return strings.EqualFold(o.name, p.name) })
		if header := input.headerOf(p.name); header != "" && p.from != fromHeader {
			wrong(p.name, notFrom(header))
		} else if m.sensitive && p.from == fromQuery {
			wrong(p.name, "it is sensitive, and URLs are logged everywhere: send it in the body")
		} else if twice {
			wrong(p.name, "it is given more than once")
		} else if !utf8.ValidString(p.text) {
			wrong(p.name, "it is not UTF-8")
		} else if detail := p.kind.mistake(p.text); detail != "" {
			wrong(p.name, detail)
		}
	}
	return mistakes
}

// notFrom says that only a header field fills a member: it is what caches go
// by, and what proxies check.
func notFrom(header string) string { return "it comes from the header field " + header + " only" }

// merge adds the members of body, a valid JSON object. Names are compared as
// encoding/json does, without regard to case: a body must not slip another
// value in for what the path or a header field says.
func merge(parts []part, body []byte, input *shape) (merged []part, mistakes []contract.FieldError) {
	var room [8]part
	given := room[:0] // one of each name: a list has many, and so may the body
	for _, p := range parts {
		if !p.list || !slices.ContainsFunc(given, func(o part) bool { return o.name == p.name }) {
			given = append(given, p)
		}
	}
	for name, raw := range members(body) {
		if header := input.headerOf(name); header != "" {
			mistakes = append(mistakes, contract.FieldError{Pointer: pointer(name), Detail: notFrom(header)})
			continue
		}
		n := slices.IndexFunc(given, func(p part) bool { return strings.EqualFold(p.name, name) })
		switch {
		case n < 0:
			parts = append(parts, part{name: name, raw: raw})
		case !given[n].same(raw):
			where := "the query"
			if given[n].from == fromPath {
				where = "the path"
			}
			mistakes = append(mistakes, contract.FieldError{Pointer: pointer(name), Detail: "the body says otherwise than " + where})
		}
	}
	return parts, mistakes
}

// same reports whether raw is the parameter's value.
func (p *part) same(raw []byte) bool {
	if p.list {
		return false
	}
	if p.kind != kindString {
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
		if p.list && n > 0 && parts[n-1].list && parts[n-1].name == p.name {
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
	if p.kind == kindString {
		return appendString(b, p.text)
	}
	return append(b, p.text...)
}

// appendString appends s as a JSON string.
func appendString(b []byte, s string) []byte {
	for n := range len(s) {
		if c := s[n]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			quoted, err := json.Marshal(s)
			if err != nil { // never: every string can be encoded
				panic(err)
			}
			return append(b, quoted...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}

// startsObject reports whether valid JSON is an object.
func startsObject(body []byte) bool {
	body = bytes.TrimLeft(body, " \t\r\n")
	return len(body) > 0 && body[0] == '{'
}

var pointerEscapes = strings.NewReplacer("~", "~0", "/", "~1")

// pointer is the JSON pointer (RFC 6901) to a member of the message.
func pointer(name string) string { return "/" + pointerEscapes.Replace(limited(name)) }
