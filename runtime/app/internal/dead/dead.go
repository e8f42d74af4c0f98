// Package dead holds the commands that list, show, replay, edit, discard and export
// dead letters.
package dead

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/rabbet-fn/rabbet/runtime/app/internal/config"
	"github.com/rabbet-fn/rabbet/runtime/app/internal/services"
	"github.com/rabbet-fn/rabbet/runtime/app/internal/terminal"
	"github.com/rabbet-fn/rabbet/runtime/faas"
)

// Command is 'rabbet dead'.
type Command struct {
	List    listCommand    `cmd:"" help:"Count dead letters by function and error, or list them one by one."`
	Show    showCommand    `cmd:"" help:"Show all of a dead letter."`
	Replay  replayCommand  `cmd:"" help:"Send dead letters to their functions again, starting at the first attempt."`
	Edit    editCommand    `cmd:"" help:"Change the body of a dead letter, and replay it."`
	Discard discardCommand `cmd:"" help:"Remove dead letters for good."`
	Export  exportCommand  `cmd:"" help:"Write dead letters as JSON Lines."`
}

// A selection chooses dead letters: those that match all of it.
type selection struct {
	IDs      []string `arg:"" optional:"" name:"id" help:"Ids of letters."`
	Function []string `short:"f" placeholder:"NAME" help:"Of this function; may be repeated. Of all by default."`
	Code     []string `placeholder:"CODE" help:"With this reason, such as exhausted or invalid; may be repeated."`
	Error    string   `placeholder:"TEXT" help:"With this text in the error."`
	Key      string   `placeholder:"PATTERN" help:"With this routing key, or one that matches a pattern such as order.#."`
	Older    age      `placeholder:"AGE" help:"Whose last failure is older than this, such as 36h or 7d."`
	Newer    age      `placeholder:"AGE" help:"Whose last failure is newer than this."`
	Field    []string `sep:"none" placeholder:"PATH=VALUE" help:"With this value in the JSON body, such as customer.id=42; may be repeated."`
	Limit    int      `placeholder:"N" help:"At most this many, the oldest of each function first."`
}

func (c *selection) filter(now time.Time) (faas.DeadFilter, error) {
	f := faas.DeadFilter{IDs: c.IDs, Error: c.Error, Key: c.Key}
	for _, code := range c.Code {
		f.Codes = append(f.Codes, faas.Code(code))
	}
	if c.Older > 0 {
		f.Before = now.Add(-time.Duration(c.Older))
	}
	if c.Newer > 0 {
		f.After = now.Add(-time.Duration(c.Newer))
	}
	for _, s := range c.Field {
		field, err := faas.ParseDeadField(s)
		if err != nil {
			return f, terminal.Usage(err)
		}
		f.Fields = append(f.Fields, field)
	}
	if c.Limit < 0 {
		return f, terminal.Usage(fmt.Errorf("--limit %d: choose 1 or more", c.Limit))
	}
	return f, nil
}

// age is a duration that may be given in days.
type age time.Duration

// UnmarshalText reads "36h" and "7d".
func (a *age) UnmarshalText(text []byte) error {
	s := string(text)
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseFloat(days, 64)
		if err != nil || n <= 0 || n > 36_500 {
			return fmt.Errorf("%q is not an age: write it as 90m, 36h or 7d", s)
		}
		*a = age(n * 24 * float64(time.Hour))
		return nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return fmt.Errorf("%q is not an age: write it as 90m, 36h or 7d", s)
	}
	*a = age(d)
	return nil
}

// A console is what a command works with: the broker, and the terminal.
type console struct {
	broker interface {
		faas.DeadLetters
		Directory() *faas.Directory
		Health() error
	}
	known []faas.Descriptor // the functions of this binary, live or not
	in    io.Reader
	out   io.Writer
	notes io.Writer // for what is not the result: questions, progress

	progress bool // notes is a terminal, and may show progress
	columns  int  // of the terminal that out is; 0 when it is none
}

// withConsole checks sel, connects to the broker, and runs fn with a console on the
// terminal of this process.
func withConsole(ctx context.Context, c *config.Config, known []faas.Descriptor, sel *selection, fn func(context.Context, *console) error) error {
	if _, err := sel.filter(time.Now()); err != nil {
		return err
	}
	b, err := services.Dial(ctx, c)
	if err != nil {
		return err
	}
	defer b.Close()
	columns, _, _ := term.GetSize(int(os.Stdout.Fd())) // 0 when it is no terminal
	return fn(ctx, &console{
		broker: b, known: known, in: os.Stdin, out: os.Stdout, notes: os.Stderr,
		progress: term.IsTerminal(int(os.Stderr.Fd())), columns: columns,
	})
}

func atTerminal() bool { return term.IsTerminal(int(os.Stdin.Fd())) }

// find calls visit with each letter that sel chooses, and then does with it what
// visit returned. It counts them by function.
func (d *console) find(ctx context.Context, sel *selection, visit func(*faas.DeadLetter) (faas.Fate, error)) (counts map[string]int, err error) {
	filter, err := sel.filter(time.Now())
	if err != nil {
		return nil, err
	}
	names := sel.Function
	if len(names) == 0 {
		var known []string
		for _, f := range d.known {
			known = append(known, f.Name)
		}
		list, err := d.broker.DeadFunctions(ctx, known...)
		if err != nil {
			return nil, err
		}
		for _, f := range list {
			names = append(names, f.Name)
		}
	}
	counts = map[string]int{}
	found := 0
	for i, name := range names {
		if slices.Contains(names[:i], name) {
			continue
		}
		err := d.broker.VisitDead(ctx, name, func(l *faas.DeadLetter) (faas.Fate, error) {
			if sel.Limit > 0 && found == sel.Limit {
				return faas.Enough, nil
			}
			if !filter.Fits(l) {
				return faas.Keep, nil
			}
			counts[name]++
			found++
			return visit(l)
		})
		if errors.Is(err, faas.ErrNotFound) {
			return counts, fmt.Errorf("function %q never had dead letters: 'rabbet dead list' shows which functions have some", name)
		}
		if err != nil {
			return counts, err
		}
	}
	return counts, nil
}

// missing reports an id of c that was not found.
func (c *selection) missing(found map[string]bool) error {
	for _, id := range c.IDs {
		if !found[id] {
			return fmt.Errorf("there is no dead letter %q among those selected: 'rabbet dead list --ids' shows all", id)
		}
	}
	return nil
}

func total(counts map[string]int) (n int) {
	for _, c := range counts {
		n += c
	}
	return n
}

// letters formats counts, the numbers of letters by function.
func letters(counts map[string]int) string {
	var parts []string
	last := ""
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		if counts[name] > 0 {
			parts, last = append(parts, fmt.Sprintf("%d of %s", counts[name], name)), name
		}
	}
	text := fmt.Sprintf("%d dead letters", total(counts))
	if total(counts) == 1 {
		text = "1 dead letter"
	}
	switch len(parts) {
	case 0:
		return text
	case 1:
		return text + " of " + last
	}
	return text + " (" + strings.Join(parts, ", ") + ")"
}

// descriptor returns the descriptor of a function, live or of this binary; nil if
// neither has it.
func (d *console) descriptor(name string) *faas.Descriptor {
	for _, f := range d.broker.Directory().Functions() {
		if f.Name == name {
			return &f.Descriptor
		}
	}
	for i := range d.known {
		if d.known[i].Name == name {
			return &d.known[i]
		}
	}
	return nil
}

// body returns a letter's body as it may be shown: without sensitive fields, and
// redacted altogether if the function, and so which fields are sensitive, is
// unknown. reveal shows all.
func (d *console) body(l *faas.DeadLetter, reveal bool) []byte {
	if reveal {
		return l.Event.Body
	}
	f := d.descriptor(l.Function)
	if f == nil {
		return []byte(`"` + faas.Redacted + `"`)
	}
	return faas.Redact(f.InputOf(l.Event.Key), l.Event.Body)
}
