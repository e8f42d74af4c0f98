package dead

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"github.com/rabbet-fn/rabbet/runtime/app/internal/config"
	"github.com/rabbet-fn/rabbet/runtime/app/internal/terminal"
	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// action holds the flags of the commands that remove letters.
type action struct {
	All    bool  `help:"All dead letters. Required when nothing else selects some."`
	DryRun bool  `help:"Only print what would be done."`
	Rate   speed `placeholder:"N/s" help:"At most this many in a second, or N/m in a minute."`
	Yes    bool  `short:"y" help:"Do not ask for confirmation."`
}

// replayCommand is 'rabbet dead replay'.
type replayCommand struct {
	selection `embed:""`
	action    `embed:""`
}

// Run replays. Each letter is published to its own function's queue, with the
// bytes, the id and the headers of the original. It is removed from the dead letters
// after that is confirmed.
func (cmd replayCommand) Run(ctx context.Context, c *config.Config, known []contract.Descriptor) error {
	return cmd.run(ctx, c, known, "replay", contract.ActionReplay, &cmd.selection)
}

// discardCommand is 'rabbet dead discard'.
type discardCommand struct {
	selection `embed:""`
	action    `embed:""`
}

// Run discards.
func (cmd discardCommand) Run(ctx context.Context, c *config.Config, known []contract.Descriptor) error {
	return cmd.run(ctx, c, known, "discard", contract.ActionDiscard, &cmd.selection)
}

func (a *action) run(ctx context.Context, c *config.Config, known []contract.Descriptor, verb string, fate contract.DeadLetterAction, sel *selection) error {
	if err := a.check(verb, sel, atTerminal()); err != nil {
		return err
	}
	return withConsole(ctx, c, known, sel, func(ctx context.Context, d *console) error { return a.act(ctx, d, verb, fate, sel) })
}

// check refuses a selection of nothing or of everything by mistake, and an action
// that cannot be confirmed.
func (a *action) check(verb string, sel *selection, asks bool) error {
	filter, err := sel.filter(time.Now())
	if err != nil {
		return err
	}
	chosen := !filter.Empty() || len(sel.Function) > 0
	switch {
	case !chosen && !a.All:
		return terminal.Usage(fmt.Errorf("%s which letters? Give ids or a filter such as --function, or --all", verb))
	case chosen && a.All:
		return terminal.Usage(errors.New("--all and a filter contradict each other: give one of them"))
	case !asks && !a.Yes && !a.DryRun:
		return terminal.Usage(fmt.Errorf("nobody can confirm this (standard input is not a terminal): add --yes to %s without a question, or --dry-run to see what would be done", verb))
	}
	return nil
}

// act counts the selected letters, asks for confirmation, and then acts on as many
// and no more: letters that arrive meanwhile stay.
func (a *action) act(ctx context.Context, d *console, verb string, fate contract.DeadLetterAction, sel *selection) error {
	var groups contract.DeadLetterGroups
	found := map[string]bool{}
	counts, err := d.find(ctx, sel, func(l *contract.DeadLetter) (contract.DeadLetterAction, error) {
		found[l.Event.ID] = true
		groups.Add(l)
		return contract.ActionKeep, nil
	})
	if err != nil {
		return err
	}
	if err := sel.missing(found); err != nil {
		return err
	}
	if total(counts) == 0 {
		fmt.Fprintln(d.notes, "no dead letters")
		return nil
	}
	if a.DryRun {
		fmt.Fprintf(d.out, "would %s %s\n", verb, letters(counts))
		return d.tableOfGroups(groups.List())
	}
	if fate == contract.ActionReplay {
		d.warnOfIdle(counts)
	}
	if !a.Yes {
		if ok, err := d.confirm(ctx, fmt.Sprintf("%s %s?", verb, letters(counts))); !ok {
			return err
		}
	}
	done, err := a.apply(ctx, d, verb, fate, sel, counts)
	result := fmt.Sprintf("%sed %s", strings.TrimSuffix(verb, "e"), letters(done))
	if ctx.Err() != nil {
		err = errors.New("interrupted")
	}
	if err != nil {
		return fmt.Errorf("%w (%s of %d; the others are where they were)", err, result, total(counts))
	}
	fmt.Fprintln(d.out, result)
	return nil
}

// apply acts on the letters, function by function, and counts those that are done.
func (a *action) apply(ctx context.Context, d *console, verb string, fate contract.DeadLetterAction, sel *selection, counts map[string]int) (map[string]int, error) {
	limiter := rate.NewLimiter(rate.Inf, 1)
	if a.Rate > 0 {
		limiter.SetLimit(rate.Limit(a.Rate))
	}
	progress := d.newProgress(verb, total(counts))
	defer progress.clear()
	done := map[string]int{}
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		part := *sel
		part.Function, part.Limit = []string{name}, counts[name]
		_, err := d.find(ctx, &part, func(l *contract.DeadLetter) (contract.DeadLetterAction, error) {
			if err := limiter.Wait(ctx); err != nil {
				return contract.ActionKeep, context.Cause(ctx)
			}
			l.OnRemoved = func() {
				done[name]++
				progress.add()
			}
			return fate, nil
		})
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// warnOfIdle names the functions that no worker hosts, or says why that is unknown.
func (d *console) warnOfIdle(counts map[string]int) {
	if err := d.broker.Health(); err != nil {
		fmt.Fprintln(d.notes, err)
		return
	}
	for name, n := range counts {
		if live, _ := d.broker.Directory().Find(name); n > 0 && len(live.Workers) == 0 {
			fmt.Fprintf(d.notes, "no worker hosts %s at present: its letters will wait in its queue\n", name)
		}
	}
}

// confirm asks a question. Any answer but y and yes means no.
func (d *console) confirm(ctx context.Context, question string) (bool, error) {
	fmt.Fprintf(d.notes, "%s [y/N] ", question)
	answers := make(chan string, 1)
	go func() { // ends with the answer, or with the process
		s, _ := bufio.NewReader(d.in).ReadString('\n')
		answers <- s
	}()
	select {
	case s := <-answers:
		switch strings.ToLower(strings.TrimSpace(s)) {
		case "y", "yes":
			return true, nil
		}
		fmt.Fprintln(d.notes, "nothing was done")
		return false, nil
	case <-ctx.Done():
		fmt.Fprintln(d.notes)
		return false, errors.New("nothing was done")
	}
}

// speed is a number of letters a second.
type speed float64

// UnmarshalText reads "50/s", "30/m" and "50".
func (s *speed) UnmarshalText(text []byte) error {
	number, per, _ := strings.Cut(string(text), "/")
	n, err := strconv.ParseFloat(number, 64)
	seconds, known := map[string]float64{"": 1, "s": 1, "m": 60, "h": 3600}[per]
	if err != nil || !known || !(n > 0) {
		return fmt.Errorf("%q is not a rate: write it as 50/s or 30/m", text)
	}
	*s = speed(n / seconds)
	return nil
}
