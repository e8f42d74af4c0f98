package faas

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// Option says more about a function than its message does. The options are what
// HTTP, Cached, Once … return, and the values Retry and CachePolicy.
type Option interface{ FunctionOption() }

type settings struct {
	keys        []string
	exchange    string
	route       string
	status      int
	cache       *CachePolicy
	retry       *Retry // nil: the set's
	once        *contract.OncePolicy
	timeout     time.Duration
	concurrency int
	ordered     bool
	idempotent  bool
	version     string
	session     bool
	also        []any // reactionTo[D]
	reactions   []contract.Reaction
}

type optionFunc func(*settings)

// FunctionOption implements Option.
func (optionFunc) FunctionOption() {}

// apply takes the options into s.
func (s *settings) apply(options []Option) error {
	for _, option := range options {
		switch o := option.(type) {
		case optionFunc:
			o(s)
		case Retry:
			s.retry = &o
		case CachePolicy:
			s.cache = cacheOption(o)
		default:
			return fmt.Errorf("%T is no option of package faas", option)
		}
	}
	return nil
}

// HTTP gives a request function a route of its own, written as for
// net/http.ServeMux with a method: "GET /profiles/{id}". A path parameter fills
// the message's field of that JSON name; so does a query parameter; the rest
// comes from the JSON body.
func HTTP(route string) Option { return optionFunc(func(s *settings) { s.route = route }) }

// Status is the HTTP status of a success; 200 by default, 204 for a function
// that returns struct{}.
func Status(code int) Option { return optionFunc(func(s *settings) { s.status = code }) }

// Timeout bounds one run; 30 s by default. A caller may ask for less.
func Timeout(d time.Duration) Option { return optionFunc(func(s *settings) { s.timeout = d }) }

// Concurrency is how many runs a worker has at once at the most: 128 by
// default for a request function, 16 for an event function.
func Concurrency(n int) Option { return optionFunc(func(s *settings) { s.concurrency = n }) }

// Keys are the routing keys or topic patterns ("order.#") that an event
// function reacts to, in place of its message's own.
func Keys(keys ...string) Option {
	return optionFunc(func(s *settings) { s.keys = append([]string(nil), keys...) })
}

// Exchange lets an event function listen on another topic exchange than the
// namespace's own. It is declared if missing and used as it stands otherwise.
func Exchange(name string) Option { return optionFunc(func(s *settings) { s.exchange = name }) }

// Ordered runs an event function on one event at a time over all workers, in
// the order in which the events were published. An event that fails holds back
// those behind it until it succeeds or its attempts (20 at most) are used up.
// Its waits are 15 minutes at most, and a worker that stops ends them.
func Ordered() Option { return optionFunc(func(s *settings) { s.ordered = true }) }

// Idempotent says that running the function twice does no more than running it
// once, so that a call survives the death of its worker. GET, HEAD, PUT and
// DELETE routes imply it.
func Idempotent() Option { return optionFunc(func(s *settings) { s.idempotent = true }) }

// Version names the version of the results; cached results of other versions
// are not used. By default it follows the types of the message and the reply.
func Version(v string) Option { return optionFunc(func(s *settings) { s.version = v }) }

// UsesSession lets a request function read and change the session of the client
// that calls it over HTTP, see Session. Its results are never cached.
func UsesSession() Option { return optionFunc(func(s *settings) { s.session = true }) }

var (
	routePattern = regexp.MustCompile(`^(GET|HEAD|POST|PUT|PATCH|DELETE) (/\S*)$`)
	routeParam   = regexp.MustCompile(`\{([^{}]*)\}`)
)

// reserved are the paths that the ingress keeps for itself.
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
	defer func() { // ServeMux alone knows its whole grammar, and panics on what does not fit it
		if p := recover(); p != nil {
			r, err = nil, fmt.Errorf("route %q: %v", route, p)
		}
	}()
	http.NewServeMux().Handle(route, http.NotFoundHandler())
	return r, nil
}

// paramsOf returns the names of the path's parameters.
func paramsOf(r *contract.Route) []string {
	var names []string
	for _, m := range routeParam.FindAllStringSubmatch(r.Path, -1) {
		if name := strings.TrimSuffix(m[1], "..."); name != "" && name != "$" {
			names = append(names, name)
		}
	}
	return names
}

// parameter is what the schema says about whether a URL can carry a member.
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

// fits reports whether p is a scalar or a list of scalars, as the ingress makes
// of parameters.
func (p *parameter) fits() bool { return !p.structured() || p.Items != nil && !p.Items.structured() }

// checkParameters says which field the route's path names in vain, and which
// required one a request to the route has no place for.
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

// routesClash asks ServeMux whether one request could mean both routes with
// neither being the more specific.
func routesClash(a, b *contract.Route) (clash bool) {
	defer func() { clash = recover() != nil }()
	mux := http.NewServeMux()
	mux.Handle(a.Method+" "+a.Path, http.NotFoundHandler())
	mux.Handle(b.Method+" "+b.Path, http.NotFoundHandler())
	return false
}

func idempotentMethod(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPut, http.MethodDelete:
		return true
	}
	return false
}
