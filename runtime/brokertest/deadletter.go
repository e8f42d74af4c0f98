package brokertest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/faas"
)

// letters returns the dead letters of the function "try", and keeps them.
func (s *system) letters(b Broker) (list []contract.DeadLetter) {
	s.Helper()
	s.visit(b, func(l *contract.DeadLetter) (contract.DeadLetterAction, error) {
		list = append(list, *l)
		return contract.ActionKeep, nil
	})
	return list
}

// visit visits the dead letters of the function "try".
func (s *system) visit(b Broker, fn func(l *contract.DeadLetter) (contract.DeadLetterAction, error)) {
	s.Helper()
	if err := b.VisitDeadLetters(s.within(), "try", fn); err != nil {
		s.Fatalf("VisitDeadLetters: %v", err)
	}
}

// untilDead waits until the function "try" has n dead letters.
func (s *system) untilDead(b Broker, n int) {
	s.Helper()
	ctx := s.within()
	for tick := time.NewTicker(20 * time.Millisecond); ; <-tick.C {
		list, err := b.DeadLetterCounts(ctx, "try")
		if err != nil {
			s.Fatalf("DeadLetterCounts: %v", err)
		}
		if slices.Equal(list, []contract.DeadLetterCount{{Name: "try", Letters: n}}) || n == 0 && len(list) == 0 {
			return
		}
	}
}

// makeLetters makes dead letters with the ids 0 to n-1 and the bodies {"n":id}, in
// this order. Those that are replayed succeed, and are sent to runs.
func (s *system) makeLetters(n int, options ...faas.Option) (b Broker, runs <-chan contract.Event) {
	s.Helper()
	var succeed atomic.Bool
	got := make(chan contract.Event, 2*n)
	fail := func(e contract.Event) error {
		if succeed.Load() {
			got <- e
			return nil
		}
		return faas.Permanent("never %s", e.ID)
	}
	s.serve(trying(make(chan attempt, 2*n), fail, append(options, faas.Ordered())...))
	b = s.broker()
	for i := range n {
		s.publish(b, contract.Event{Key: "x", ID: fmt.Sprint(i), Body: fmt.Appendf(nil, `{"n":%d}`, i), Headers: map[string]any{"color": "red"}, Type: "t"})
	}
	s.untilDead(b, n)
	succeed.Store(true)
	return b, got
}

func ids(letters []contract.DeadLetter) (list []string) {
	for _, l := range letters {
		list = append(list, l.Event.ID)
	}
	return list
}

func deadLetter(s *system) {
	before := time.Now().Add(-time.Second)
	got := make(chan attempt, 10)
	s.serve(trying(got, func(contract.Event) error { panic("no good") }, quick))
	b := s.broker()
	body := "\x00\xff not JSON"
	s.publish(b, contract.Event{
		Key: "x", ID: "1", ContentType: "text/odd", Type: "t", Body: []byte(body), Correlation: "c",
		Headers: map[string]any{"color": "red"}, Trace: contract.Trace{Parent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
	})
	s.untilDead(b, 1)
	l := s.letters(b)[0]
	for _, c := range []struct {
		what      string
		got, want any
	}{
		{"function", l.Function, "try"}, {"code", l.Code, contract.CodeExhausted}, {"attempts", l.Event.Attempt, quick.Max},
		{"key", l.Event.Key, "x"}, {"id", l.Event.ID, "1"}, {"content type", l.Event.ContentType, "text/odd"},
		{"type", l.Event.Type, "t"}, {"body", string(l.Event.Body), body}, {"correlation", l.Event.Correlation, "c"},
		{"headers", fmt.Sprint(l.Event.Headers), "map[color:red]"}, {"trace", l.Event.Trace.Parent[:2], "00"},
		{"error", strings.Contains(l.Error, "no good"), true}, {"stack", strings.Contains(l.Stack, "deadletter.go"), true},
		{"worker", l.Worker == "", false}, {"first", l.First.After(before), true},
		{"last, which is two retries after the first", l.Last.After(l.First), true},
	} {
		if c.got != c.want {
			s.Errorf("%s: got %v, want %v", c.what, c.got, c.want)
		}
	}
}

func deadKeptInOrder(s *system) {
	const n = 250
	b, _ := s.makeLetters(n)
	for range 3 {
		letters := s.letters(b)
		for i, l := range letters {
			if l.Event.ID != fmt.Sprint(i) {
				s.Fatalf("in place %d: got %s", i, l.Event.ID)
			}
		}
		if len(letters) != n {
			s.Fatalf("got %d letters, want %d", len(letters), n)
		}
	}
}

func deadReplay(s *system) {
	b, runs := s.makeLetters(5)
	s.visit(b, func(l *contract.DeadLetter) (contract.DeadLetterAction, error) {
		if l.Event.ID == "1" || l.Event.ID == "3" {
			return contract.ActionReplay, nil
		}
		return contract.ActionKeep, nil
	})
	for _, want := range []string{"1", "3"} {
		e := receive(s.T, runs, "the run of a letter that was replayed")
		if e.ID != want || e.Attempt != 1 || e.Key != "x" || string(e.Body) != `{"n":`+want+`}` || e.Type != "t" || fmt.Sprint(e.Headers) != "map[color:red]" {
			s.Errorf("got %+v, want the event %s as it was published, on attempt 1", e, want)
		}
	}
	if got := ids(s.letters(b)); !slices.Equal(got, []string{"0", "2", "4"}) {
		s.Errorf("remaining letters: got %v, want 0, 2 and 4", got)
	}
}

func deadReplace(s *system) {
	b, runs := s.makeLetters(3)
	s.visit(b, func(l *contract.DeadLetter) (contract.DeadLetterAction, error) {
		if l.Event.ID != "1" {
			return contract.ActionKeep, nil
		}
		l.Event.Body = []byte("corrected")
		return contract.ActionReplace, nil
	})
	letters := s.letters(b)
	if got := ids(letters); !slices.Equal(got, []string{"0", "2", "1"}) {
		s.Fatalf("got %v, want the replaced letter at the end", got)
	}
	if l := letters[2]; string(l.Event.Body) != "corrected" || l.Code != contract.CodePermanent || l.Error != "permanent: never 1" || l.Event.Attempt != 1 {
		s.Errorf("got %+v, want the letter with another body", l)
	}
	s.visit(b, func(l *contract.DeadLetter) (contract.DeadLetterAction, error) {
		if l.Event.ID == "0" {
			l.Event.Body = []byte("changed and replayed")
		}
		return contract.ActionReplay, nil
	})
	for _, want := range []string{"0 changed and replayed", `2 {"n":2}`, "1 corrected"} {
		if e := receive(s.T, runs, "a run"); e.ID+" "+string(e.Body) != want {
			s.Errorf("got %s %s, want %s", e.ID, e.Body, want)
		}
	}
}

func deadDiscard(s *system) {
	b, runs := s.makeLetters(4)
	seen := 0
	s.visit(b, func(l *contract.DeadLetter) (contract.DeadLetterAction, error) {
		if seen++; seen == 3 {
			return contract.ActionStop, nil
		}
		return contract.ActionDiscard, nil
	})
	if got := ids(s.letters(b)); !slices.Equal(got, []string{"2", "3"}) || seen != 3 {
		s.Errorf("remaining letters after %d visits: got %v, want 2 and 3, after 3", seen, got)
	}
	s.visit(b, func(*contract.DeadLetter) (contract.DeadLetterAction, error) { return contract.ActionDiscard, nil })
	s.untilDead(b, 0)
	if len(runs) > 0 {
		s.Error("a discarded letter ran")
	}
}

func deadStopsAtAnError(s *system) {
	b, _ := s.makeLetters(3)
	stop := errors.New("stop")
	var removed []string
	err := b.VisitDeadLetters(s.within(), "try", func(l *contract.DeadLetter) (contract.DeadLetterAction, error) {
		l.OnRemoved = func() { removed = append(removed, l.Event.ID) }
		if l.Event.ID == "1" {
			return contract.ActionDiscard, stop
		}
		return contract.ActionDiscard, nil
	})
	if !errors.Is(err, stop) {
		s.Errorf("got %v, want the error of the visit", err)
	}
	if !slices.Equal(removed, []string{"0"}) {
		s.Errorf("OnRemoved: got %v, want 0", removed)
	}
	if got := ids(s.letters(b)); !slices.Equal(got, []string{"1", "2"}) {
		s.Errorf("remaining letters: got %v, want 1 and 2", got)
	}
}

// deadWithoutWorkers visits the letters from a process that starts after the last
// worker of the function has stopped.
func deadWithoutWorkers(s *system) {
	v := s.serve(trying(make(chan attempt, 10), func(contract.Event) error { return faas.Permanent("never") }))
	s.publish(s.broker(), contract.Event{Key: "x", ID: "1"})
	s.untilDead(s.broker(), 1)
	v.stop()
	late := s.broker()
	list, err := late.DeadLetterCounts(s.within())
	if err != nil || len(list) != 1 || list[0].Name != "try" || list[0].Letters != 1 {
		s.Errorf("DeadLetterCounts: got %v, %v; want one letter of try", list, err)
	}
	s.visit(late, func(*contract.DeadLetter) (contract.DeadLetterAction, error) { return contract.ActionReplay, nil })
	got := make(chan attempt, 10)
	s.serve(trying(got, func(contract.Event) error { return nil }))
	if a := receive(s.T, got, "the run of a letter that was replayed while it had no worker"); a.id != "1" || a.n != 1 {
		s.Errorf("got %s on attempt %d, want 1 on attempt 1", a.id, a.n)
	}
}

func deadUnknownFunction(s *system) {
	b := s.broker()
	err := b.VisitDeadLetters(s.within(), "unknown", func(*contract.DeadLetter) (contract.DeadLetterAction, error) { return contract.ActionKeep, nil })
	if !errors.Is(err, contract.ErrNotFound) {
		s.Errorf("VisitDeadLetters of a function that was never hosted: got %v, want contract.ErrNotFound", err)
	}
	if list, err := b.DeadLetterCounts(s.within(), "unknown"); err != nil || len(list) > 0 {
		s.Errorf("DeadLetterCounts: got %v, %v; want none", list, err)
	}
}
