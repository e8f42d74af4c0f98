package faas

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strings"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

var (
	routePattern = regexp.MustCompile(`^(GET|HEAD|POST|PUT|PATCH|DELETE) (/\S*)$`)
	routeParam   = regexp.MustCompile(`\{([^{}]*)\}`)
)

// reserved are the paths that the ingress serves itself.
var reserved = []string{"/functions", "/events", "/invocations", "/livez", "/readyz", "/openapi.json", "/asyncapi.json", "/docs"}

func parseRoute(route string, status int) (r *contract.Route, err error) {
	m := routePattern.FindStringSubmatch(route)
	if m == nil {
		return nil, fmt.Errorf(`route %q: write a method and a path, such as "GET /profiles/{id}"`, route)
	}
	if status < 200 || status > 299 {
		return nil, fmt.Errorf("status %d of a success: choose 200 to 299", status)
	}
	r = &contract.Route{Method: m[1], Path: m[2], Status: status}
	for _, p := range reserved {
		if r.Path == p || strings.HasPrefix(r.Path, p+"/") {
			return nil, fmt.Errorf("route %q: the ingress keeps %s for itself", route, p)
		}
	}
	defer func() { // ServeMux panics on a pattern that it does not accept
		if p := recover(); p != nil {
			r, err = nil, fmt.Errorf("route %q: %v", route, p)
		}
	}()
	http.NewServeMux().Handle(route, http.NotFoundHandler())
	return r, nil
}

// paramsOf returns the names of the path parameters.
func paramsOf(r *contract.Route) []string {
	var names []string
	for _, m := range routeParam.FindAllStringSubmatch(r.Path, -1) {
		if name := strings.TrimSuffix(m[1], "..."); name != "" && name != "$" {
			names = append(names, name)
		}
	}
	return names
}

// parameter is the part of a property that says whether a URL can carry it.
type parameter struct {
	Type   any        `json:"type"` // a name or several
	Items  *parameter `json:"items"`
	Header string     `json:"x-header"`
}

// structured reports whether p is an object or a list.
func (p *parameter) structured() bool {
	types := fmt.Sprint(p.Type)
	return strings.Contains(types, "object") || strings.Contains(types, "array")
}

// fits reports whether p is a scalar or a list of scalars, which is what a URL can
// carry.
func (p *parameter) fits() bool { return !p.structured() || p.Items != nil && !p.Items.structured() }

// checkParameters reports path parameters that fill no field, and required fields
// that a request to the route cannot carry.
func checkParameters(d *contract.Descriptor) error {
	var input struct {
		Properties map[string]*parameter `json:"properties"`
		Required   []string              `json:"required"`
	}
	if err := json.Unmarshal(d.Input, &input); err != nil {
		return err
	}
	params := paramsOf(d.Route)
	for _, name := range params {
		switch p := input.Properties[name]; {
		case p == nil:
			return fmt.Errorf("route %q: the message has no exported field with the JSON name %q", d.Route.Path, name)
		case p.Header != "":
			return fmt.Errorf("route %q: the field %q comes from the header field %s already", d.Route.Path, name, p.Header)
		case !p.fits():
			return fmt.Errorf("route %q: the field %q is no text or number, which is all that a path can carry", d.Route.Path, name)
		}
	}
	if hasBody(d.Route.Method) {
		return nil
	}
	for _, name := range input.Required {
		if p := input.Properties[name]; p.Header == "" && !p.fits() {
			return fmt.Errorf("route %q: the field %q is required and no query can carry it, only a body, which a %s request does not have: use POST, or make the field optional (omitempty)",
				d.Route.Path, name, d.Route.Method)
		}
	}
	return nil
}

// routesClash reports whether ServeMux refuses to have both routes: some request
// matches both, and neither is more specific.
func routesClash(a, b *contract.Route) (clash bool) {
	defer func() { clash = recover() != nil }()
	mux := http.NewServeMux()
	mux.Handle(a.Method+" "+a.Path, http.NotFoundHandler())
	mux.Handle(b.Method+" "+b.Path, http.NotFoundHandler())
	return false
}

func readOnlyMethod(method string) bool { return method == http.MethodGet || method == http.MethodHead }

// idempotentMethod follows RFC 9110, section 9.2.2.
func idempotentMethod(method string) bool {
	return readOnlyMethod(method) || method == http.MethodPut || method == http.MethodDelete
}
