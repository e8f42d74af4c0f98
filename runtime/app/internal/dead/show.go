package dead

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"unicode/utf8"

	"github.com/rabbet-fn/rabbet/runtime/app/internal/config"
	"github.com/rabbet-fn/rabbet/runtime/app/internal/terminal"
	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// showCommand is 'rabbet dead show'.
type showCommand struct {
	IDs      []string `arg:"" name:"id" help:"Ids of letters: 'rabbet dead list --ids' shows them."`
	Function []string `short:"f" placeholder:"NAME" help:"Of this function; of all by default."`
	Reveal   bool     `help:"Show sensitive fields as well."`
}

// Run prints the letters on standard output.
func (cmd showCommand) Run(ctx context.Context, c *config.Config, known []contract.Descriptor) error {
	return withConsole(ctx, c, known, &selection{IDs: cmd.IDs, Function: cmd.Function}, cmd.run)
}

func (cmd showCommand) run(ctx context.Context, d *console) error {
	sel := &selection{IDs: cmd.IDs, Function: cmd.Function}
	found := map[string]bool{}
	_, err := d.find(ctx, sel, func(l *contract.DeadLetter) (contract.DeadLetterAction, error) {
		if len(found) > 0 {
			fmt.Fprintln(d.out)
		}
		found[l.Event.ID] = true
		return contract.ActionKeep, d.show(l, cmd.Reveal)
	})
	return cmp.Or(err, sel.missing(found))
}

func (d *console) show(l *contract.DeadLetter, reveal bool) error {
	e := &l.Event
	w := tabwriter.NewWriter(d.out, 0, 0, 2, ' ', 0)
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%s\t%s\n", name, terminal.Printable(value))
		}
	}
	row("id", e.ID)
	row("function", l.Function)
	row("key", e.Key)
	row("exchange", e.Exchange)
	row("content type", e.ContentType)
	row("type", e.Type)
	if !e.Time.IsZero() {
		row("published", moment(e.Time))
	}
	row("correlation", e.Correlation)
	row("causation", e.Causation)
	row("traceparent", e.Trace.Parent)
	row("tracestate", e.Trace.State)
	row("baggage", e.Trace.Baggage)
	row("reason", string(l.Code))
	row("error", strings.TrimPrefix(l.Error, string(l.Code)+": "))
	row("attempts", attempts(l))
	row("first failure", moment(l.First))
	row("last failure", moment(l.Last))
	row("worker", l.Worker)
	if err := w.Flush(); err != nil {
		return err
	}
	if len(e.Headers) > 0 {
		fmt.Fprintln(d.out, "headers")
		for _, name := range slices.Sorted(maps.Keys(e.Headers)) {
			fmt.Fprintf(d.out, "  %s: %s\n", terminal.Printable(name), terminal.Printable(fmt.Sprint(e.Headers[name])))
		}
	}
	err := d.showBody(l, d.body(l, reveal))
	if l.Stack != "" {
		fmt.Fprintf(d.out, "stack\n%s\n", indented(terminal.Printable(l.Stack)))
	}
	return err
}

// maxDump is how many bytes of a body that is not text are shown.
const maxDump = 512

func (d *console) showBody(l *contract.DeadLetter, body []byte) error {
	_, err := fmt.Fprintf(d.out, "body (%d bytes)\n", len(l.Event.Body))
	var pretty bytes.Buffer
	switch {
	case len(body) == 0:
	case json.Indent(&pretty, body, "  ", "  ") == nil:
		_, err = fmt.Fprintf(d.out, "  %s\n", terminal.Printable(pretty.String()))
	case isText(body):
		_, err = fmt.Fprintln(d.out, indented(terminal.Printable(string(body))))
	default:
		dump := hex.Dumper(d.out)
		if _, err = dump.Write(body[:min(len(body), maxDump)]); err == nil {
			err = dump.Close()
		}
		if len(body) > maxDump {
			_, err = io.WriteString(d.out, "…\n")
		}
	}
	if err == nil && !bytes.Equal(body, l.Event.Body) && bytes.Contains(body, []byte(contract.Redacted)) {
		why := "some of it is sensitive"
		if d.descriptor(l.Function) == nil {
			why = "no worker hosts the function any more, so it is unknown which fields are sensitive"
		}
		fmt.Fprintf(d.notes, "%s: --reveal shows all\n", why)
	}
	return err
}

func isText(b []byte) bool { return utf8.Valid(b) && !bytes.ContainsRune(b, 0) }

func indented(s string) string {
	return "  " + strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n  ")
}
