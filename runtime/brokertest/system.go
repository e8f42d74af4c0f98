package brokertest

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/faas"
)

// repeat calls fn every 50 ms until done is closed. Broadcasts and tails are best
// effort: the first ones may be missed.
func repeat(done <-chan struct{}, fn func()) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		fn()
		select {
		case <-done:
			return
		case <-tick.C:
		}
	}
}

func broadcast(s *system) {
	one, two := s.broker(), s.broker()
	received := make(chan string, 1000)
	defer one.Listen("topic", func(body []byte) { received <- "one " + string(body) })()
	defer two.Listen("topic", func(body []byte) { received <- "two " + string(body) })()
	defer two.Listen("other", func(body []byte) { received <- "other " + string(body) })()
	done, ended := make(chan struct{}), make(chan struct{})
	ctx := s.within()
	go func() {
		defer close(ended)
		repeat(done, func() {
			if err := one.Broadcast(ctx, "topic", []byte("x")); err != nil {
				s.Errorf("broadcast: %v", err)
			}
		})
	}()
	defer func() { close(done); <-ended }()
	missing := map[string]bool{"one x": true, "two x": true}
	for len(missing) > 0 {
		h := receive(s.T, received, "a broadcast")
		if h == "other x" {
			s.Fatal("a broadcast reached a listener of another topic")
		}
		delete(missing, h)
	}
}

func tail(s *system) {
	s.serve(onEvent("sink", func(context.Context, contract.Event) error { return nil }, faas.Keys("#")))
	b, watcher := s.broker(), s.broker()
	ctx, cancel := context.WithCancel(s.within())
	seen, ended := make(chan contract.Event, 1000), make(chan struct{})
	go func() {
		defer close(ended)
		_ = watcher.Tail(ctx, "profile.*", func(e contract.Event) { seen <- e })
	}()
	done, published := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(published)
		repeat(done, func() {
			for _, key := range []string{"order.placed", "profile.updated"} {
				if err := b.Publish(ctx, contract.Event{Key: key, Body: []byte(`{"id":"1"}`)}); err != nil {
					s.Errorf("publish: %v", err)
				}
			}
		})
	}()
	e := receive(s.T, seen, "a copy of an event")
	close(done)
	<-published
	cancel()
	receive(s.T, ended, "the end of Tail")
	if e.Key != "profile.updated" || string(e.Body) != `{"id":"1"}` {
		s.Errorf("got %s %s", e.Key, e.Body)
	}
	close(seen)
	for e := range seen {
		if e.Key != "profile.updated" {
			s.Errorf("got a copy of %s, which does not match the pattern", e.Key)
		}
	}
}

func closed(s *system) {
	b := s.broker()
	if err := b.Health(); err != nil {
		s.Errorf("Health of an open broker: %v", err)
	}
	if err := b.Close(); err != nil {
		s.Errorf("Close: %v", err)
	}
	if err := b.Close(); err != nil {
		s.Errorf("Close once more: %v", err)
	}
	if err := b.Publish(s.within(), contract.Event{Key: "x"}); !errors.Is(err, contract.ErrUnavailable) {
		s.Errorf("publish on a closed broker: got %v, want contract.ErrUnavailable", err)
	}
	e := s.errorOf(s.within(), b, asking("1"))
	s.wantError(e, contract.CodeUnavailable, contract.ExecutedNo)
	if err := b.Health(); err == nil {
		s.Error("Health of a closed broker: got nil")
	}
}

// closedAtOnce closes a broker from several goroutines while it is in use.
func closedAtOnce(s *system) {
	b := s.broker()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for s.Context().Err() == nil {
				err := b.Publish(s.within(), contract.Event{Key: "unroutable"})
				if errors.Is(err, contract.ErrUnavailable) {
					return
				}
				if !errors.Is(err, contract.ErrUnroutable) && !errors.Is(err, contract.ErrUnconfirmed) {
					s.Errorf("publish: got %v, want unroutable until it is closed", err)
					return
				}
			}
		})
		wg.Go(func() {
			if err := b.Close(); err != nil {
				s.Errorf("Close: %v", err)
			}
		})
	}
	wg.Wait()
}
