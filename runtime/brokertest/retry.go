package brokertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/faas"
)

// quick is a retry policy with short waits.
var quick = contract.Retry{Max: 3, First: 100 * time.Millisecond, Factor: 1}

// An attempt is one run of the function "try".
type attempt struct {
	id string
	n  int
	at time.Time
}

// trying returns the event function "try", which sends each run to ch and then
// returns the error of fn.
func trying(ch chan<- attempt, fn func(e contract.Event) error, options ...faas.Option) contract.Function {
	return onEvent("try", func(_ context.Context, e contract.Event) error {
		ch <- attempt{e.ID, e.Attempt, time.Now()}
		return fn(e)
	}, append(options, faas.Keys("x"))...)
}

// untilLast publishes an event that is due after every retry, and returns the runs
// before it.
func (s *system) untilLast(b Broker, got <-chan attempt) (runs []attempt) {
	s.Helper()
	s.publish(b, contract.Event{Key: "x", ID: "last", NotBefore: time.Now().Add(time.Second)})
	for {
		a := receive(s.T, got, "a run")
		if a.id == "last" {
			return runs
		}
		runs = append(runs, a)
	}
}

func numbers(runs []attempt) (list []int) {
	for _, a := range runs {
		list = append(list, a.n)
	}
	return list
}

func attemptsCounted(s *system) {
	got := make(chan attempt, 100)
	s.serve(trying(got, func(e contract.Event) error {
		if e.ID == "1" && e.Attempt < 3 {
			return errors.New("not yet")
		}
		return nil
	}, quick))
	b := s.broker()
	s.publish(b, contract.Event{Key: "x", ID: "1"})
	for n := 1; n <= 3; n++ {
		if a := receive(s.T, got, "an attempt"); a.n != n {
			s.Errorf("got attempt %d, want %d", a.n, n)
		}
	}
	if more := s.untilLast(b, got); len(more) > 0 {
		s.Errorf("it ran again after it had succeeded: attempts %v", numbers(more))
	}
}

func retryAfter(s *system) {
	got := make(chan attempt, 100)
	s.serve(trying(got, func(e contract.Event) error {
		if e.Attempt == 1 {
			return faas.RetryAfter(500*time.Millisecond, errors.New("busy"))
		}
		return nil
	}, quick))
	s.publish(s.broker(), contract.Event{Key: "x", ID: "1"})
	first, second := receive(s.T, got, "the first attempt"), receive(s.T, got, "the second attempt")
	if waited := second.at.Sub(first.at); waited < 500*time.Millisecond {
		s.Errorf("it was delivered again after %v, want at least 500ms", waited)
	}
}

func panicIsRetried(s *system) {
	got := make(chan attempt, 100)
	s.serve(trying(got, func(e contract.Event) error {
		if e.Attempt == 1 {
			panic("once")
		}
		return nil
	}, quick))
	s.publish(s.broker(), contract.Event{Key: "x", ID: "1"})
	for n := 1; n <= 2; n++ {
		if a := receive(s.T, got, "an attempt"); a.n != n {
			s.Errorf("got attempt %d, want %d", a.n, n)
		}
	}
}

func permanentIsNot(s *system) {
	got := make(chan attempt, 100)
	s.serve(trying(got, func(e contract.Event) error {
		if e.ID == "last" {
			return nil
		}
		return faas.Permanent("never")
	}, quick))
	b := s.broker()
	s.publish(b, contract.Event{Key: "x", ID: "1"})
	if runs := s.untilLast(b, got); !slices.Equal(numbers(runs), []int{1}) {
		s.Errorf("got attempts %v, want the first only", numbers(runs))
	}
}

func exhausted(s *system) {
	got := make(chan attempt, 100)
	s.serve(trying(got, func(e contract.Event) error {
		if e.ID == "last" {
			return nil
		}
		return errors.New("always")
	}, quick))
	b := s.broker()
	s.publish(b, contract.Event{Key: "x", ID: "1"})
	var runs []attempt
	for range quick.Max {
		runs = append(runs, receive(s.T, got, "an attempt"))
	}
	runs = append(runs, s.untilLast(b, got)...)
	if !slices.Equal(numbers(runs), []int{1, 2, 3}) {
		s.Errorf("got attempts %v, want 1, 2, 3", numbers(runs))
	}
}

// nextDecides checks that Retry.Next is called, where the function runs.
func nextDecides(s *system) {
	hopeless := errors.New("hopeless")
	policy := quick
	policy.Next = func(_ int, err error) (time.Duration, bool) { return time.Millisecond, !errors.Is(err, hopeless) }
	got := make(chan attempt, 100)
	s.serve(trying(got, func(e contract.Event) error {
		switch {
		case e.ID == "last":
			return nil
		case e.Attempt < 2:
			return errors.New("not yet")
		}
		return hopeless
	}, policy))
	b := s.broker()
	s.publish(b, contract.Event{Key: "x", ID: "1"})
	runs := []attempt{receive(s.T, got, "the first attempt"), receive(s.T, got, "the second attempt")}
	runs = append(runs, s.untilLast(b, got)...)
	if !slices.Equal(numbers(runs), []int{1, 2}) {
		s.Errorf("got attempts %v, want 1, 2: the policy gives up", numbers(runs))
	}
}

func delaysNoOther(s *system) {
	got := make(chan attempt, 100)
	s.serve(trying(got, func(e contract.Event) error {
		if e.ID == "poison" && e.Attempt == 1 {
			return faas.RetryAfter(3*limit, errors.New("busy"))
		}
		return nil
	}, quick, faas.Concurrency(1)))
	b := s.broker()
	s.publish(b, contract.Event{Key: "x", ID: "poison"})
	for range 5 {
		s.publish(b, contract.Event{Key: "x", ID: "good"})
	}
	var ids []string
	for range 6 {
		ids = append(ids, receive(s.T, got, "a run").id)
	}
	if want := []string{"poison", "good", "good", "good", "good", "good"}; !slices.Equal(ids, want) {
		s.Errorf("got %v, want %v", ids, want)
	}
}

func postponed(s *system) {
	got := make(chan attempt, 100)
	f := trying(got, func(e contract.Event) error {
		if e.Attempt == 1 {
			return errors.New("not yet")
		}
		return nil
	}, quick)
	run, waits := f.Handle, 0
	f.Handle = func(ctx context.Context, e *contract.Event) ([]byte, error) {
		if waits++; waits <= quick.Max+1 {
			return nil, contract.Postpone(50*time.Millisecond, errors.New("not now"))
		}
		return run(ctx, e)
	}
	s.serve(f)
	s.publish(s.broker(), contract.Event{Key: "x", ID: "1"})
	for n := 1; n <= 2; n++ {
		if a := receive(s.T, got, "an attempt"); a.n != n {
			s.Errorf("got attempt %d, want %d", a.n, n)
		}
	}
}

func orderedHoldsOrder(s *system) {
	got := make(chan attempt, 100)
	s.serve(trying(got, func(e contract.Event) error {
		switch {
		case e.ID == "1" && e.Attempt < 3:
			return errors.New("not yet")
		case e.ID == "3":
			return faas.Permanent("never")
		case e.ID == "4":
			return errors.New("always")
		}
		return nil
	}, quick, faas.Ordered()))
	b := s.broker()
	for _, id := range []string{"0", "1", "2", "3", "4", "5"} {
		s.publish(b, contract.Event{Key: "x", ID: id})
	}
	var runs []string
	for range 10 {
		a := receive(s.T, got, "a run")
		runs = append(runs, fmt.Sprint(a.id, "/", a.n))
	}
	if want := []string{"0/1", "1/1", "1/2", "1/3", "2/1", "3/1", "4/1", "4/2", "4/3", "5/1"}; !slices.Equal(runs, want) {
		s.Errorf("got the runs %v, want %v", runs, want)
	}
}
