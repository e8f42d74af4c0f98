package provision

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/connection"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/topology"
)

// Difference is one way in which the broker differs from a topology.
type Difference struct {
	What     string // such as: queue "rabbet.dead"
	Argument string // the property that differs; "" if all of it is missing or extra
	Found    string // value of the property
	Wanted   string
	Extra    bool // it exists, but is not in the topology
}

func (d Difference) String() string {
	switch {
	case d.Extra:
		return "extra    " + d.What
	case d.Argument == "":
		return "missing  " + d.What
	}
	return "differs  " + d.What + ": " + topology.Drift{Argument: d.Argument, Found: d.Found, Wanted: d.Wanted}.String()
}

// Diff compares the plan with the broker over AMQP. It finds only the first
// property that differs, and compares no bindings. unchecked says what was not
// compared, and why.
func (p Plan) Diff(ctx context.Context, c *connection.Connection) (differences []Difference, unchecked []string, err error) {
	for what, piece := range p.pieces() {
		missing, err := inspect(ctx, c, piece)
		reason, _ := errors.AsType[*amqp.Error](err)
		switch {
		case missing:
			differences = append(differences, Difference{What: what})
		case err == nil:
		case reason != nil && reason.Code == amqp.PreconditionFailed:
			d, ok := topology.ParseDrift(reason.Reason)
			if !ok {
				d = topology.Drift{Argument: reason.Reason}
			}
			differences = append(differences, Difference{What: what, Argument: d.Argument, Found: d.Found, Wanted: d.Wanted})
		case reason != nil && reason.Code == amqp.AccessRefused:
			unchecked = append(unchecked, "the arguments of "+what+": the user may not declare")
		default:
			return nil, nil, err
		}
	}
	return differences, append(unchecked, fmt.Sprintf("%d bindings: AMQP cannot ask for them", len(p.Bindings))), nil
}

// DiffByManagement compares the plan with the virtual host by the management API at
// the URL, whose user needs the tag monitoring.
func (p Plan) DiffByManagement(ctx context.Context, url, vhost string) ([]Difference, error) {
	found, err := takeSurvey(ctx, url, vhost)
	if err != nil {
		return nil, err
	}
	var list []Difference
	for _, x := range p.Exchanges {
		there, ok := found.exchanges[x.Name]
		switch {
		case !ok:
			list = append(list, Difference{What: x.String()})
		case x.Foreign:
		case there.Kind != x.Kind:
			list = append(list, Difference{What: x.String(), Argument: "type", Found: there.Kind, Wanted: x.Kind})
		case !there.Durable:
			list = append(list, Difference{What: x.String(), Argument: "durable", Found: "false", Wanted: "true"})
		case there.alternate() != x.Alternate:
			list = append(list, Difference{What: x.String(), Argument: topology.ArgumentAlternate, Found: cmp.Or(there.alternate(), "none"), Wanted: cmp.Or(x.Alternate, "none")})
		}
	}
	for _, q := range p.Queues {
		there, ok := found.queues[q.Name]
		if !ok {
			list = append(list, Difference{What: q.String()})
			continue
		}
		list = append(list, compareQueue(q, there)...)
	}
	return append(list, p.compareBindings(found.bindings)...), nil
}

// compareQueue returns how the existing queue differs from q.
func compareQueue(q topology.Queue, there existingQueue) (list []Difference) {
	found := map[string]string{"durable": fmt.Sprint(there.Durable), "auto-delete": fmt.Sprint(there.AutoDelete)}
	for name, v := range there.Arguments {
		found[name] = fmt.Sprint(v)
	}
	wanted := map[string]string{"durable": "true", "auto-delete": "false"}
	for name, v := range q.Arguments {
		wanted[name] = fmt.Sprint(v)
	}
	all := maps.Clone(found)
	maps.Copy(all, wanted)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		f, isThere := found[name]
		w, isWanted := wanted[name]
		if isThere == isWanted && f == w {
			continue
		}
		if !isThere {
			f = "none"
		}
		if !isWanted {
			w = "none"
		}
		list = append(list, Difference{What: q.String(), Argument: name, Found: f, Wanted: w})
	}
	return list
}

// compareBindings returns which bindings are missing, and which bind queues of the
// plan to further keys.
func (p Plan) compareBindings(there map[topology.Binding]bool) (list []Difference) {
	wanted, queues := map[topology.Binding]bool{}, map[string]bool{}
	for _, b := range p.Bindings {
		wanted[b] = true
		if !there[b] {
			list = append(list, Difference{What: b.String()})
		}
	}
	for _, q := range p.Queues {
		queues[q.Name] = true
	}
	var extra []string
	for b := range there {
		if queues[b.Queue] && !wanted[b] {
			extra = append(extra, b.String())
		}
	}
	slices.Sort(extra)
	for _, what := range extra {
		list = append(list, Difference{What: what, Extra: true})
	}
	return list
}
