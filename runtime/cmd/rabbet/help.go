package main

import (
	"fmt"
	"iter"
	"os"
	"reflect"
	"text/tabwriter"
)

// helpCommand prints what does not fit into --help.
type helpCommand struct {
	Topic string `arg:"" enum:"env" help:"What to tell about: env."`
}

// Run prints the environment variables with their defaults.
func (helpCommand) Run() error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	for v := range variables() {
		fallback := ""
		if v.fallback != "" {
			fallback = " [" + v.fallback + "]"
		}
		fmt.Fprintf(w, "%s\t%s%s\n", v.name, v.doc, fallback)
	}
	return w.Flush()
}

// variable is one environment variable.
type variable struct {
	name, field, fallback, doc, form string
}

func (v variable) value() string { return os.Getenv(v.name) }

// variables yields every variable that config reads.
func variables() iter.Seq[variable] {
	return func(yield func(variable) bool) {
		for _, f := range reflect.VisibleFields(reflect.TypeFor[config]()) {
			v := variable{
				name: envPrefix + f.Tag.Get("env"), field: f.Name,
				fallback: f.Tag.Get("envDefault"), doc: f.Tag.Get("doc"), form: forms[f.Type],
			}
			if !yield(v) {
				return
			}
		}
	}
}
