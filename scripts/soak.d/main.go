// Command soak keeps the books on events while what carries them fails at
// random. scripts/soak starts it. Publisher and workers are this program again,
// under other verbs, so that they can be killed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// settings are the command line.
type settings struct {
	events  uint
	length  time.Duration
	every   time.Duration
	faults  []string
	workers int
	backlog bool
}

func readSettings(arguments []string) (settings, error) {
	var s settings
	flags := flag.NewFlagSet("soak", flag.ContinueOnError)
	flags.UintVar(&s.events, "n", 100_000, "how many events; 0: as many as -for allows")
	flags.DurationVar(&s.length, "for", 0, "publish for so long instead of -n")
	flags.DurationVar(&s.every, "every", 5*time.Second, "mean time from one fault to the next")
	chosen := flags.String("faults", strings.Join(faultNames(), ","), "which faults there are, or none")
	flags.IntVar(&s.workers, "workers", 2, "worker processes")
	flags.BoolVar(&s.backlog, "backlog", false, "start the workers when all is published, or 900,000 events are")
	if err := flags.Parse(arguments); err != nil {
		return s, err
	}
	if flags.NArg() > 0 {
		return s, fmt.Errorf("%q is no option: see scripts/soak -help", flags.Arg(0))
	}
	if *chosen != "none" {
		s.faults = strings.Split(*chosen, ",")
	}
	for _, f := range s.faults {
		if _, ok := faults[f]; !ok {
			return s, fmt.Errorf("there is no fault %q: choose from %s", f, strings.Join(faultNames(), ", "))
		}
	}
	if s.length > 0 {
		s.events = 0
	}
	if s.events == 0 && s.length <= 0 || s.workers < 1 || s.every <= 0 {
		return s, errors.New("-n or -for, -workers and -every must be more than 0")
	}
	return s, nil
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, arguments []string) error {
	if len(arguments) > 1 {
		switch arguments[0] {
		case "publish":
			return publish(ctx, arguments[1])
		case "work":
			return work(ctx, arguments[1])
		}
	}
	s, err := readSettings(arguments)
	if err != nil {
		return err
	}
	return soak(ctx, s)
}
