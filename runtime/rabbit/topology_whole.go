package rabbit

import (
	"cmp"
	"encoding/json"
	"iter"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// Topology is all that functions need on the broker when processes may declare
// nothing themselves (Config.NoDeclare). It differs from what they declare in
// one thing: no queue goes with its last worker, for it could not come back. So
// a call of a function without workers waits, until its deadline, for one.
type Topology struct {
	names     names
	functions []string // those with dead letters
	topology
}

// TopologyOf returns what the functions need, and what every process does.
func TopologyOf(namespace string, fns []contract.Descriptor) (Topology, error) {
	cfg := Config{Namespace: namespace, URL: "amqp://localhost"}.withDefaults()
	if err := cfg.validate(); err != nil {
		return Topology{}, err
	}
	n := names{namespace: cfg.Namespace, fixed: true}
	t := Topology{names: n}
	t.add(n.common(), n.expiredCalls(), n.deadRegister(), n.dueEvents())
	for _, tier := range delayTiers {
		d := n.delayTier(tier)
		d.queues = d.queues[1:] // the queue due stands there already
		t.add(d)
	}
	sources := map[string]bool{n.events(): true}
	for _, d := range fns {
		if d.Kind == contract.KindRequest {
			t.add(n.requestFunction(&d))
			continue
		}
		t.functions = append(t.functions, d.Name)
		source := cmp.Or(d.Exchange, n.events())
		if !sources[source] {
			sources[source] = true
			t.add(n.source(source))
		}
		t.add(n.eventFunction(&d, source))
	}
	return t, nil
}

func (t *Topology) add(parts ...topology) {
	for _, p := range parts {
		t.exchanges = append(t.exchanges, p.exchanges...)
		t.queues = append(t.queues, p.queues...)
		t.bindings = append(t.bindings, p.bindings...)
	}
}

// Definitions returns the topology as RabbitMQ's own tools take it (rabbitmqctl
// import_definitions, load_definitions, the management API), for a virtual host.
func (t Topology) Definitions(vhost string) ([]byte, error) {
	type table = map[string]any
	exchanges, queues, bindings := []table{}, []table{}, []table{}
	for _, x := range t.exchanges {
		exchanges = append(exchanges, table{
			"name": x.name, "vhost": vhost, "type": x.kind, "durable": true, "auto_delete": false, "internal": false, "arguments": x.arguments(),
		})
	}
	for _, q := range t.queues {
		queues = append(queues, table{"name": q.name, "vhost": vhost, "durable": true, "auto_delete": false, "arguments": q.arguments})
	}
	for _, b := range t.bindings {
		bindings = append(bindings, table{
			"source": b.exchange, "vhost": vhost, "destination": b.queue, "destination_type": "queue", "routing_key": b.key, "arguments": table{},
		})
	}
	return json.MarshalIndent(table{"exchanges": exchanges, "queues": queues, "bindings": bindings}, "", "  ")
}

// pieces yields each exchange, and then each queue, with what it is called.
func (t Topology) pieces() iter.Seq2[string, topology] {
	return func(yield func(string, topology) bool) {
		for _, x := range t.exchanges {
			if !yield(x.String(), topology{exchanges: []exchange{x}}) {
				return
			}
		}
		for _, q := range t.queues {
			if !yield(q.String(), topology{queues: []queue{q}}) {
				return
			}
		}
	}
}
