package rabbitmq

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// startLimit is how long a node may take to start.
const startLimit = 3 * time.Minute

// New starts a node and closes it when t ends. cfg.Dir is a temporary folder by
// default. New skips t with -short, and fails t if the node does not start within 3
// minutes. If t fails, the end of the node's log is logged.
func New(t testing.TB, cfg Config) *Node {
	t.Helper()
	if testing.Short() {
		t.Skip("needs RabbitMQ")
	}
	cfg.Dir = cmp.Or(cfg.Dir, filepath.Join(t.TempDir(), "rabbitmq"))
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	n, err := Start(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	closeAfter(t, n)
	return n
}

// NewCluster is New for several nodes that form a cluster.
func NewCluster(t testing.TB, size int, cfg Config) []*Node {
	t.Helper()
	dir := cmp.Or(cfg.Dir, t.TempDir())
	cfg.Dir = filepath.Join(dir, "node-1")
	nodes := make([]*Node, size)
	nodes[0] = New(t, cfg) // before the others, which join it
	cfg.Peer = nodes[0]
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	errs := make([]error, size)
	var g sync.WaitGroup
	for i := 1; i < size; i++ {
		cfg := cfg
		cfg.Dir = filepath.Join(dir, fmt.Sprintf("node-%d", i+1))
		g.Go(func() { nodes[i], errs[i] = Start(ctx, cfg) })
	}
	g.Wait()
	for _, n := range nodes[1:] {
		closeAfter(t, n)
	}
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	return nodes
}

// closeAfter closes n when t ends, and logs the end of its log if t has failed.
func closeAfter(t testing.TB, n *Node) {
	if n == nil {
		return
	}
	t.Cleanup(func() {
		n.Close()
		if t.Failed() {
			t.Logf("the log of RabbitMQ node %s ends with\n%s", n.Name(), n.LogTail())
		}
	})
}
