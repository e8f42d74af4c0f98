package brokertest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/faas"
)

// A gauge counts the runs at the same time, and keeps the maximum.
type gauge struct {
	now, most atomic.Int32
}

func (g *gauge) enter() {
	n := g.now.Add(1)
	for most := g.most.Load(); n > most && !g.most.CompareAndSwap(most, n); most = g.most.Load() {
	}
}

func (g *gauge) exit() { g.now.Add(-1) }

const bound, total = 3, 30

// bounded waits for total runs of a function with the concurrency bound. It ends
// one run at a time, and only while bound functions run.
func (s *system) bounded(started <-chan struct{}, release chan<- struct{}, g *gauge) {
	s.Helper()
	for range bound {
		receive(s.T, started, "a start")
	}
	for range total - bound {
		release <- struct{}{}
		receive(s.T, started, "a start")
	}
	for range bound {
		release <- struct{}{}
	}
	if most := g.most.Load(); most != bound {
		s.Errorf("%d ran at once, want %d", most, bound)
	}
}

func concurrencyOfEvents(s *system) {
	var g gauge
	started, release := make(chan struct{}, total), make(chan struct{}, total)
	s.serve(onEvent("bounded", func(context.Context, contract.Event) error {
		g.enter()
		defer g.exit()
		started <- struct{}{}
		<-release
		return nil
	}, faas.Keys("x"), faas.Concurrency(bound)))
	b := s.broker()
	for range total {
		s.publish(b, contract.Event{Key: "x"})
	}
	s.bounded(started, release, &g)
}

func concurrencyOfCalls(s *system) {
	var g gauge
	started, release := make(chan struct{}, total), make(chan struct{}, total)
	s.serve(onAsk("bounded", func(_ context.Context, in ask) (answer, error) {
		g.enter()
		defer g.exit()
		started <- struct{}{}
		<-release
		return answer{ID: in.ID}, nil
	}, faas.Concurrency(bound)))
	b := s.broker()
	var wg sync.WaitGroup
	for i := range total {
		wg.Go(func() {
			if _, err := b.Call(s.within(), asking(fmt.Sprint(i))); err != nil {
				s.Errorf("call: %v", err)
			}
		})
	}
	s.bounded(started, release, &g)
	wg.Wait()
}

func drain(s *system) {
	const n = 10
	got := make(chan string, 10*n)
	started, release := make(chan struct{}, 1), make(chan struct{})
	f := func(by string) contract.Function {
		return onEvent("drained", func(_ context.Context, e contract.Event) error {
			if by == "old" {
				started <- struct{}{}
				<-release
			}
			got <- fmt.Sprint(by, " ", e.ID, " ", e.Attempt)
			return nil
		}, faas.Keys("x"), faas.Concurrency(1))
	}
	old := s.serve(f("old"))
	b := s.broker()
	want := []string{"old 0 1"}
	for i := range n {
		s.publish(b, contract.Event{Key: "x", ID: fmt.Sprint(i)})
		if i > 0 {
			want = append(want, fmt.Sprintf("new %d 1", i))
		}
	}
	receive(s.T, started, "the start at the old worker")
	old.startStop()
	s.serve(f("new"))
	var all []string
	for range n - 1 {
		all = append(all, receive(s.T, got, "an event that the old worker had not started"))
	}
	close(release) // the run of the old worker may still finish
	old.stop()
	all = append(all, receive(s.T, got, "the event that ran at the old worker"))
	s.publish(b, contract.Event{Key: "x", ID: "last"})
	all = append(all, receive(s.T, got, "the last event"))
	want = append(want, "new last 1")
	slices.Sort(all)
	slices.Sort(want)
	if !slices.Equal(all, want) {
		s.Errorf("got %v, want %v", all, want)
	}
}

func callsSurviveReplacement(s *system) {
	b := s.broker()
	current := s.serve(echo("0"))
	stop := make(chan struct{})
	answered := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := b.Call(s.within(), asking("1")); err != nil {
					s.Errorf("a call failed while workers were replaced: %v", err)
					return
				}
				select {
				case answered <- struct{}{}:
				default:
				}
			}
		})
	}
	for i := range 5 {
		receive(s.T, answered, "a reply before the replacement")
		next := s.serve(echo(fmt.Sprint(i + 1)))
		current.stop()
		current = next
	}
	receive(s.T, answered, "a reply after the last replacement")
	close(stop)
	wg.Wait()
}

func directory(s *system) {
	b := s.broker()
	f := onAsk("listed", func(_ context.Context, in ask) (answer, error) { return answer{ID: in.ID}, nil },
		faas.HTTP("GET /things/{id}"), faas.Concurrency(7))
	first := s.serve(f) // waits until the directory of b has it
	live, known := b.Directory().Find("thing.ask")
	if !known || live.Name != "listed" || len(live.Workers) != 1 || live.Concurrency != 7 || live.Route == nil || live.Route.Path != "/things/{id}" {
		s.Errorf("with one worker: got %+v", live)
	}
	second := s.serve(f)
	late := s.broker() // must find the workers that started before it
	s.awaitDirectories([]contract.Function{f})
	if live, _ := late.Directory().Find("listed"); len(live.Workers) != 2 {
		s.Errorf("the directory of a later process has the workers %q, want 2", live.Workers)
	}
	first.stop()
	s.awaitDirectories([]contract.Function{f})
	second.stop()
	s.awaitDirectories([]contract.Function{f})
	if live, known := b.Directory().Find("listed"); !known || len(live.Workers) != 0 {
		s.Errorf("after the last worker: got known %v with %q, want it known without workers", known, live.Workers)
	}
}
