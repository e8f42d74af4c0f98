package scaffold

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"go/build"
	"go/token"
	"io"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/rabbet-fn/rabbet/runtime/app/internal/terminal"
	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/faas"
)

// functionCommand is 'rabbet new function NAME'.
type functionCommand struct {
	Name    string `arg:"" help:"Name of the function, such as send-invoice."`
	Event   string `xor:"kind" required:"" placeholder:"KEY" help:"It handles events with this routing key, such as order.placed, or those that match a pattern such as order.#."`
	Request string `xor:"kind" required:"" placeholder:"ROUTE" help:"It answers this HTTP route, such as \"GET /invoices/{id}\"."`
}

// A function is what the templates of a function need.
type function struct {
	Name    string // send-invoice
	Func    string // sendInvoice
	Export  string // SendInvoice
	Module  string
	Key     string // routing key, or pattern
	Pattern bool   // Key is a pattern
	Known   bool   // package events has a type for Key
	Type    string // of the event
	Route   string
	Fields  []field // the parameters of Route
}

type field struct{ Go, JSON string }

// Run writes the function and its test.
func (cmd functionCommand) Run() error {
	p, err := openProject()
	if err != nil {
		return err
	}
	fn, err := cmd.function(p)
	if err != nil {
		return terminal.Usage(err)
	}
	base := strings.ReplaceAll(fn.Name, "-", "_")
	kind := "event"
	if fn.Route != "" {
		kind = "request"
	}
	source, err := render("function/"+kind+".go.tmpl", "functions/"+base+".go", fn)
	if err != nil {
		return err
	}
	test, err := render("function/"+kind+"_test.go.tmpl", "functions/"+base+"_test.go", fn)
	if err != nil {
		return err
	}
	files := []file{source, test}
	if err := cmp.Or(checkNew(p.root, files), p.check(fn)); err != nil {
		return err
	}
	if err := writeAll(p.root, files); err != nil {
		return err
	}
	fmt.Printf("Wrote %s and %s.\n", filepath.Join(p.root, source.name), filepath.Join(p.root, test.name))
	return nil
}

// function derives everything from the command line, and checks it.
func (cmd functionCommand) function(p *project) (*function, error) {
	fn := &function{Name: cmd.Name, Module: p.module, Route: cmd.Request, Key: cmd.Event}
	if err := fn.checkRegistration(); err != nil {
		return nil, err
	}
	fn.Func, fn.Export = camel(cmd.Name), strings.ToUpper(camel(cmd.Name)[:1])+camel(cmd.Name)[1:]
	if token.IsKeyword(fn.Func) || fn.Func == "init" || fn.Func == "main" {
		return nil, fmt.Errorf("function %q: Go keeps this name for itself; choose a longer one, such as %s-order", cmd.Name, cmd.Name)
	}
	if err := checkFileName(strings.ReplaceAll(cmd.Name, "-", "_") + ".go"); err != nil {
		return nil, err
	}
	if cmd.Request != "" {
		fn.Key = keyOf(cmd.Name)
		return fn, fn.addFields()
	}
	fn.Pattern = strings.ContainsAny(fn.Key, "*#")
	known, ok := p.events[fn.Key]
	switch {
	case fn.Pattern:
		fn.Type = "faas.Event"
	case ok:
		fn.Known, fn.Type = true, "events."+known
	default:
		fn.Type = fn.Func + "Event"
	}
	return fn, nil
}

// checkRegistration registers the function in an empty set, for the rules of package
// faas on names, keys and routes.
func (fn *function) checkRegistration() error {
	var set faas.Set[struct{}]
	if fn.Route != "" {
		// The parameters need fields, which this message has not.
		path := strings.NewReplacer("{", "", "}", "").Replace(fn.Route)
		faas.OnRequest(&set, fn.Name, func(context.Context, *struct{}, anyMessage) (string, error) { return "", nil }, faas.HTTP(path))
	} else {
		faas.OnEvent(&set, fn.Name, func(context.Context, *struct{}, contract.Event) error { return nil }, faas.Keys(fn.Key))
	}
	if err := set.Err(); err != nil {
		_, reason, _ := strings.Cut(err.Error(), ": ") // what is before it is a line of this file
		return errors.New(reason)
	}
	return nil
}

type anyMessage struct{}

func (anyMessage) RoutingKey() string { return "any" }

// checkFileName refuses a name that Go leaves out of some builds, for its ending.
func checkFileName(name string) error {
	nowhere := build.Default
	nowhere.GOOS, nowhere.GOARCH = "nowhere", "none"
	nowhere.OpenFile = func(string) (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader("package functions\n")), nil
	}
	if built, err := nowhere.MatchFile(".", name); err != nil || !built || strings.HasSuffix(name, "_test.go") {
		return fmt.Errorf("the file %s: Go leaves it out of some builds, for the ending of its name (_linux, _js, _test …): choose a name that ends otherwise", name)
	}
	return nil
}

var parameter = regexp.MustCompile(`\{([^{}]*)\}`)

// addFields adds a field for each parameter of the route's path.
func (fn *function) addFields() (err error) {
	defer func() { // only ServeMux knows its whole grammar, and it panics
		if p := recover(); p != nil {
			err = fmt.Errorf("route %q: %v", fn.Route, p)
		}
	}()
	http.NewServeMux().Handle(fn.Route, http.NotFoundHandler())
	for _, m := range parameter.FindAllStringSubmatch(fn.Route, -1) {
		name := strings.TrimSuffix(m[1], "...")
		if name != "" && name != "$" {
			fn.Fields = append(fn.Fields, field{exported(name), name})
		}
	}
	return nil
}

// check reports what fn would have in common with a function of p.
func (p *project) check(fn *function) error {
	for _, name := range []string{fn.Func, fn.Func + "Request", fn.Func + "Reply", fn.Func + "Event", "Test" + fn.Export} {
		if f, ok := p.declared[name]; ok {
			return fmt.Errorf("functions/%s declares %s already: choose another name for the function", f, name)
		}
	}
	if fn.Route == "" {
		return nil
	}
	if f, ok := p.keys[fn.Key]; ok {
		return fmt.Errorf("%s has a message with the routing key %s already: choose another name for the function", f, fn.Key)
	}
	for route, f := range p.routes {
		if conflict(route, fn.Route) {
			return fmt.Errorf("functions/%s has the route %q already, which conflicts with %q: choose another route", f, route, fn.Route)
		}
	}
	return nil
}

// conflict reports whether a ServeMux cannot have both routes.
func conflict(a, b string) (yes bool) {
	defer func() { yes = recover() != nil }()
	mux := http.NewServeMux()
	mux.Handle(a, http.NotFoundHandler())
	mux.Handle(b, http.NotFoundHandler())
	return false
}

// keyOf derives a routing key from a name: get-invoice has invoice.get.
func keyOf(name string) string {
	verb, object, ok := strings.Cut(name, "-")
	if !ok {
		return name + ".call"
	}
	return object + "." + verb
}

// camel turns send-invoice into sendInvoice.
func camel(name string) string {
	words := strings.Split(name, "-")
	for i, w := range words[1:] {
		words[i+1] = strings.ToUpper(w[:1]) + w[1:]
	}
	return strings.Join(words, "")
}

// exported turns order_id into OrderID.
func exported(name string) string {
	var b strings.Builder
	for word := range strings.SplitSeq(name, "_") {
		switch word {
		case "":
		case "id", "url":
			b.WriteString(strings.ToUpper(word))
		default:
			b.WriteString(strings.ToUpper(word[:1]) + word[1:])
		}
	}
	return b.String()
}
