// Package openapi makes the OpenAPI 3.1 document of the request functions that an
// ingress serves.
package openapi

import (
	"cmp"
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/message"
)

// Function is a request function to describe.
type Function struct {
	*contract.Descriptor
	Routed bool // it is served at its own route
	Cached bool // its results are cached
}

// Document returns the document of the functions. A function stands under its own
// route. It stands under its name if it has no route, or one that OpenAPI cannot
// tell from another's. cookie is the name of the cookie that holds a session.
func Document(functions []Function, cookie string) []byte {
	d := document{paths: map[string]object{}, byShape: map[string]string{}}
	functions = slices.Clone(functions)
	slices.SortStableFunc(functions, func(a, b Function) int { return cmp.Compare(openEnds(a.Route), openEnds(b.Route)) })
	for _, f := range functions {
		if f.Routed && d.add(f, f.Route) {
			continue
		}
		byName := contract.Route{Method: http.MethodPost, Path: "/functions/" + f.Name}
		if f.Route != nil {
			byName.Status = f.Route.Status
		}
		d.add(f, &byName)
	}
	b, err := json.Marshal(object{
		"openapi": "3.1.0",
		"info":    object{"title": "Rabbet functions", "version": "1"},
		"paths":   d.paths,
		"components": object{
			"schemas": object{"Problem": problemSchema},
			"responses": object{"Problem": object{
				"description": "Why it did not work (RFC 9457)",
				"content":     object{"application/problem+json": object{"schema": object{"$ref": "#/components/schemas/Problem"}}},
			}},
			"securitySchemes": object{"session": object{
				"type": "apiKey", "in": "cookie", "name": cookie, "description": "The client's session; the response sets it",
			}},
		},
	})
	if err != nil { // cannot happen: a descriptor whose schema is not JSON cannot be decoded
		panic(err)
	}
	return append(b, '\n')
}

// openEnds sorts routes to which others are exceptions last.
func openEnds(r *contract.Route) int {
	if r != nil && (strings.HasSuffix(r.Path, "...}") || strings.HasSuffix(r.Path, "/")) {
		return 1
	}
	return 0
}

// object is a JSON object under construction.
type object map[string]any

type document struct {
	paths   map[string]object // operations by method, by path
	byShape map[string]string // paths by what is left of them without the names of their parameters
}

var parameterName = regexp.MustCompile(`{[^}]*}`)

// add adds the operation of f at that route. It returns false if the document has
// another one there.
func (d *document) add(f Function, route *contract.Route) bool {
	path := strings.NewReplacer("...}", "}", "{$}", "").Replace(route.Path)
	shape := parameterName.ReplaceAllString(path, "{}")
	if d.byShape[shape] == "" {
		d.byShape[shape], d.paths[path] = path, object{}
	}
	path = d.byShape[shape]
	method := strings.ToLower(route.Method)
	if d.paths[path][method] != nil {
		return false
	}
	d.paths[path][method] = operation(f.Descriptor, route, message.PathParams(path), f.Cached)
	return true
}
