// Command test-matrix runs the tests of runtime/rabbit against RabbitMQ of
// several versions, one after the other, and prints a table. scripts/test-matrix
// starts it, and has installed them.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/brokertest/rabbitmq"
)

const (
	packageDir = "./runtime/rabbit"
	logDir     = ".rabbet/test-matrix"
	startLimit = 3 * time.Minute
	cutEvery   = 15 * time.Second // between the deaths of a cluster's node
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "test-matrix:", err)
		os.Exit(1)
	}
}

// column is one broker to test against.
type column struct {
	label string // its version
	nodes int
	root  string // the folder of its Debian; "" is this machine
}

func parseColumn(argument string) (column, error) {
	parts := strings.SplitN(argument, "=", 3)
	if len(parts) != 3 {
		return column{}, fmt.Errorf("%q is no column: start this with scripts/test-matrix", argument)
	}
	nodes, err := strconv.Atoi(parts[1])
	return column{parts[0], nodes, parts[2]}, err
}

func run(ctx context.Context, arguments []string) error {
	rows, err := readRows(packageDir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(logDir, 0o755); err != nil {
		return err
	}
	failed := false
	var columns []column
	var results []result
	for _, argument := range arguments {
		c, err := parseColumn(argument)
		if err != nil {
			return err
		}
		r, err := c.test(ctx)
		if err != nil {
			return fmt.Errorf("RabbitMQ %s: %w", c.label, err)
		}
		columns, results = append(columns, c), append(results, r)
		failed = failed || !r.ok()
	}
	printTable(os.Stdout, rows, columns, results)
	if failed {
		return errors.New("some tests failed: the logs are in " + logDir)
	}
	return nil
}

// test starts the broker, runs the tests against it and stops it.
func (c column) test(ctx context.Context) (result, error) {
	fmt.Fprintf(os.Stderr, "test-matrix: RabbitMQ %s\n", c.label)
	if err := os.Setenv("RABBET_RABBITMQ_ROOT", c.root); err != nil { // the nodes that tests start are of this version, too
		return result{}, err
	}
	dir, err := os.MkdirTemp("", "rabbet-matrix-")
	if err != nil {
		return result{}, err
	}
	defer os.RemoveAll(dir)
	var nodes []*rabbitmq.Node
	defer func() {
		for _, node := range slices.Backward(nodes) {
			node.Close()
		}
	}()
	for i := range c.nodes {
		cfg := rabbitmq.Config{Dir: filepath.Join(dir, fmt.Sprintf("node-%d", i+1))}
		if i > 0 {
			cfg.Peer = nodes[0]
		}
		starting, cancel := context.WithTimeout(ctx, startLimit)
		n, err := rabbitmq.Start(starting, cfg)
		cancel()
		if err != nil {
			return result{}, err
		}
		nodes = append(nodes, n)
	}
	tested, over := context.WithCancel(ctx)
	killed := make(chan error, 1)
	go func() { killed <- killAgainAndAgain(tested, nodes[1:]) }() // ends with tested
	r, err := goTest(ctx, nodes[0], filepath.Join(logDir, strings.ReplaceAll(c.label, " ", "")+".log"))
	over()
	return r, errors.Join(err, <-killed)
}

// killAgainAndAgain kills one node after the other and starts it again, until
// ctx is done. The tests are connected to another.
func killAgainAndAgain(ctx context.Context, nodes []*rabbitmq.Node) error {
	for i := 0; len(nodes) > 0; i++ {
		n := nodes[i%len(nodes)]
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(cutEvery):
		}
		n.Kill()
		starting, cancel := context.WithTimeout(ctx, startLimit)
		err := n.Restart(starting)
		cancel()
		if err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}
