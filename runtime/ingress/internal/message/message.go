// Package message makes the message of a call from the parts of its request:
// parameters of path and query, header fields and the JSON body. It knows as
// much of the function's input schema as that takes; the worker checks the
// message itself.
package message

import (
	"bytes"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/access"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/problem"
)

// Build returns the message for r. body is valid JSON, or nil; params are the
// names of the path's parameters.
//
// A body that nothing is merged with is returned unchanged. Otherwise the members
// are written in the order of their names, so that equal requests make equal
// messages.
func Build(r *http.Request, body []byte, params []string, schema *Schema) ([]byte, *problem.Problem) {
	if body != nil && schema.object && !isObject(body) {
		return nil, notAnObject()
	}
	if len(params) == 0 && len(schema.headers) == 0 && r.URL.RawQuery == "" {
		if body == nil {
			return []byte("{}"), nil
		}
		return body, nil
	}
	var buffer [8]part // most messages need no more
	parts := buffer[:0]
	for _, name := range params {
		parts = append(parts, part{name: name, text: r.PathValue(name), from: fromPath})
	}
	for _, name := range schema.headers {
		if values := r.Header[schema.fields[name].Header]; len(values) > 0 {
			parts = append(parts, part{name: name, text: strings.Join(values, ", "), from: fromHeader})
		}
	}
	parts, p := appendQuery(parts, r.URL.RawQuery)
	if p != nil {
		return nil, p
	}
	mistakes := check(parts, schema)
	if body != nil && len(mistakes) == 0 {
		if !isObject(body) {
			return nil, notAnObject()
		}
		parts, mistakes = appendBody(parts, body, schema)
	}
	if len(mistakes) > 0 {
		return nil, problem.Invalid(mistakes...)
	}
	slices.SortStableFunc(parts, func(a, b part) int { return strings.Compare(a.name, b.name) })
	return render(parts), nil
}

// isObject reports whether valid JSON is an object.
func isObject(body []byte) bool {
	body = bytes.TrimLeft(body, " \t\r\n")
	return len(body) > 0 && body[0] == '{'
}

func notAnObject() *problem.Problem {
	return problem.Invalid(contract.FieldError{Detail: "want an object"})
}

// part is one member of a message under construction: text of a parameter or a
// header field, or a raw value from the body.
type part struct {
	name string
	text string
	raw  []byte // from the body; nil for text
	kind Kind
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

// appendQuery appends the parameters of a query.
func appendQuery(parts []part, query string) ([]part, *problem.Problem) {
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
			return nil, problem.New(http.StatusBadRequest, "the query is not well formed: %v", err)
		}
		parts = append(parts, part{name: name, text: text})
	}
	return parts, nil
}

// check sets the kind of each parameter and returns which ones do not fit.
func check(parts []part, schema *Schema) (mistakes []contract.FieldError) {
	wrong := func(name, detail string) {
		mistakes = append(mistakes, contract.FieldError{Pointer: Pointer(name), Detail: detail})
	}
	query := slices.IndexFunc(parts, func(p part) bool { return p.from == fromQuery }) // where it begins
	for n := range parts {
		p := &parts[n]
		field, known := schema.field(p.name)
		header := schema.headerOf(p.name)
		if !known && header == "" {
			wrong(p.name, "there is no such field")
			continue
		}
		p.kind = field.Kind
		if field.Kind == Array {
			p.kind, p.list = field.Item, true
		}
		others := parts[:n]
		if p.list && p.from == fromQuery {
			others = parts[:query] // the query may repeat it, once for each item
		}
		twice := slices.ContainsFunc(others, func(o part) bool { return strings.EqualFold(o.name, p.name) })
		if header != "" && p.from != fromHeader {
			wrong(p.name, onlyFrom(header))
		} else if field.Sensitive && p.from == fromQuery {
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

// onlyFrom is the mistake of a member that must come from a header field: caches
// and proxies look there.
func onlyFrom(header string) string { return "it comes from the header field " + header + " only" }

var pointerEscapes = strings.NewReplacer("~", "~0", "/", "~1")

// Pointer returns the JSON pointer (RFC 6901) to a member of the message.
func Pointer(name string) string { return "/" + pointerEscapes.Replace(access.Clip(name)) }

// PathParams returns the names of the parameters of a route's path, in order.
func PathParams(path string) []string {
	var names []string
	for segment := range strings.SplitSeq(path, "/") {
		name, found := strings.CutPrefix(segment, "{")
		if name = strings.TrimSuffix(strings.TrimSuffix(name, "}"), "..."); found && name != "$" {
			names = append(names, name)
		}
	}
	return names
}
