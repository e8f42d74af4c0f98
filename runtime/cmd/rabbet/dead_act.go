package main

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

	"github.com/schollz/progressbar/v3"
	"golang.org/x/time/rate"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// deadAction is how letters are dealt with that do not stay.
type deadAction struct {
	All    bool  `help:"All that there are. It has to be said when nothing else chooses."`
	DryRun bool  `help:"Only say what would be done."`
	Rate   speed `placeholder:"N/s" help:"At most so many in a second, or N/m in a minute."`
	Yes    bool  `short:"y" help:"Do not ask."`
}

// deadReplayCommand gives letters to their functions again.
type deadReplayCommand struct {
	deadChoice `embed:""`
	deadAction `embed:""`
}

// Run replays. Each letter goes straight to its own function's queue, with the
// bytes, the id and the headers that it was published with, and only then out
// of the dead letters.
func (cmd deadReplayCommand) Run(ctx context.Context, c *config) error {
	return cmd.run(ctx, c, "replay", contract.ActionReplay, &cmd.deadChoice)
}

// deadDiscardCommand removes letters for good.
type deadDiscardCommand struct {
	deadChoice `embed:""`
	deadAction `embed:""`
}

// Run discards.
func (cmd deadDiscardCommand) Run(ctx context.Context, c *config) error {
	return cmd.run(ctx, c, "discard", contract.ActionDiscard, &cmd.deadChoice)
}

func (a *deadAction) run(ctx context.Context, c *config, verb string, fate contract.DeadLetterAction, choice *deadChoice) error {
	if err := a.check(verb, choice, atTerminal()); err != nil {
		return err
	}
	return atDesk(ctx, c, choice, func(ctx context.Context, d *desk) error { return a.act(ctx, d, verb, fate, choice) })
}

// check refuses what is said too carelessly.
func (a *deadAction) check(verb string, choice *deadChoice, asks bool) error {
	filter, err := choice.filter(time.Now())
	if err != nil {
		return err
	}
	chosen := !filter.Empty() || len(choice.Function) > 0
	switch {
	case !chosen && !a.All:
		return &usageError{fmt.Errorf("%s which letters? Give ids or a filter such as --function, or --all", verb)}
	case chosen && a.All:
		return &usageError{errors.New("--all and a filter contradict each other: give one of them")}
	case !asks && !a.Yes && !a.DryRun:
		return &usageError{fmt.Errorf("nobody is there to confirm it (standard input is no terminal): add --yes to %s without a question, or --dry-run to see what would be done", verb)}
	}
	return nil
}

// act counts what is meant, asks, and then deals with as much and no more:
// what comes to the dead letters meanwhile stays there.
func (a *deadAction) act(ctx context.Context, d *desk, verb string, fate contract.DeadLetterAction, choice *deadChoice) error {
	var groups contract.DeadLetterGroups
	found := map[string]bool{}
	counts, err := d.find(ctx, choice, func(l *contract.DeadLetter) (contract.DeadLetterAction, error) {
		found[l.Event.ID] = true
		groups.Add(l)
		return contract.ActionKeep, nil
	})
	if err != nil {
		return err
	}
	if err := choice.missing(found); err != nil {
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
	done, err := a.carryOut(ctx, d, verb, fate, choice, counts)
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

// carryOut does it, function by function, and returns how many were done.
func (a *deadAction) carryOut(ctx context.Context, d *desk, verb string, fate contract.DeadLetterAction, choice *deadChoice, counts map[string]int) (map[string]int, error) {
	limiter := rate.NewLimiter(rate.Inf, 1)
	if a.Rate > 0 {
		limiter.SetLimit(rate.Limit(a.Rate))
	}
	progress := d.progress(verb, total(counts))
	defer progress.Close()
	done := map[string]int{}
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		some := *choice
		some.Function, some.Limit = []string{name}, counts[name]
		_, err := d.find(ctx, &some, func(l *contract.DeadLetter) (contract.DeadLetterAction, error) {
			if err := limiter.Wait(ctx); err != nil {
				return contract.ActionKeep, context.Cause(ctx)
			}
			l.OnRemoved = func() {
				done[name]++
				_ = progress.Add(1)
			}
			return fate, nil
		})
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// warnOfIdle says which functions nobody hosts, or what keeps that from being
// known and letters from being moved.
func (d *desk) warnOfIdle(counts map[string]int) {
	if err := d.broker.Health(); err != nil {
		fmt.Fprintln(d.notes, err)
		return
	}
	for name, n := range counts {
		if live, _ := d.broker.Directory().Find(name); n > 0 && len(live.Workers) == 0 {
			fmt.Fprintf(d.notes, "nobody hosts %s at present: its letters will wait in its queue\n", name)
		}
	}
}

// confirm asks a question. Everything but y and yes is a no.
func (d *desk) confirm(ctx context.Context, question string) (bool, error) {
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

func (d *desk) progress(verb string, n int) *progressbar.ProgressBar {
	if !d.wide {
		return progressbar.DefaultSilent(int64(n))
	}
	return progressbar.NewOptions(n,
		progressbar.OptionSetWriter(d.notes), progressbar.OptionSetDescription(verb), progressbar.OptionShowCount(), progressbar.OptionShowIts(),
		progressbar.OptionSetItsString("letters"), progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionSetWidth(30),
		progressbar.OptionClearOnFinish())
}

// speed is how many in a second.
type speed float64

// UnmarshalText reads "50/s", "30/m" and "50".
func (s *speed) UnmarshalText(text []byte) error {
	number, per, _ := strings.Cut(string(text), "/")
	n, err := strconv.ParseFloat(number, 64)
	seconds, known := map[string]float64{"": 1, "s": 1, "m": 60, "h": 3600}[per]
	if err != nil || !known || !(n > 0) {
		return fmt.Errorf("%q is no rate: write it as 50/s or 30/m", text)
	}
	*s = speed(n / seconds)
	return nil
}
