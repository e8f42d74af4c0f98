package ingress

import (
	"cmp"
	"encoding/json"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// object is a JSON object under construction.
type object map[string]any

// openAPI serves GET /openapi.json: the request functions that are known now.
func (x *exchange) openAPI(t *routes) {
	x.set("Content-Type", "application/json")
	x.set("Cache-Control", "no-cache")
	x.write(http.StatusOK, t.openAPI())
}

// describe makes the OpenAPI 3.1 document of the functions in list. A function
// stands under its own route, and under its name if it has none, or one that
// OpenAPI cannot tell from another's; cookie is the name of the one that holds a
// session.
func (t *routes) describe(list []contract.Live, cookie string) []byte {
	paths := map[string]object{}
	known := map[string]string{} // paths by what is left of them without the names of their parameters
	add := func(d *contract.Descriptor, route *contract.Route) bool {
		path := strings.NewReplacer("...}", "}", "{$}", "").Replace(route.Path)
		bare := parameterName.ReplaceAllString(path, "{}")
		if known[bare] == "" {
			known[bare], paths[path] = path, object{}
		}
		path = known[bare]
		method := strings.ToLower(route.Method)
		if paths[path][method] != nil {
			return false
		}
		paths[path][method] = operation(d, route, pathParams(path), t.functions[d.Name].cached)
		return true
	}
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b contract.Live) int { return cmp.Compare(openEnds(a.Route), openEnds(b.Route)) })
	for n := range list {
		d := &list[n].Descriptor
		if d.Kind != contract.KindRequest || t.own[d.Name] != "" && add(d, d.Route) {
			continue
		}
		byName := contract.Route{Method: http.MethodPost, Path: "/functions/" + d.Name}
		if d.Route != nil {
			byName.Status = d.Route.Status
		}
		add(d, &byName)
	}
	b, err := json.Marshal(object{
		"openapi": "3.1.0",
		"info":    object{"title": "Rabbet functions", "version": "1"},
		"paths":   paths,
		"components": object{
			"schemas": object{"Problem": problemSchema},
			"responses": object{"Problem": object{
				"description": "Why it did not work (RFC 9457)",
				"content":     object{"application/problem+json": object{"schema": object{"$ref": "#/components/schemas/Problem"}}},
			}},
			"securitySchemes": object{"session": object{
				"type": "apiKey", "in": "cookie", "name": cookie, "description": "The client's session; the answer sets it",
			}},
		},
	})
	if err != nil { // a worker announced a schema that is not JSON: it would not have been decoded
		panic(err)
	}
	return append(b, '\n')
}

var parameterName = regexp.MustCompile(`{[^}]*}`)

// openEnds puts the routes that others are exceptions from last.
func openEnds(r *contract.Route) int {
	if r != nil && (strings.HasSuffix(r.Path, "...}") || strings.HasSuffix(r.Path, "/")) {
		return 1
	}
	return 0
}

var problemSchema = object{
	"type":     "object",
	"required": []string{"type", "title", "status", "callId", "executed", "retryable"},
	"properties": object{
		"type":      object{"type": "string", "format": "uri-reference"},
		"title":     object{"type": "string"},
		"status":    object{"type": "integer"},
		"detail":    object{"type": "string"},
		"instance":  object{"type": "string"},
		"function":  object{"type": "string"},
		"callId":    object{"type": "string"},
		"attempt":   object{"type": "integer"},
		"executed":  object{"enum": []string{"yes", "no", "unknown"}},
		"retryable": object{"type": "boolean"},
		"errors": object{"type": "array", "items": object{
			"type":       "object",
			"properties": object{"pointer": object{"type": "string"}, "detail": object{"type": "string"}},
		}},
	},
}

// operation describes one function. Its message is spread over the path, the
// header fields and the body, or the query where there is no body. names are what
// the path's parameters are called in the document.
func operation(d *contract.Descriptor, route *contract.Route, names []string, cached bool) object {
	status := cmp.Or(route.Status, http.StatusOK)
	success := object{"description": "What the function answers"}
	if status != http.StatusNoContent {
		success["content"] = jsonContent(d.Output)
	}
	responses := object{strconv.Itoa(status): success, "default": object{"$ref": "#/components/responses/Problem"}}
	if cached {
		success["headers"] = cachedHeaders
		if route.Method == http.MethodGet && status == http.StatusOK {
			responses["304"] = object{"description": "What If-None-Match names is still what the function answers", "headers": cachedHeaders}
		}
	}
	op := object{"operationId": d.Name, "responses": responses}
	if d.Session {
		op["security"] = []object{{"session": []string{}}, {}} // {}: or without, which begins a session
	}
	params := pathParams(route.Path)
	var input schemaNode
	if json.Unmarshal(d.Input, &input) != nil || input.Properties == nil {
		if hasBody(route.Method) {
			op["requestBody"] = object{"required": kindOf(input.Type) != kindObject, "content": jsonContent(d.Input)}
		}
		return op
	}
	parameters := []object{}
	for i, name := range params {
		parameters = append(parameters, parameter(names[i], "path", true, input.Properties[name]))
	}
	rest := maps.Clone(input.Properties)
	for _, name := range params {
		delete(rest, name)
	}
	for _, name := range slices.Sorted(maps.Keys(rest)) {
		if header := memberOf(rest[name]).header; header != "" {
			parameters = append(parameters, parameter(header, "header", slices.Contains(input.Required, name), rest[name]))
			delete(rest, name)
		}
	}
	required := slices.DeleteFunc(slices.Clone(input.Required), func(name string) bool { return rest[name] == nil })
	if hasBody(route.Method) && len(rest) > 0 {
		body := object{"type": "object", "properties": rest}
		if len(required) > 0 {
			body["required"] = required
		}
		if input.AdditionalProperties != nil {
			body["additionalProperties"] = input.AdditionalProperties
		}
		op["requestBody"] = object{"required": len(required) > 0, "content": object{"application/json": object{"schema": body}}}
	} else {
		for _, name := range slices.Sorted(maps.Keys(rest)) {
			if !memberOf(rest[name]).isParameter() {
				continue // it can be left out, or faas.HTTP would have refused the route
			}
			parameters = append(parameters, parameter(name, "query", slices.Contains(required, name), rest[name]))
		}
	}
	if len(parameters) > 0 {
		op["parameters"] = parameters
	}
	return op
}

// cachedHeaders are what the response of a cached function has.
var cachedHeaders = object{
	"ETag":         object{"description": "Names this very answer, for If-None-Match (RFC 9110)", "schema": object{"type": "string"}},
	"Age":          object{"description": "Seconds since the function ran, where the answer was stored (RFC 9111)", "schema": object{"type": "integer"}},
	"Cache-Status": object{"description": "What the cache did (RFC 9211)", "schema": object{"type": "string"}},
}

func hasBody(method string) bool {
	return method == http.MethodPost || method == http.MethodPut || method == http.MethodPatch
}

func parameter(name, in string, required bool, schema json.RawMessage) object {
	p := object{"name": name, "in": in, "schema": orAnything(schema)}
	if required {
		p["required"] = true
	}
	var s schemaNode
	if json.Unmarshal(schema, &s) == nil && s.Description != "" {
		p["description"] = s.Description
	}
	return p
}

func jsonContent(schema json.RawMessage) object {
	return object{"application/json": object{"schema": orAnything(schema)}}
}

func orAnything(schema json.RawMessage) json.RawMessage {
	if len(schema) == 0 {
		return json.RawMessage("{}")
	}
	return schema
}
