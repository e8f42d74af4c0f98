package openapi

import (
	"cmp"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strconv"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/message"
)

// operation describes one function. Its message is distributed over the path, the
// header fields and the body, or the query if the method has no body. names are
// the names of the path's parameters in the document.
func operation(d *contract.Descriptor, route *contract.Route, names []string, cached bool) object {
	status := cmp.Or(route.Status, http.StatusOK)
	success := object{"description": "The result of the function"}
	if status != http.StatusNoContent {
		success["content"] = jsonContent(d.Output)
	}
	responses := object{strconv.Itoa(status): success, "default": object{"$ref": "#/components/responses/Problem"}}
	if cached {
		success["headers"] = cachedHeaders
		if route.Method == http.MethodGet && status == http.StatusOK {
			responses["304"] = object{"description": "The result is still the one that If-None-Match names", "headers": cachedHeaders}
		}
	}
	op := object{"operationId": d.Name, "responses": responses}
	if d.Session {
		op["security"] = []object{{"session": []string{}}, {}} // {}: a request without a session begins one
	}
	params := message.PathParams(route.Path)
	var input message.Node
	if json.Unmarshal(d.Input, &input) != nil || input.Properties == nil {
		if hasBody(route.Method) {
			op["requestBody"] = object{"required": message.KindOf(input.Type) != message.Object, "content": jsonContent(d.Input)}
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
		if header := message.ParseField(rest[name]).Header; header != "" {
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
			if !message.ParseField(rest[name]).IsParameter() {
				continue // it is optional, or faas.HTTP would have refused the route
			}
			parameters = append(parameters, parameter(name, "query", slices.Contains(required, name), rest[name]))
		}
	}
	if len(parameters) > 0 {
		op["parameters"] = parameters
	}
	return op
}

// cachedHeaders are header fields of the responses of cached functions.
var cachedHeaders = object{
	"ETag":         object{"description": "Names this result, for If-None-Match (RFC 9110)", "schema": object{"type": "string"}},
	"Age":          object{"description": "Seconds since the function ran, if the result was stored (RFC 9111)", "schema": object{"type": "integer"}},
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
	var s message.Node
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
