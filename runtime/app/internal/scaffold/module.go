package scaffold

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// A project is a module with a folder of functions, as 'rabbet new' writes it.
type project struct {
	root     string
	module   string            // its path
	declared map[string]string // the file that declares each name of package functions
	events   map[string]string // the type in package events for each routing key
	keys     map[string]string // the file of a message type for each routing key
	routes   map[string]string // the file of a function for each HTTP route
}

// openProject finds the project around the working directory.
func openProject() (*project, error) {
	dir, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	for {
		if mod, err := os.ReadFile(filepath.Join(dir, "go.mod")); err == nil {
			return readProject(dir, string(mod))
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return nil, errors.New("there is no go.mod in this folder or above it: go to a project, or make one with 'rabbet new shop'")
		}
		dir = parent
	}
}

func readProject(root, mod string) (*project, error) {
	p := &project{root: root, declared: map[string]string{}, events: map[string]string{}, keys: map[string]string{}, routes: map[string]string{}}
	for line := range strings.Lines(mod) {
		if path, ok := strings.CutPrefix(line, "module "); ok {
			p.module = strings.Trim(strings.TrimSpace(path), `"`)
		}
	}
	if err := eachFile(filepath.Join(root, "functions"), p.addFunctions); err != nil {
		return nil, err
	}
	if p.declared["All"] == "" || p.declared["Deps"] == "" {
		return nil, fmt.Errorf("%s has no package functions with All and Deps: go to a project, or make one with 'rabbet new shop'", root)
	}
	return p, eachFile(filepath.Join(root, "events"), p.addEvents)
}

// eachFile parses the Go files in dir. A dir that does not exist has none.
func eachFile(dir string, add func(name string, f *ast.File)) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return err
	}
	for _, path := range files {
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return fmt.Errorf("%w: correct it first", err)
		}
		add(filepath.Base(path), f)
	}
	return nil
}

// addFunctions notes what a file of package functions declares.
func (p *project) addFunctions(name string, f *ast.File) {
	p.addDeclared(name, f)
	for key := range routingKeys(f) {
		p.keys[key] = "functions/" + name
	}
	ast.Inspect(f, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || len(call.Args) != 1 {
			return true
		}
		if fn, ok := call.Fun.(*ast.SelectorExpr); ok && fn.Sel.Name == "HTTP" {
			if route, ok := literal(call.Args[0]); ok {
				p.routes[route] = name
			}
		}
		return true
	})
}

// addEvents notes the message types of a file of package events.
func (p *project) addEvents(name string, f *ast.File) {
	for key, typ := range routingKeys(f) {
		p.events[key], p.keys[key] = typ, "events/"+name
	}
}

// addDeclared notes the names that f declares at its top level.
func (p *project) addDeclared(name string, f *ast.File) {
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Recv == nil {
				p.declared[d.Name.Name] = name
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch spec := spec.(type) {
				case *ast.TypeSpec:
					p.declared[spec.Name.Name] = name
				case *ast.ValueSpec:
					for _, ident := range spec.Names {
						p.declared[ident.Name] = name
					}
				}
			}
		}
	}
}

// routingKeys returns the types of f whose method RoutingKey returns a literal, by that
// literal.
func routingKeys(f *ast.File) map[string]string {
	types := map[string]string{}
	for _, d := range f.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok || fn.Name.Name != "RoutingKey" || fn.Recv == nil || fn.Body == nil || len(fn.Body.List) != 1 {
			continue
		}
		receiver, isIdent := fn.Recv.List[0].Type.(*ast.Ident)
		result, isReturn := fn.Body.List[0].(*ast.ReturnStmt)
		if !isIdent || !isReturn || len(result.Results) != 1 {
			continue
		}
		if key, ok := literal(result.Results[0]); ok {
			types[key] = receiver.Name
		}
	}
	return types
}

// literal returns the value of a string literal.
func literal(e ast.Expr) (string, bool) {
	l, ok := e.(*ast.BasicLit)
	if !ok || l.Kind != token.STRING {
		return "", false
	}
	value, err := strconv.Unquote(l.Value)
	return value, err == nil
}
