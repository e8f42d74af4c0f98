package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/faas"
)

// deadListCommand counts dead letters, or lists them one by one.
type deadListCommand struct {
	deadChoice `embed:""`
	OneByOne   bool `name:"ids" help:"List the letters one by one, with their ids."`
	JSON       bool `help:"Print JSON."`
}

// Run prints a table on standard output.
func (cmd deadListCommand) Run(ctx context.Context, c *config) error {
	return atDesk(ctx, c, &cmd.deadChoice, cmd.run)
}

func (cmd deadListCommand) run(ctx context.Context, d *desk) error {
	var groups faas.DeadGroups
	var list []faas.DeadLetter
	found := map[string]bool{}
	counts, err := d.find(ctx, &cmd.deadChoice, func(l *faas.DeadLetter) (faas.Fate, error) {
		found[l.Event.ID] = true
		if cmd.OneByOne || len(cmd.IDs) > 0 {
			l.Event.Body = nil // thousands need not be in memory
			list = append(list, *l)
		}
		groups.Add(l)
		return faas.Keep, nil
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

func (d *desk) tableOfGroups(groups []faas.DeadGroup) error {
	w := tabwriter.NewWriter(d.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "FUNCTION\tLETTERS\tFIRST\tLAST\tERROR")
	for _, g := range groups {
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\n", g.Function, g.Count, moment(g.First), moment(g.Last), line(g.Error))
	}
	return w.Flush()
}

func (d *desk) tableOfLetters(list []faas.DeadLetter) error {
	w := tabwriter.NewWriter(d.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tFUNCTION\tKEY\tATTEMPTS\tLAST\tERROR")
	for _, l := range list {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", line(l.Event.ID), l.Function, line(l.Event.Key), attempts(&l), moment(l.Last), line(l.Error))
	}
	return w.Flush()
}

func (d *desk) printJSON(v any) error {
	out := json.NewEncoder(d.out)
	out.SetEscapeHTML(false)
	out.SetIndent("", "  ")
	return out.Encode(v)
}

func attempts(l *faas.DeadLetter) string {
	if l.Event.Attempt == 0 {
		return "?"
	}
	return fmt.Sprint(l.Event.Attempt)
}

func moment(t time.Time) string {
	if t.IsZero() {
		return "?"
	}
	return t.Local().Format(time.DateTime)
}

// maxLine is how many characters of an error a table shows.
const maxLine = 120

// line is s fit for a row of a table.
func line(s string) string {
	s = printable(strings.Join(strings.Fields(s), " "))
	if r := []rune(s); len(r) > maxLine {
		return string(r[:maxLine-1]) + "…"
	}
	return s
}
