// Package provision declares ahead of time what functions need on the broker, for
// processes that may not declare it themselves, and compares it with what exists.
package provision

import (
	"cmp"
	"encoding/json"
	"iter"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/delay"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/topology"
)

// Plan is all that functions need on the broker when processes may declare
// nothing themselves (Config.NoDeclare). It differs from what they declare in
// one thing: no queue goes with its last worker, for it could not come back. So
// a call of a function without workers waits, until its deadline, for one.
type Plan struct {
	Names     topology.Names
	functions []string // those with dead letters
	topology.Part
}

// New returns what the functions need, and what every process does. Its
// names must be those of processes that declare nothing.
func New(n topology.Names, fns []contract.Descriptor) Plan {
	t := Plan{Names: n}
	t.add(n.Common(), n.ExpiredCalls(), n.DeadRegister(), n.DueEvents())
	for _, tier := range delay.Tiers {
		d := n.DelayTier(tier.Name(), tier.Length())
		d.Queues = d.Queues[1:] // the queue due stands there already
		t.add(d)
	}
	sources := map[string]bool{n.Events(): true}
	for _, d := range fns {
		if d.Kind == contract.KindRequest {
			t.add(n.RequestFunction(&d))
			continue
		}
		t.functions = append(t.functions, d.Name)
		source := cmp.Or(d.Exchange, n.Events())
		if !sources[source] {
			sources[source] = true
			t.add(n.Source(source))
		}
		t.add(n.EventFunction(&d, source))
	}
	return t
}

func (t *Plan) add(parts ...topology.Part) {
	for _, p := range parts {
		t.Exchanges = append(t.Exchanges, p.Exchanges...)
		t.Queues = append(t.Queues, p.Queues...)
		t.Bindings = append(t.Bindings, p.Bindings...)
	}
}

// Definitions returns the topology as RabbitMQ's own tools take it (rabbitmqctl
// import_definitions, load_definitions, the management API), for a virtual host.
func (t Plan) Definitions(vhost string) ([]byte, error) {
	type table = map[string]any
	exchanges, queues, bindings := []table{}, []table{}, []table{}
	for _, x := range t.Exchanges {
		exchanges = append(exchanges, table{
			"name": x.Name, "vhost": vhost, "type": x.Kind, "durable": true, "auto_delete": false, "internal": false, "arguments": x.Arguments(),
		})
	}
	for _, q := range t.Queues {
		queues = append(queues, table{"name": q.Name, "vhost": vhost, "durable": true, "auto_delete": false, "arguments": q.Arguments})
	}
	for _, b := range t.Bindings {
		bindings = append(bindings, table{
			"source": b.Exchange, "vhost": vhost, "destination": b.Queue, "destination_type": "queue", "routing_key": b.Key, "arguments": table{},
		})
	}
	return json.MarshalIndent(table{"exchanges": exchanges, "queues": queues, "bindings": bindings}, "", "  ")
}

// pieces yields each exchange, and then each queue, with what it is called.
func (t Plan) pieces() iter.Seq2[string, topology.Part] {
	return func(yield func(string, topology.Part) bool) {
		for _, x := range t.Exchanges {
			if !yield(x.String(), topology.Part{Exchanges: []topology.Exchange{x}}) {
				return
			}
		}
		for _, q := range t.Queues {
			if !yield(q.String(), topology.Part{Queues: []topology.Queue{q}}) {
				return
			}
		}
	}
}
