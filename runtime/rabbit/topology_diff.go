package rabbit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Difference is one respect in which the broker is not as a topology wants it.
type Difference struct {
	What     string // such as: queue "rabbet.dead"
	Argument string // what of it differs; "" if all of it is missing, or too much
	Found    string // of the argument
	Wanted   string
	Extra    bool // it is there, and nobody wants it
}

func (d Difference) String() string {
	switch {
	case d.Extra:
		return "extra    " + d.What
	case d.Argument == "":
		return "missing  " + d.What
	}
	return "differs  " + d.What + ": " + drift{d.Argument, d.Found, d.Wanted}.String()
}

// Diff compares the topology with the broker. management is the URL of the
// broker's management API, whose user needs the tag monitoring; without it,
// bindings are not compared, of what differs only the first argument is known,
// and the user of cfg needs permission to declare: then unchecked says what
// could not be compared, and why.
func (t Topology) Diff(ctx context.Context, cfg Config, management string) (differences []Difference, unchecked []string, err error) {
	if management != "" {
		differences, err = t.diffByManagement(ctx, cfg, management)
		return differences, nil, err
	}
	l, unplug, err := plug(ctx, cfg)
	if err != nil {
		return nil, nil, err
	}
	defer unplug()
	for what, piece := range t.pieces() {
		missing, err := l.inspect(ctx, piece)
		reason, _ := errors.AsType[*amqp.Error](err)
		switch {
		case missing:
			differences = append(differences, Difference{What: what})
		case err == nil:
		case reason != nil && reason.Code == amqp.PreconditionFailed:
			d, ok := parseDrift(reason.Reason)
			if !ok {
				d = drift{argument: reason.Reason}
			}
			differences = append(differences, Difference{What: what, Argument: d.argument, Found: d.found, Wanted: d.wanted})
		case reason != nil && reason.Code == amqp.AccessRefused:
			unchecked = append(unchecked, "the arguments of "+what+": the user may not declare")
		default:
			return nil, nil, err
		}
	}
	return differences, append(unchecked, fmt.Sprintf("%d bindings: AMQP cannot ask for them", len(t.bindings))), nil
}

func (t Topology) diffByManagement(ctx context.Context, cfg Config, url string) ([]Difference, error) {
	vhost, err := cfg.VHost()
	if err != nil {
		return nil, err
	}
	found, err := survey(ctx, url, vhost)
	if err != nil {
		return nil, err
	}
	var list []Difference
	for _, x := range t.exchanges {
		there, ok := found.exchanges[x.name]
		switch {
		case !ok:
			list = append(list, Difference{What: x.String()})
		case x.foreign:
		case there.Kind != x.kind:
			list = append(list, Difference{What: x.String(), Argument: "type", Found: there.Kind, Wanted: x.kind})
		case !there.Durable:
			list = append(list, Difference{What: x.String(), Argument: "durable", Found: "false", Wanted: "true"})
		case there.alternate() != x.alternate:
			list = append(list, Difference{What: x.String(), Argument: argumentAlternate, Found: cmp.Or(there.alternate(), "none"), Wanted: cmp.Or(x.alternate, "none")})
		}
	}
	for _, q := range t.queues {
		there, ok := found.queues[q.name]
		if !ok {
			list = append(list, Difference{What: q.String()})
			continue
		}
		list = append(list, q.compare(there)...)
	}
	return append(list, t.compareBindings(found.bindings)...), nil
}

// compare says in what the queue that is there differs from q.
func (q queue) compare(there surveyedQueue) (list []Difference) {
	found := map[string]string{"durable": fmt.Sprint(there.Durable), "auto-delete": fmt.Sprint(there.AutoDelete)}
	for name, v := range there.Arguments {
		found[name] = fmt.Sprint(v)
	}
	wanted := map[string]string{"durable": "true", "auto-delete": "false"}
	for name, v := range q.arguments {
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

// compareBindings says which bindings are missing, and by which too much comes
// to the topology's queues.
func (t Topology) compareBindings(there map[binding]bool) (list []Difference) {
	wanted, queues := map[binding]bool{}, map[string]bool{}
	for _, b := range t.bindings {
		wanted[b] = true
		if !there[b] {
			list = append(list, Difference{What: b.String()})
		}
	}
	for _, q := range t.queues {
		queues[q.name] = true
	}
	var extra []string
	for b := range there {
		if queues[b.queue] && !wanted[b] {
			extra = append(extra, b.String())
		}
	}
	slices.Sort(extra)
	for _, what := range extra {
		list = append(list, Difference{What: what, Extra: true})
	}
	return list
}
