// Package app is the command line of a product: everything at once for development,
// workers and ingresses as processes of their own, and tools. A program is
//
//	func main() { app.Main(functions.Product) }
//
// The package reads the environment variables that begin with RABBET_ and wires
// broker, caches, stores and ingress together. It knows a product only as a
// Product.
package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/rabbet-fn/rabbet/runtime/app/internal/config"
	"github.com/rabbet-fn/rabbet/runtime/app/internal/dead"
	"github.com/rabbet-fn/rabbet/runtime/app/internal/dev"
	"github.com/rabbet-fn/rabbet/runtime/app/internal/mailcatcher"
	"github.com/rabbet-fn/rabbet/runtime/app/internal/results"
	"github.com/rabbet-fn/rabbet/runtime/app/internal/scaffold"
	"github.com/rabbet-fn/rabbet/runtime/app/internal/services"
	"github.com/rabbet-fn/rabbet/runtime/app/internal/terminal"
	"github.com/rabbet-fn/rabbet/runtime/app/internal/topology"
)

// Exit codes.
const (
	exitFailed = 1 // the command failed
	exitUsage  = 2 // the command line or an environment variable cannot be used
)

// commands is the command line.
type commands struct {
	Dev       dev.Command         `cmd:"" help:"Run everything on embedded parts, and load changed functions while it runs."`
	Worker    workerCommand       `cmd:"" help:"Host functions."`
	Ingress   ingressCommand      `cmd:"" help:"Turn HTTP requests into calls and events."`
	Call      callCommand         `cmd:"" help:"Call a function and print its reply."`
	Publish   publishCommand      `cmd:"" help:"Publish an event."`
	Functions functionsCommand    `cmd:"" help:"List the functions that are live."`
	Dead      dead.Command        `cmd:"" help:"List, replay, edit, discard and export dead letters: events that a function could not handle."`
	Cache     results.Command     `cmd:"" help:"Show and invalidate cached results."`
	Topology  topology.Command    `cmd:"" help:"Declare, compare or export what functions need on RabbitMQ, where they may not do it themselves."`
	Mail      mailcatcher.Command `cmd:"" help:"Run an SMTP server that delivers nothing and shows on a page what it received."`
	New       scaffold.Command    `cmd:"" help:"Write a new project, or a new function."`
	Help      helpCommand         `cmd:"" help:"Tell more: 'rabbet help env' lists the environment."`
}

// Main runs the command line of the process for p, and exits.
func Main[D any](p Product[D]) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	os.Exit(programOf(p).main(os.Args[1:]))
}

// gcPercent lets the heap grow to five times what is live before a collection:
// little is live here, and much is allocated for a moment. GOGC overrides it.
const gcPercent = 400

// main runs one command and returns the exit code.
func (p *program) main(args []string) int {
	parser := kong.Must(&commands{},
		kong.Name("rabbet"),
		kong.Description("Functions on RabbitMQ. Environment variables are the settings: see 'rabbet help env'."),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}))
	if len(args) == 0 {
		args = []string{"--help"}
	}
	command, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintf(os.Stderr, "rabbet: %v (see %s --help)\n", err, selectedCommand(err))
		return exitUsage
	}
	if err := p.run(command); err != nil && !errors.Is(err, errStopped) {
		fmt.Fprintf(os.Stderr, "rabbet: %v\n", err)
		_, unusable := errors.AsType[*config.UnusableError](err)
		if _, usage := errors.AsType[*terminal.UsageError](err); usage || unusable {
			return exitUsage
		}
		return exitFailed
	}
	return 0
}

func (p *program) run(command *kong.Context) error {
	// Only the commands that take the settings fail if those cannot be used.
	if err := command.BindToProvider(p.configure); err != nil {
		return err
	}
	command.BindTo(untilSignal(), (*context.Context)(nil))
	return command.Run(p, p.functions, p.try)
}

// configure reads the environment. It reports what cannot be used in it, and functions
// that cannot run as they are registered.
func (p *program) configure() (*config.Config, error) {
	if p.invalid != nil {
		return nil, fmt.Errorf("the functions cannot run as they are registered:\n%w", p.invalid)
	}
	c, err := config.Read()
	if err != nil {
		return nil, err
	}
	if err := services.Check(c); err != nil {
		return nil, err
	}
	return c, p.checkSettings()
}

// selectedCommand returns the command of a command line that cannot be parsed.
func selectedCommand(err error) string {
	if e, ok := errors.AsType[*kong.ParseError](err); ok && e.Context.Selected() != nil {
		return e.Context.Selected().FullPath()
	}
	return "rabbet"
}

// untilSignal returns a context that ends with the first SIGTERM or SIGINT. A
// second SIGTERM is ignored: supervisors send it more than once. A second SIGINT,
// Ctrl-C, ends the process at once.
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
