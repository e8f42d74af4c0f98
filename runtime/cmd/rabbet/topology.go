package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/functions"
	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/rabbit"
)

// topologyCommand is for brokers on which processes may declare nothing.
type topologyCommand struct {
	Apply  topologyApplyCommand  `cmd:"" help:"Declare what is missing. Nothing is changed or deleted."`
	Diff   topologyDiffCommand   `cmd:"" help:"Say what is missing or different on the broker. The exit code is 1 if anything is."`
	Export topologyExportCommand `cmd:"" help:"Print all of it as RabbitMQ definitions, for 'rabbitmqctl import_definitions'."`
}

type topologyApplyCommand struct{}

// Run prints what it has declared.
func (topologyApplyCommand) Run(ctx context.Context, c *config) error {
	if c.embedded() {
		return notOnRabbitMQ(c)
	}
	t, err := c.topology()
	if err != nil {
		return err
	}
	n := 0
	err = t.Apply(ctx, c.rabbit(zap.NewNop()), func(what string) {
		n++
		fmt.Println("declared", what)
	})
	if err == nil && n == 0 {
		fmt.Println("nothing was missing")
	}
	return err
}

type topologyDiffCommand struct{}

// Run prints a line for each difference.
func (topologyDiffCommand) Run(ctx context.Context, c *config) error {
	if c.embedded() {
		return notOnRabbitMQ(c)
	}
	t, err := c.topology()
	if err != nil {
		return err
	}
	differences, unchecked, err := t.Diff(ctx, c.rabbit(zap.NewNop()), c.ManagementURL)
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
		fmt.Fprintf(os.Stderr, "with %sMANAGEMENT_URL all is compared\n", envPrefix)
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

type topologyExportCommand struct {
	VHost string `name:"vhost" help:"Virtual host; by default that of RABBET_BROKER_URL, or /."`
}

// Run prints JSON.
func (cmd topologyExportCommand) Run(c *config) error {
	t, err := c.topology()
	if err != nil {
		return err
	}
	vhost := cmd.VHost
	if vhost == "" {
		vhost = "/"
		if !c.embedded() {
			if vhost, err = c.rabbit(zap.NewNop()).VHost(); err != nil {
				variable, value := c.brokerVariable()
				return unusable(variable, value, "%v", err)
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

func notOnRabbitMQ(c *config) error {
	variable, value := c.brokerVariable()
	return unusable(variable, value, "the topology is RabbitMQ's: set it to amqp://user:password@host:5672/")
}

// topology is what the functions that c names need.
func (c *config) topology() (rabbit.Topology, error) {
	fns := functions.All.Descriptors()
	for _, name := range c.Functions {
		if !slices.ContainsFunc(fns, func(d contract.Descriptor) bool { return d.Name == name }) {
			return rabbit.Topology{}, unusable("FUNCTIONS", strings.Join(c.Functions, ","), "there is no function %q", name)
		}
	}
	if len(c.Functions) > 0 {
		fns = slices.DeleteFunc(fns, func(d contract.Descriptor) bool { return !slices.Contains(c.Functions, d.Name) })
	}
	return rabbit.TopologyOf(c.Namespace, fns)
}
