package app

import (
	"fmt"
	"iter"
	"os"
	"text/tabwriter"

	"github.com/rabbet-fn/rabbet/runtime/app/internal/config"
)

// helpCommand prints what is too long for --help.
type helpCommand struct {
	Topic string `arg:"" enum:"env" help:"What to tell about: env."`
}

// Run prints the environment variables with their defaults.
func (helpCommand) Run(p *program) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	printVariables(w, config.Variables(config.Config{}, config.Prefix))
	if p.settings != nil {
		printVariables(w, config.Variables(p.settings, ""))
	}
	return w.Flush()
}

func printVariables(w *tabwriter.Writer, variables iter.Seq[config.Variable]) {
	for v := range variables {
		value := ""
		if v.Default != "" {
			value = " [" + v.Default + "]"
		}
		fmt.Fprintf(w, "%s\t%s%s\n", v.Name, v.Doc, value)
	}
}
