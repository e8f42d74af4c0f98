// Package server is what stores over a network share: reads of one server are
// batched, a circuit breaker protects callers from a server that fails, and an
// operation is repeated when its connection was lost. It knows no protocol.
package server

import (
	"context"
	"slices"
	"sync"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/cache/store"
)

const (
	// MaxInFlight is how many batches of reads may be in flight to one server:
	// enough that a slow one does not delay all others, few enough that reads
	// are batched under load.
	MaxInFlight = 4
	// maxReads is how many reads are in one batch.
	maxReads = 256
)

// A Server batches reads of one server, and counts its failures.
//
// A read is sent at once while fewer than MaxInFlight batches are in flight.
// Otherwise it is pending. When a batch ends, all pending reads are sent as one,
// and a key that several of them want is asked for once.
type Server struct {
	breaker *Breaker
	fetch   FetchFunc

	mu      sync.Mutex
	free    int     // how many batches may be sent now
	pending []*read // in the order of their arrival
}

// A FetchFunc reads keys, which differ from each other, into values in one round
// trip: nil where nothing is stored. It must end by itself, within the timeout of
// the store: a batch has no ctx, because it serves several callers.
type FetchFunc func(keys []string, values [][]byte) error

// New returns a Server that reads with fetch. name is for log messages.
func New(name string, log *zap.Logger, fetch FetchFunc) *Server {
	return &Server{breaker: NewBreaker(log.With(zap.String("server", name))), fetch: fetch, free: MaxInFlight}
}

// Get reads keys into values. It fails with store.ErrCircuitOpen, at once, while
// the circuit breaker is open, and with the error of ctx if that ends while the
// read is pending.
func (s *Server) Get(ctx context.Context, keys []string, values [][]byte) error {
	s.mu.Lock()
	if s.free > 0 {
		s.free--
		s.mu.Unlock()
		err := s.send(keys, values)
		s.next()
		return err
	}
	r := reads.Get().(*read)
	r.keys, r.values, r.err, r.leader = keys, values, nil, false
	s.pending = append(s.pending, r)
	s.mu.Unlock()

	select {
	case <-r.wake:
	case <-ctx.Done():
		if s.withdraw(r) {
			return ctx.Err()
		}
		<-r.wake // it is in flight, or it must send a batch
	}
	if r.leader {
		s.sendPending(r)
	}
	err := r.err
	r.keys, r.values = nil, nil
	reads.Put(r)
	return err
}

// Do runs operation, unless the circuit breaker is open. The server is not
// blamed for an error if ctx has ended.
func (s *Server) Do(ctx context.Context, operation func() error) error {
	if !s.breaker.Allow() {
		return store.ErrCircuitOpen
	}
	return s.DoAlways(ctx, operation)
}

// DoAlways runs operation even if the circuit breaker is open.
func (s *Server) DoAlways(ctx context.Context, operation func() error) error {
	err := operation()
	if err == nil || ctx.Err() == nil {
		s.breaker.Record(err)
	}
	return err
}

// withdraw removes r from the pending reads. It returns false if r is no longer
// pending, or must send a batch.
func (s *Server) withdraw(r *read) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.Index(s.pending, r)
	if i < 0 || r.leader {
		return false
	}
	s.pending = slices.Delete(s.pending, i, i+1)
	return true
}

// sendPending sends r, together with the pending reads that no other leader
// will send.
func (s *Server) sendPending(r *read) {
	b := batches.Get().(*batch)
	s.mu.Lock()
	rest := s.pending[:0]
	for _, p := range s.pending {
		if p == r || !p.leader && len(b.reads) < maxReads {
			b.add(p)
		} else {
			rest = append(rest, p)
		}
	}
	clear(s.pending[len(rest):])
	s.pending = rest
	s.mu.Unlock()

	err := s.send(b.keys, b.values)
	s.next()
	b.deliver(err, r)
	b.release()
}

// send makes one round trip.
func (s *Server) send(keys []string, values [][]byte) error {
	if !s.breaker.Allow() {
		return store.ErrCircuitOpen
	}
	err := s.fetch(keys, values)
	s.breaker.Record(err)
	return err
}

// next passes the place of a batch that has ended to the first pending read,
// which becomes the leader of the next batch.
func (s *Server) next() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.pending {
		if !r.leader {
			r.leader = true
			r.wake <- struct{}{}
			return
		}
	}
	s.free++
}
