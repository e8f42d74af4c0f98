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
	p := &project{root: root, declared: map[string]string{}, events: map[string]string{}}
	for line := range strings.Lines(mod) {
		if path, ok := strings.CutPrefix(line, "module "); ok {
			p.module = strings.Trim(strings.TrimSpace(path), `"`)
		}
	}
	if err := eachFile(filepath.Join(root, "functions"), p.addDeclared); err != nil {
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

// addDeclared notes what f declares at its top level.
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

// addEvents notes the types of f whose method RoutingKey returns a literal.
func (p *project) addEvents(_ string, f *ast.File) {
	for _, d := range f.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok || fn.Name.Name != "RoutingKey" || fn.Recv == nil || fn.Body == nil || len(fn.Body.List) != 1 {
			continue
		}
		receiver, ok := fn.Recv.List[0].Type.(*ast.Ident)
		if !ok {
			continue
		}
		result, ok := fn.Body.List[0].(*ast.ReturnStmt)
		if !ok || len(result.Results) != 1 {
			continue
		}
		if literal, ok := result.Results[0].(*ast.BasicLit); ok {
			if key, err := strconv.Unquote(literal.Value); err == nil {
				p.events[key] = receiver.Name
			}
		}
	}
}
