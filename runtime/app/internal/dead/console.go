package dead

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/rabbet-fn/rabbet/runtime/app/internal/config"
	"github.com/rabbet-fn/rabbet/runtime/app/internal/services"
	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// A console is what a command works with: the broker, and the terminal.
type console struct {
	broker interface {
		contract.DeadLetters
		Directory() *contract.Directory
		Health() error
	}
	known []contract.Descriptor // the functions of this binary, live or not
	in    io.Reader
	out   io.Writer
	notes io.Writer // for what is not the result: questions, progress

	progress bool // notes is a terminal, and may show progress
	columns  int  // of the terminal that out is; 0 when it is none
}

// withConsole checks sel, connects to the broker, and runs fn with a console on the
// terminal of this process.
func withConsole(ctx context.Context, c *config.Config, known []contract.Descriptor, sel *selection, fn func(context.Context, *console) error) error {
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
func (d *console) find(ctx context.Context, sel *selection, visit func(*contract.DeadLetter) (contract.DeadLetterAction, error)) (counts map[string]int, err error) {
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
			if sel.Limit > 0 && found == sel.Limit {
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
			return counts, fmt.Errorf("function %q never had dead letters: 'rabbet dead list' shows which functions have some", name)
		}
		if err != nil {
			return counts, err
		}
	}
	return counts, nil
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
func (d *console) descriptor(name string) *contract.Descriptor {
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
func (d *console) body(l *contract.DeadLetter, reveal bool) []byte {
	if reveal {
		return l.Event.Body
	}
	f := d.descriptor(l.Function)
	if f == nil {
		return []byte(`"` + contract.Redacted + `"`)
	}
	return contract.Redact(f.InputOf(l.Event.Key), l.Event.Body)
}
