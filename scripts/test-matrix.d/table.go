package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"
)

// row is the tests of one file.
type row struct {
	name  string
	tests map[string]bool
}

// readRows finds out which file of the package holds which tests.
func readRows(dir string) ([]row, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		return nil, err
	}
	var rows []row
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		name := strings.TrimSuffix(filepath.Base(file), "_test.go")
		r := row{strings.ReplaceAll(name, "_", " "), map[string]bool{}}
		for _, d := range parsed.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && strings.HasPrefix(fn.Name.Name, "Test") && fn.Name.Name != "TestMain" {
				r.tests[fn.Name.Name] = true
			}
		}
		if len(r.tests) > 0 {
			rows = append(rows, r)
		}
	}
	return rows, nil
}

// cell says what came of the row's tests.
func (r row) cell(of result) string {
	passed, failed := 0, 0
	for test, outcome := range of.outcome {
		top, _, _ := strings.Cut(test, "/")
		switch {
		case !r.tests[top]:
		case outcome == "pass":
			passed++
		case outcome == "fail":
			failed++
		}
	}
	switch {
	case failed > 0:
		return fmt.Sprintf("%d FAILED of %d", failed, passed+failed)
	case passed > 0:
		return fmt.Sprintf("%d passed", passed)
	}
	return "-"
}

func printTable(to io.Writer, rows []row, columns []column, results []result) {
	w := tabwriter.NewWriter(to, 0, 0, 3, ' ', 0)
	defer w.Flush()
	fmt.Fprint(w, "RabbitMQ")
	for _, c := range columns {
		fmt.Fprint(w, "\t", c.label)
	}
	for _, r := range rows {
		fmt.Fprintf(w, "\n%s", r.name)
		for _, of := range results {
			fmt.Fprint(w, "\t", r.cell(of))
		}
	}
	fmt.Fprint(w, "\ntime")
	for _, of := range results {
		fmt.Fprint(w, "\t", of.took.Round(time.Second))
	}
	fmt.Fprintln(w)
}
