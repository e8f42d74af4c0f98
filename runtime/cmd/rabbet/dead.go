package main

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

	"github.com/rabbet-fn/rabbet/functions"
	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// deadCommand looks after dead letters.
type deadCommand struct {
	List    deadListCommand    `cmd:"" help:"Count dead letters by function and error, or list them one by one."`
	Show    deadShowCommand    `cmd:"" help:"Show all of a dead letter."`
	Replay  deadReplayCommand  `cmd:"" help:"Give dead letters to their functions again, from the first attempt on."`
	Edit    deadEditCommand    `cmd:"" help:"Change the body of a dead letter, and replay it."`
	Discard deadDiscardCommand `cmd:"" help:"Remove dead letters for good."`
	Export  deadExportCommand  `cmd:"" help:"Write dead letters as JSON Lines."`
}

// deadChoice says which dead letters are meant: those that fit all of it.
type deadChoice struct {
	IDs      []string `arg:"" optional:"" name:"id" help:"Ids of letters."`
	Function []string `short:"f" placeholder:"NAME" help:"Of this function; may be repeated. Of all by default."`
	Code     []string `placeholder:"CODE" help:"Given up for this reason, such as exhausted or invalid; may be repeated."`
	Error    string   `placeholder:"TEXT" help:"With this text in the error."`
	Key      string   `placeholder:"PATTERN" help:"With this routing key, or one that fits a pattern such as order.#."`
	Older    age      `placeholder:"AGE" help:"Failed last longer ago than so, such as 36h or 7d."`
	Newer    age      `placeholder:"AGE" help:"Failed last not so long ago."`
	Field    []string `sep:"none" placeholder:"PATH=VALUE" help:"With this value in the JSON body, such as customer.id=42; may be repeated."`
	Limit    int      `placeholder:"N" help:"At most so many, the oldest of each function first."`
}

func (c *deadChoice) filter(now time.Time) (contract.DeadLetterFilter, error) {
	f := contract.DeadLetterFilter{IDs: c.IDs, Error: c.Error, Key: c.Key}
	for _, code := range c.Code {
		f.Codes = append(f.Codes, contract.Code(code))
	}
	if c.Older > 0 {
		f.Before = now.Add(-time.Duration(c.Older))
	}
	if c.Newer > 0 {
		f.After = now.Add(-time.Duration(c.Newer))
	}
	for _, s := range c.Field {
		field, err := contract.ParseDeadLetterField(s)
		if err != nil {
			return f, &usageError{err}
		}
		f.Fields = append(f.Fields, field)
	}
	if c.Limit < 0 {
		return f, &usageError{fmt.Errorf("--limit %d: choose 1 or more", c.Limit)}
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
			return fmt.Errorf("%q is no age: write it as 90m, 36h or 7d", s)
		}
		*a = age(n * 24 * float64(time.Hour))
		return nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return fmt.Errorf("%q is no age: write it as 90m, 36h or 7d", s)
	}
	*a = age(d)
	return nil
}

// usageError is a command line that cannot be followed.
type usageError struct{ error }

func (e *usageError) Unwrap() error { return e.error }

// desk is where dead letters are looked after.
type desk struct {
	broker interface {
		contract.DeadLetters
		Directory() *contract.Directory
		Health() error
	}
	known []contract.Descriptor // the functions that this binary has, live or not
	in    io.Reader
	out   io.Writer
	notes io.Writer // what is not the result: questions, progress
	wide  bool      // notes go to a screen

	columns int // of the screen that out is; 0 when it is none
}

// atDesk lets fn work at the desk of somebody who sits at the command line,
// unless the choice makes no sense.
func atDesk(ctx context.Context, c *config, choice *deadChoice, fn func(context.Context, *desk) error) error {
	if _, err := choice.filter(time.Now()); err != nil {
		return err
	}
	b, err := dial(ctx, c)
	if err != nil {
		return err
	}
	defer b.Close()
	columns, _, _ := term.GetSize(int(os.Stdout.Fd())) // 0 when it is no terminal
	return fn(ctx, &desk{
		broker: b, known: functions.All.Descriptors(), in: os.Stdin, out: os.Stdout, notes: os.Stderr,
		wide: term.IsTerminal(int(os.Stderr.Fd())), columns: columns,
	})
}

func atTerminal() bool { return term.IsTerminal(int(os.Stdin.Fd())) }

// find calls visit with the letters that are meant, and does with each what it
// says. It returns how many there were, by function.
func (d *desk) find(ctx context.Context, c *deadChoice, visit func(*contract.DeadLetter) (contract.DeadLetterAction, error)) (counts map[string]int, err error) {
	filter, err := c.filter(time.Now())
	if err != nil {
		return nil, err
	}
	names := c.Function
	if len(names) == 0 {
		var known []string
		for _, f := range d.known {
			known = append(known, f.Name)
		}
		list, err := d.broker.DeadLetterCounts(ctx, known...)
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
		err := d.broker.VisitDeadLetters(ctx, name, func(l *contract.DeadLetter) (contract.DeadLetterAction, error) {
			if c.Limit > 0 && found == c.Limit {
				return contract.ActionStop, nil
			}
			if !filter.Matches(l) {
				return contract.ActionKeep, nil
			}
			counts[name]++
			found++
			return visit(l)
		})
		if errors.Is(err, contract.ErrNotFound) {
			return counts, fmt.Errorf("there were never dead letters of a function %q: 'rabbet dead list' shows those that there are", name)
		}
		if err != nil {
			return counts, err
		}
	}
	return counts, nil
}

// missing returns the ids that were asked for and not among the found ones.
func (c *deadChoice) missing(found map[string]bool) error {
	for _, id := range c.IDs {
		if !found[id] {
			return fmt.Errorf("there is no dead letter %q among those meant: 'rabbet dead list --ids' shows all", id)
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

// letters says how many, and of which functions.
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

// descriptor returns what is known of a function; nil when nothing is.
func (d *desk) descriptor(name string) *contract.Descriptor {
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

// body returns a letter's body as it may be shown: without what is sensitive,
// and not at all when nobody knows what of it is.
func (d *desk) body(l *contract.DeadLetter, reveal bool) []byte {
	if reveal {
		return l.Event.Body
	}
	f := d.descriptor(l.Function)
	if f == nil {
		return []byte(`"` + contract.Redacted + `"`)
	}
	return contract.Redact(f.InputOf(l.Event.Key), l.Event.Body)
}
