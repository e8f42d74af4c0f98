package rabbit

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/brokertest/rabbitmq"
)

// own is a RabbitMQ of this test binary's own, for faults that would hurt the
// tests beside it. It starts with the first test that asks for it.
var own struct {
	once sync.Once
	dir  string
	node *rabbitmq.Node
	err  error
}

// ownNode returns the node, running.
func ownNode(t testing.TB) *rabbitmq.Node {
	t.Helper()
	if testing.Short() {
		t.Skip("needs RabbitMQ")
	}
	own.once.Do(func() {
		if own.dir, own.err = os.MkdirTemp("", "rabbet-faults-"); own.err == nil {
			own.node, own.err = rabbitmq.Start(within(t, 3*time.Minute), rabbitmq.Config{Dir: filepath.Join(own.dir, "faulty")})
		}
	})
	if own.err != nil {
		t.Fatal(own.err)
	}
	return own.node
}

// withNode runs tests, and closes the node after them.
type withNode struct{ m *testing.M }

func (w withNode) Run() int {
	defer func() {
		if own.node != nil {
			own.node.Close()
		}
		_ = os.RemoveAll(own.dir)
	}()
	return w.m.Run()
}

// restart starts the node again after it was killed or stopped.
func restart(t testing.TB, n *rabbitmq.Node) {
	t.Helper()
	if err := n.Restart(within(t, 3*time.Minute)); err != nil {
		t.Fatal(err)
	}
}

// ctl runs rabbitmqctl.
func ctl(t testing.TB, n *rabbitmq.Node, arguments ...string) {
	t.Helper()
	if _, err := n.Ctl(context.WithoutCancel(t.Context()), arguments...); err != nil {
		t.Fatal(err)
	}
}
