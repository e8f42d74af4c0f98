package rabbit

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/faas"
	"github.com/rabbet-fn/rabbet/runtime/rabbittest"
)

// faultConfig is the configuration of a process on the node that faults happen to.
func faultConfig(t testing.TB, n *rabbittest.Node) Config {
	t.Helper()
	return Config{URL: n.URL(), Namespace: "test-" + faas.NewID()[:10], Grace: 10 * time.Second}
}

// someTime is a moment under load that nobody chose.
func someTime() time.Duration { return time.Duration(rand.Int64N(int64(300 * time.Millisecond))) }

func TestKilledBrokerLosesNothing(t *testing.T) {
	n := ownNode(t)
	cfg := faultConfig(t, n)
	const concurrency = 16
	a := newAccount("kill -9 of the broker")
	publisher := startCaller(t, cfg)
	_, stop := startWorker(t, cfg, []*Broker{publisher}, counted(a, "order.made", concurrency))
	l := startLoad(t, publisher, a, "order.made", 10_000)
	for _, accepted := range []int{2_000, 6_000} {
		a.awaitAccepted(t, accepted)
		time.Sleep(someTime())
		n.Kill()
		restart(t, n)
	}
	l.wait()
	a.awaitSettled(t)
	stop()
	a.balance(t, 2*(concurrency+loadPublishers), 0)
}
