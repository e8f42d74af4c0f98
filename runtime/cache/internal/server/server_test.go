package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/cache/store"
)

// echo answers each key with itself, one batch at a time as the test lets it.
type echo struct {
	batches chan []string // keys of a batch that is in flight
	end     chan error    // ends one
	server  *Server
}

func newEcho() *echo {
	s := &echo{batches: make(chan []string, 100), end: make(chan error)}
	s.server = New("test", zap.NewNop(), func(keys []string, values [][]byte) error {
		s.batches <- slices.Clone(keys)
		err := <-s.end
		for i, key := range keys {
			values[i] = []byte(key)
		}
		return err
	})
	return s
}

// read reads keys in the background and sends the error to done.
func (s *echo) read(ctx context.Context, done chan<- error, keys ...string) {
	go func() { // ends with the read
		values := make([][]byte, len(keys))
		err := s.server.Get(ctx, keys, values)
		for i, key := range keys {
			if err == nil && string(values[i]) != key {
				err = fmt.Errorf("got %q for %q", values[i], key)
			}
		}
		done <- err
	}()
}

// queued waits until n reads are pending.
func (s *echo) queued(n int) {
	for {
		s.server.mu.Lock()
		waiting := len(s.server.pending)
		s.server.mu.Unlock()
		if waiting == n {
			return
		}
		time.Sleep(100 * time.Microsecond) // between checks
	}
}

func TestReadsAreBatched(t *testing.T) {
	s, done := newEcho(), make(chan error, 100)
	for i := range MaxInFlight {
		s.read(t.Context(), done, fmt.Sprint("alone", i))
		if sent := <-s.batches; len(sent) != 1 { // would block forever if a lone read were pending
			t.Errorf("a batch that may be sent at once: got %q", sent)
		}
	}
	for i := range 50 {
		s.read(t.Context(), done, fmt.Sprint("entry", i%10), "tag")
	}
	s.queued(50)
	s.end <- nil
	together := <-s.batches
	if slices.Sort(together); len(together) != 11 || together[10] != "tag" {
		t.Errorf("50 reads of 10 entries and a tag: got one batch of %q, want each key once", together)
	}
	for range MaxInFlight {
		s.end <- nil
	}
	for range MaxInFlight + 50 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if s.server.free != MaxInFlight || len(s.server.pending) != 0 {
		t.Errorf("afterwards: room for %d batches, %d reads pending", s.server.free, len(s.server.pending))
	}
}

func TestPendingReadIsWithdrawn(t *testing.T) {
	s, done, left := newEcho(), make(chan error, 100), make(chan error, 1)
	for range MaxInFlight {
		s.read(t.Context(), done, "x")
		<-s.batches
	}
	ctx, cancel := context.WithCancel(t.Context())
	s.read(ctx, left, "y")
	s.queued(1)
	s.read(t.Context(), done, "z")
	s.queued(2)
	cancel()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("the reader that gave up: got %v", err)
	}
	s.end <- nil
	if sent := <-s.batches; !slices.Equal(sent, []string{"z"}) {
		t.Errorf("the next batch: got %q, want z alone", sent)
	}
	for range MaxInFlight {
		s.end <- nil
	}
	for range MaxInFlight + 1 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// Readers start and give up at random: none is forgotten, and no place for a batch
// is lost.
func TestReadersComeAndGo(t *testing.T) {
	l := New("test", zap.NewNop(), func(keys []string, values [][]byte) error {
		for i, key := range keys {
			values[i] = []byte(key)
		}
		return nil
	})
	var all sync.WaitGroup
	for n := range 32 {
		all.Go(func() {
			keys, values := []string{fmt.Sprint(n)}, [][]byte{nil}
			for i := range 200 {
				ctx, cancel := context.WithCancel(t.Context())
				if i%3 == 0 {
					go cancel()
				}
				err := l.Get(ctx, keys, values)
				cancel()
				if err == nil && string(values[0]) != keys[0] {
					t.Errorf("got %q for %q", values[0], keys[0])
				}
			}
		})
	}
	all.Wait()
	if l.free != MaxInFlight || len(l.pending) != 0 {
		t.Errorf("afterwards: room for %d batches, %d reads pending", l.free, len(l.pending))
	}
}

// A read that is pending when the circuit breaker opens fails, and does not try
// the server as well.
func TestPendingReadsFailWithOpenBreaker(t *testing.T) {
	s, failed, shut := newEcho(), make(chan error, 100), make(chan error, 100)
	for range MaxInFlight {
		s.read(t.Context(), failed, "x")
		<-s.batches
	}
	down := errors.New("down")
	for range BreakerFailures - 1 {
		s.read(t.Context(), failed, "y")
		s.queued(1)
		s.end <- down
		<-s.batches
	}
	for range 100 {
		s.read(t.Context(), shut, "z")
	}
	s.queued(100)
	for range MaxInFlight {
		s.end <- down
	}
	for range MaxInFlight + BreakerFailures - 1 {
		if err := <-failed; !errors.Is(err, down) {
			t.Errorf("a read in flight: got %v", err)
		}
	}
	for range 100 {
		if err := <-shut; !errors.Is(err, store.ErrCircuitOpen) {
			t.Errorf("a pending read: got %v, want %v", err, store.ErrCircuitOpen)
		}
	}
	if s.server.free != MaxInFlight || len(s.batches) != 0 {
		t.Errorf("afterwards: room for %d batches, %d sent since", s.server.free, len(s.batches))
	}
}
