// Command rabbet runs functions on RabbitMQ: everything at once for
// development, or workers and ingresses as processes of their own.
//
// It is the only place that reads the environment, and the only one that knows
// all the parts.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/rabbet-fn/rabbet/functions"
	"github.com/rabbet-fn/rabbet/runtime/solo"
)

// Exit codes.
const (
	exitFailed = 1 // it did not work
	exitUsage  = 2 // the command line or a variable cannot be used
)

// commands is the command line.
type commands struct {
	Dev       devCommand       `cmd:"" help:"Run everything on embedded parts, and load changed functions while it runs."`
	Worker    workerCommand    `cmd:"" help:"Host functions."`
	Ingress   ingressCommand   `cmd:"" help:"Turn HTTP requests into calls and events."`
	Call      callCommand      `cmd:"" help:"Call a function and print its reply."`
	Publish   publishCommand   `cmd:"" help:"Publish an event."`
	Functions functionsCommand `cmd:"" help:"List the functions that are live."`
	Dead      deadCommand      `cmd:"" help:"Look after dead letters: events that a function could not handle."`
	Cache     cacheCommand     `cmd:"" help:"Look after cached results by hand."`
	Topology  topologyCommand  `cmd:"" help:"Declare, compare or export what functions need on RabbitMQ, where they may not do it themselves."`
	Mail      mailCommand      `cmd:"" help:"Run an SMTP server that delivers nothing and shows all it got on a page."`
	Help      helpCommand      `cmd:"" help:"Tell more: 'rabbet help env' lists the environment."`
}

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	os.Exit(run(os.Args[1:]))
}

// gcPercent lets the heap grow to five times what is alive before garbage is
// collected: little is alive here, and much passes through. GOGC overrides it.
const gcPercent = 400

// oneProcessor keeps this process on one processor while it has one thing to do
// at a time. GOMAXPROCS overrides it: then there is no switch, nil.
func oneProcessor() *solo.Switch {
	if os.Getenv("GOMAXPROCS") != "" {
		return nil
	}
	return solo.OneProcessor()
}

func run(args []string) int {
	parser := kong.Must(&commands{},
		kong.Name("rabbet"),
		kong.Description("Functions on RabbitMQ. The environment sets it up: see 'rabbet help env'."),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}))
	if len(args) == 0 {
		args = []string{"--help"}
	}
	command, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintf(os.Stderr, "rabbet: %v (see %s --help)\n", err, meant(err))
		return exitUsage
	}
	if err := functions.All.Err(); err != nil {
		fmt.Fprintf(os.Stderr, "rabbet: the functions cannot run as they are registered:\n%v\n", err)
		return exitFailed
	}
	cfg, err := readConfig()
	if err != nil {
		fmt.Fprintf(os.Stderr, "rabbet: %v\n", err)
		return exitUsage
	}
	ctx := untilSignal()
	command.BindTo(ctx, (*context.Context)(nil))
	if err := command.Run(cfg); err != nil && !errors.Is(err, errStopped) {
		fmt.Fprintf(os.Stderr, "rabbet: %v\n", err)
		_, unusable := errors.AsType[*unusableError](err)
		if _, usage := errors.AsType[*usageError](err); usage || unusable {
			return exitUsage
		}
		return exitFailed
	}
	return 0
}

// meant is the command that a command line which cannot be read begins with.
func meant(err error) string {
	if e, ok := errors.AsType[*kong.ParseError](err); ok && e.Context.Selected() != nil {
		return e.Context.Selected().FullPath()
	}
	return "rabbet"
}

// untilSignal returns a context that ends with the first SIGTERM or SIGINT. A
// supervisor may send its SIGTERM more than once; only somebody who presses
// Ctrl-C a second time wants the process to end without finishing its work.
func untilSignal() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() { // ends with the process
		<-signals
		cancel()
		for s := range signals {
			if s == os.Interrupt {
				os.Exit(exitFailed)
			}
		}
	}()
	return ctx
}
