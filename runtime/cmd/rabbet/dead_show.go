package main

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
	"unicode"
	"unicode/utf8"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// deadShowCommand shows all of some letters.
type deadShowCommand struct {
	IDs      []string `arg:"" name:"id" help:"Ids of letters: 'rabbet dead list --ids' shows them."`
	Function []string `short:"f" placeholder:"NAME" help:"Of this function; of all by default."`
	Reveal   bool     `help:"Show sensitive fields as well."`
}

// Run prints the letters on standard output.
func (cmd deadShowCommand) Run(ctx context.Context, c *config) error {
	return atDesk(ctx, c, &deadChoice{IDs: cmd.IDs, Function: cmd.Function}, cmd.run)
}

func (cmd deadShowCommand) run(ctx context.Context, d *desk) error {
	choice := &deadChoice{IDs: cmd.IDs, Function: cmd.Function}
	found := map[string]bool{}
	_, err := d.find(ctx, choice, func(l *contract.DeadLetter) (contract.DeadLetterAction, error) {
		if len(found) > 0 {
			fmt.Fprintln(d.out)
		}
		found[l.Event.ID] = true
		return contract.ActionKeep, d.show(l, cmd.Reveal)
	})
	return cmp.Or(err, choice.missing(found))
}

func (d *desk) show(l *contract.DeadLetter, reveal bool) error {
	e := &l.Event
	w := tabwriter.NewWriter(d.out, 0, 0, 2, ' ', 0)
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%s\t%s\n", name, printable(value))
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
			fmt.Fprintf(d.out, "  %s: %s\n", printable(name), printable(fmt.Sprint(e.Headers[name])))
		}
	}
	err := d.showBody(l, d.body(l, reveal))
	if l.Stack != "" {
		fmt.Fprintf(d.out, "stack\n%s\n", indented(printable(l.Stack)))
	}
	return err
}

// maxDump is how many bytes of a body that is no text are shown.
const maxDump = 512

func (d *desk) showBody(l *contract.DeadLetter, body []byte) error {
	_, err := fmt.Fprintf(d.out, "body (%d bytes)\n", len(l.Event.Body))
	var pretty bytes.Buffer
	switch {
	case len(body) == 0:
	case json.Indent(&pretty, body, "  ", "  ") == nil:
		_, err = fmt.Fprintf(d.out, "  %s\n", printable(pretty.String()))
	case isText(body):
		_, err = fmt.Fprintln(d.out, indented(printable(string(body))))
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
			why = "nobody knows the function any more, and so what of it is sensitive"
		}
		fmt.Fprintf(d.notes, "%s: --reveal shows all\n", why)
	}
	return err
}

func isText(b []byte) bool { return utf8.Valid(b) && !bytes.ContainsRune(b, 0) }

func indented(s string) string {
	return "  " + strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n  ")
}

// printable keeps what a publisher has written from steering the terminal.
func printable(s string) string {
	if !strings.ContainsFunc(s, steers) && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], string(utf8.RuneError)):
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case steers(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

func steers(r rune) bool {
	return unicode.IsControl(r) && r != '\n' && r != '\t' || unicode.Is(unicode.Bidi_Control, r)
}
