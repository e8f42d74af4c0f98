package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/app/internal/config"
	"github.com/rabbet-fn/rabbet/runtime/app/internal/services"
	"github.com/rabbet-fn/rabbet/runtime/app/internal/terminal"
	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// callCommand calls a function without HTTP.
type callCommand struct {
	Function string        `arg:"" help:"Name of the function, or its routing key."`
	Message  string        `arg:"" optional:"" default:"{}" help:"The message as JSON; - reads standard input."`
	Timeout  time.Duration `default:"30s" help:"How long to wait for the reply."`
}

// Run prints the reply's body on standard output.
func (cmd callCommand) Run(ctx context.Context, c *config.Config) error {
	body, err := terminal.Message(cmd.Message)
	if err != nil {
		return err
	}
	b, err := services.Dial(ctx, c)
	if err != nil {
		return err
	}
	defer b.Close()
	request := contract.Call{Key: cmd.Function, Body: body, Deadline: time.Now().Add(cmd.Timeout)}
	if f, ok := b.Directory().Find(cmd.Function); ok {
		if f.Kind != contract.KindRequest {
			return fmt.Errorf("%s is an event function: publish one of %s instead", f.Name, strings.Join(f.Keys, ", "))
		}
		request.Function, request.Key = f.Name, f.Keys[0]
	}
	reply, err := b.Call(ctx, request)
	if errors.Is(err, contract.ErrUnroutable) {
		return fmt.Errorf("no function answers %q: 'rabbet functions' lists what is live", cmd.Function)
	}
	if err != nil {
		return err
	}
	fmt.Println(string(reply.Body))
	return nil
}

// publishCommand publishes one event.
type publishCommand struct {
	Key      string        `arg:"" help:"Routing key."`
	Message  string        `arg:"" help:"The event as JSON; - reads standard input."`
	Exchange string        `help:"Exchange to publish to; the namespace's events exchange by default."`
	In       time.Duration `xor:"when" help:"Deliver it after this time, such as 90s or 36h; at most 30 days."`
	At       time.Time     `xor:"when" help:"Deliver it at this time, such as 2030-01-31T09:00:00+01:00; at most 30 days from now."`
	Timeout  time.Duration `default:"10s" help:"How long to wait for the broker's confirmation."`
}

// Run prints the event's id once the broker has confirmed it.
func (cmd publishCommand) Run(ctx context.Context, c *config.Config) error {
	if cmd.In < 0 {
		return terminal.Usage(fmt.Errorf("--in %v: give a duration of zero or more", cmd.In))
	}
	body, err := terminal.Message(cmd.Message)
	if err != nil {
		return err
	}
	b, err := services.Dial(ctx, c)
	if err != nil {
		return err
	}
	defer b.Close()
	ctx, cancel := context.WithTimeout(ctx, cmd.Timeout)
	defer cancel()
	e := contract.Event{Key: cmd.Key, Exchange: cmd.Exchange, ID: contract.NewID(), NotBefore: cmd.At, Body: body}
	if cmd.In > 0 {
		e.NotBefore = time.Now().Add(cmd.In)
	}
	err = b.Publish(ctx, e)
	if errors.Is(err, contract.ErrUnroutable) {
		return fmt.Errorf("nothing is bound to %q: 'rabbet functions' lists the keys", cmd.Key)
	}
	if err != nil {
		return err
	}
	fmt.Println(e.ID)
	return nil
}

// functionsCommand lists the functions that are live.
type functionsCommand struct {
	JSON bool `help:"Print the descriptors as JSON."`
}

// Run prints a table on standard output.
func (cmd functionsCommand) Run(ctx context.Context, c *config.Config) error {
	b, err := services.Dial(ctx, c)
	if err != nil {
		return err
	}
	defer b.Close()
	list := slices.DeleteFunc(slices.Clone(b.Directory().Functions()), func(f contract.Live) bool {
		return config.OfDev(&f.Descriptor)
	})
	if len(list) == 0 {
		if err := b.Health(); err != nil { // there may be workers that cannot announce themselves
			return err
		}
	}
	if cmd.JSON {
		return terminal.PrintJSON(list)
	}
	if len(list) == 0 {
		fmt.Println("no function is live: start a worker ('rabbet worker')")
		return nil
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "FUNCTION\tKIND\tKEYS\tROUTE\tCACHE\tWORKERS")
	for _, f := range list {
		route, cached := "-", "-"
		if f.Route != nil {
			route = f.Route.Method + " " + f.Route.Path
		}
		switch {
		case f.Sensitive:
			cached = "never: sensitive"
		case f.Cache != nil:
			ttl := strings.NewReplacer("h0m0s", "h", "m0s", "m").Replace(f.Cache.TTL.String())
			cached = strings.TrimSpace(ttl + " " + strings.Join(f.Cache.Tags, " "))
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\n", f.Name, f.Kind, strings.Join(f.Keys, " "), route, cached, len(f.Workers))
	}
	return w.Flush()
}
