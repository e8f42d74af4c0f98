package memory

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/rabbet-fn/rabbet/runtime/brokertest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

func TestConformance(t *testing.T) {
	brokers := map[*testing.T]*Broker{}
	brokertest.Run(t, func(t *testing.T) brokertest.Broker {
		if brokers[t] == nil {
			brokers[t] = New(Config{})
			t.Cleanup(func() { _ = brokers[t].Close() })
		}
		return brokers[t]
	})
}
