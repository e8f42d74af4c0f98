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

// Plan is all that functions need on the broker when processes declare nothing
// themselves. In contrast to what processes declare, no queue expires without a
// worker, because no process could declare it again. A call of a function without
// workers therefore waits for one until its deadline.
type Plan struct {
	Names     topology.Names
	functions []string // event functions
	topology.Part
}

// New returns the plan for the functions and for every process. n must be
// predeclared.
func New(n topology.Names, fns []contract.Descriptor) Plan {
	p := Plan{Names: n}
	p.add(n.Common(), n.ExpiredCalls(), n.DeadRegister(), n.DueEvents())
	for _, tier := range delay.Tiers {
		d := n.DelayTier(tier.Name(), tier.Length())
		d.Queues = d.Queues[1:] // the queue of due events was added before
		p.add(d)
	}
	sources := map[string]bool{n.Events(): true}
	for _, d := range fns {
		if d.Kind == contract.KindRequest {
			p.add(n.RequestFunction(&d))
			continue
		}
		p.functions = append(p.functions, d.Name)
		source := cmp.Or(d.Exchange, n.Events())
		if !sources[source] {
			sources[source] = true
			p.add(n.Source(source))
		}
		p.add(n.EventFunction(&d, source))
	}
	return p
}

func (p *Plan) add(parts ...topology.Part) {
	for _, part := range parts {
		p.Exchanges = append(p.Exchanges, part.Exchanges...)
		p.Queues = append(p.Queues, part.Queues...)
		p.Bindings = append(p.Bindings, part.Bindings...)
	}
}

// Definitions returns the plan in the format of RabbitMQ (rabbitmqctl
// import_definitions, load_definitions, the management API), for a virtual host.
func (p Plan) Definitions(vhost string) ([]byte, error) {
	type table = map[string]any
	exchanges, queues, bindings := []table{}, []table{}, []table{}
	for _, x := range p.Exchanges {
		exchanges = append(exchanges, table{
			"name": x.Name, "vhost": vhost, "type": x.Kind, "durable": true, "auto_delete": false, "internal": false, "arguments": x.Arguments(),
		})
	}
	for _, q := range p.Queues {
		queues = append(queues, table{"name": q.Name, "vhost": vhost, "durable": true, "auto_delete": false, "arguments": q.Arguments})
	}
	for _, b := range p.Bindings {
		bindings = append(bindings, table{
			"source": b.Exchange, "vhost": vhost, "destination": b.Queue, "destination_type": "queue", "routing_key": b.Key, "arguments": table{},
		})
	}
	return json.MarshalIndent(table{"exchanges": exchanges, "queues": queues, "bindings": bindings}, "", "  ")
}

// pieces yields each exchange, and then each queue, with its description.
func (p Plan) pieces() iter.Seq2[string, topology.Part] {
	return func(yield func(string, topology.Part) bool) {
		for _, x := range p.Exchanges {
			if !yield(x.String(), topology.Part{Exchanges: []topology.Exchange{x}}) {
				return
			}
		}
		for _, q := range p.Queues {
			if !yield(q.String(), topology.Part{Queues: []topology.Queue{q}}) {
				return
			}
		}
	}
}
