package rabbit

import (
	"sync"
	"testing"

	"github.com/rabbet-fn/rabbet/runtime/brokertest"
	"github.com/rabbet-fn/rabbet/runtime/contract"
)

func TestConformance(t *testing.T) {
	run := func(noBatch bool, prefixes ...string) func(t *testing.T) {
		return func(t *testing.T) {
			var namespaces sync.Map // by test: its brokers are one system
			brokertest.Run(t, func(t *testing.T) brokertest.Broker {
				namespace, _ := namespaces.LoadOrStore(t, "test-"+contract.NewID())
				return openBroker(t, func(c *Config) { c.Namespace, c.NoBatch = namespace.(string), noBatch })
			}, prefixes...)
		}
	}
	t.Run("batch", run(false))
	t.Run("no batch", run(true, "Call/", "Worker/")) // the others know no batches
}
