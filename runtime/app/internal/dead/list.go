package dead

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/rabbet-fn/rabbet/runtime/app/internal/config"
	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// listCommand is 'rabbet dead list'.
type listCommand struct {
	selection `embed:""`
	OneByOne  bool `name:"ids" help:"List the letters one by one, with their ids."`
	JSON      bool `help:"Print JSON."`
}

// Run prints a table on standard output.
func (cmd listCommand) Run(ctx context.Context, c *config.Config, known []contract.Descriptor) error {
	return withConsole(ctx, c, known, &cmd.selection, cmd.run)
}

func (cmd listCommand) run(ctx context.Context, d *console) error {
	var groups contract.DeadLetterGroups
	var list []contract.DeadLetter
	found := map[string]bool{}
	counts, err := d.find(ctx, &cmd.selection, func(l *contract.DeadLetter) (contract.DeadLetterAction, error) {
		found[l.Event.ID] = true
		if cmd.OneByOne || len(cmd.IDs) > 0 {
			l.Event.Body = nil // there may be thousands
			list = append(list, *l)
		}
		groups.Add(l)
		return contract.ActionKeep, nil
	})
	if err != nil {
		return err
	}
	if err := cmd.missing(found); err != nil {
		return err
	}
	switch {
	case cmd.JSON && list != nil:
		return d.printJSON(recordsOf(list))
	case cmd.JSON:
		return d.printJSON(groups.List())
	case total(counts) == 0:
		fmt.Fprintln(d.notes, "no dead letters")
		return nil
	case list != nil:
		return d.tableOfLetters(list)
	}
	return d.tableOfGroups(groups.List())
}

func (d *console) printJSON(v any) error {
	out := json.NewEncoder(d.out)
	out.SetEscapeHTML(false)
	out.SetIndent("", "  ")
	return out.Encode(v)
}
