// Package topology holds the commands that declare, compare and export what the
// functions need on RabbitMQ.
package topology

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/app/internal/config"
	"github.com/rabbet-fn/rabbet/runtime/app/internal/services"
	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/rabbit"
)

// Command is 'rabbet topology', for brokers on which processes may declare nothing.
type Command struct {
	Apply  applyCommand  `cmd:"" help:"Declare what is missing. Nothing is changed or deleted."`
	Diff   diffCommand   `cmd:"" help:"Say what is missing or different on the broker. The exit code is 1 if anything is."`
	Export exportCommand `cmd:"" help:"Print all of it as RabbitMQ definitions, for 'rabbitmqctl import_definitions'."`
}

type applyCommand struct{}

// Run prints what it has declared.
func (applyCommand) Run(ctx context.Context, c *config.Config, fns []contract.Descriptor) error {
	if c.Embedded() {
		return notOnRabbitMQ(c)
	}
	t, err := of(c, fns)
	if err != nil {
		return err
	}
	n := 0
	err = t.Apply(ctx, services.Rabbit(c, zap.NewNop()), func(what string) {
		n++
		fmt.Println("declared", what)
	})
	if err == nil && n == 0 {
		fmt.Println("nothing was missing")
	}
	return err
}

type diffCommand struct{}

// Run prints a line for each difference.
func (diffCommand) Run(ctx context.Context, c *config.Config, fns []contract.Descriptor) error {
	if c.Embedded() {
		return notOnRabbitMQ(c)
	}
	t, err := of(c, fns)
	if err != nil {
		return err
	}
	differences, unchecked, err := t.Diff(ctx, services.Rabbit(c, zap.NewNop()), c.ManagementURL)
	if err != nil {
		return err
	}
	for _, d := range differences {
		fmt.Println(d)
	}
	for _, what := range unchecked {
		fmt.Fprintln(os.Stderr, "not compared:", what)
	}
	if len(unchecked) > 0 {
		fmt.Fprintf(os.Stderr, "with %sMANAGEMENT_URL all is compared\n", config.Prefix)
	}
	switch len(differences) {
	case 0:
		fmt.Println("no difference")
		return nil
	case 1:
		return errors.New("there is 1 difference: 'rabbet topology apply' declares what is missing; it changes and deletes nothing")
	}
	return fmt.Errorf("there are %d differences: 'rabbet topology apply' declares what is missing; it changes and deletes nothing", len(differences))
}

type exportCommand struct {
	VHost string `name:"vhost" help:"Virtual host; by default that of RABBET_BROKER_URL, or /."`
}

// Run prints JSON.
func (cmd exportCommand) Run(c *config.Config, fns []contract.Descriptor) error {
	t, err := of(c, fns)
	if err != nil {
		return err
	}
	vhost := cmd.VHost
	if vhost == "" {
		vhost = "/"
		if !c.Embedded() {
			if vhost, err = services.Rabbit(c, zap.NewNop()).VHost(); err != nil {
				variable, value := c.BrokerVariable()
				return config.Unusable(variable, value, "%v", err)
			}
		}
	}
	definitions, err := t.Definitions(vhost)
	if err != nil {
		return err
	}
	fmt.Println(string(definitions))
	return nil
}

func notOnRabbitMQ(c *config.Config) error {
	variable, value := c.BrokerVariable()
	return config.Unusable(variable, value, "the topology is RabbitMQ's: set it to amqp://user:password@host:5672/")
}

// of returns what those of fns need that c names.
func of(c *config.Config, fns []contract.Descriptor) (rabbit.Topology, error) {
	for _, name := range c.Functions {
		if !slices.ContainsFunc(fns, func(d contract.Descriptor) bool { return d.Name == name }) {
			return rabbit.Topology{}, config.Unusable(config.Prefix+"FUNCTIONS", strings.Join(c.Functions, ","), "there is no function %q", name)
		}
	}
	if len(c.Functions) > 0 {
		fns = slices.DeleteFunc(slices.Clone(fns), func(d contract.Descriptor) bool { return !slices.Contains(c.Functions, d.Name) })
	}
	return rabbit.TopologyOf(c.Namespace, fns)
}
