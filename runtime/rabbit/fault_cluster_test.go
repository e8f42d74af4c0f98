package rabbit

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rabbet-fn/rabbet/runtime/brokertest/rabbitmq"
	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// addressesFrom is the URL of a cluster for a process that tries node first first.
func addressesFrom(nodes []*rabbitmq.Node, first int) string {
	var urls []string
	for _, n := range slices.Concat(nodes[first:], nodes[:first]) {
		urls = append(urls, n.URL())
	}
	return strings.Join(urls, ",")
}

// brokerMajor is the first part of the broker's version.
func brokerMajor(t testing.TB, url string) string {
	t.Helper()
	conn, err := amqp.Dial(url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	version, _ := conn.Properties["version"].(string)
	major, _, _ := strings.Cut(version, ".")
	return major
}

// awaitCall calls key until somebody answers.
func awaitCall(t testing.TB, b *Broker, key string) {
	t.Helper()
	began := time.Now()
	var last error
	for time.Since(began) < time.Minute {
		if _, last = b.Call(t.Context(), contract.Call{Key: key, Deadline: time.Now().Add(time.Second)}); last == nil {
			t.Logf("calls are answered again after %v", time.Since(began).Round(10*time.Millisecond))
			return
		}
		pause := time.NewTimer(pollInterval)
		<-pause.C
	}
	t.Fatalf("no call was answered within a minute: %v", last)
}

// A node dies with the connections of some processes, with the leaders of the
// quorum queues and with the queue that calls go to.
func TestKilledNodeOfAClusterLosesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("needs RabbitMQ")
	}
	nodes := rabbitmq.NewCluster(t, 3, rabbitmq.Config{})
	cfg := faultConfig(t, nodes[0])
	at := func(first int) Config {
		c := cfg
		c.URL = addressesFrom(nodes, first)
		return c
	}
	const concurrency = 16
	a := newAccount("kill -9 of a node")
	publisher := startCaller(t, at(0))
	fns := []contract.Function{counted(a, "order.made", concurrency), function("echo", echo)}
	_, stop0 := startWorker(t, at(0), []*Broker{publisher}, fns...)
	_, stop1 := startWorker(t, at(1), []*Broker{publisher}, fns...)
	canMove := brokerMajor(t, nodes[0].URL()) != "3"

	calls := startCalls(t, publisher, "echo")
	l := startLoad(t, publisher, a, "order.made", 10_000)
	for i, accepted := range []int{2_000, 6_000} {
		a.awaitAccepted(t, accepted)
		time.Sleep(someTime())
		nodes[i].Kill()
		if canMove {
			awaitCall(t, publisher, "echo")
		}
		restart(t, nodes[i])
		awaitCall(t, publisher, "echo")
	}
	l.wait()
	a.awaitSettled(t)
	calls.stop(t)
	stop0()
	stop1()
	a.balance(t, 2*(2*concurrency+loadPublishers), 0)
}

// callLoad calls one function again and again.
type callLoad struct {
	callers          sync.WaitGroup
	cancel           context.CancelFunc
	answered, failed atomic.Int64
}

// startCalls calls key from a few goroutines, and minds no failure but one
// that claims too much.
func startCalls(t testing.TB, b *Broker, key string) *callLoad {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	c := &callLoad{cancel: cancel}
	for range 4 {
		c.callers.Go(func() {
			for ctx.Err() == nil {
				_, err := b.Call(ctx, contract.Call{Key: key, Deadline: time.Now().Add(time.Second)})
				switch executed := executedOf(err); {
				case err == nil:
					c.answered.Add(1)
				case executed == contract.ExecutedYes:
					t.Errorf("a call failed as executed, and the function never fails: %v", err)
				default:
					c.failed.Add(1)
				}
				pause := time.NewTimer(time.Millisecond)
				<-pause.C
			}
		})
	}
	t.Cleanup(func() {
		cancel()
		c.callers.Wait()
	})
	return c
}

func (c *callLoad) stop(t testing.TB) {
	t.Helper()
	c.cancel()
	c.callers.Wait()
	t.Logf("calls: %d answered, %d failed", c.answered.Load(), c.failed.Load())
}
