package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// server answers each key with itself, one trip at a time as the test lets it.
type server struct {
	trips chan []string // keys of a trip that has begun
	end   chan error    // ends one
	line  *line
}

func newServer() *server {
	s := &server{trips: make(chan []string, 100), end: make(chan error)}
	s.line = newLine("test", zap.NewNop(), func(keys []string, values [][]byte) error {
		s.trips <- slices.Clone(keys)
		err := <-s.end
		for i, key := range keys {
			values[i] = []byte(key)
		}
		return err
	})
	return s
}

// read reads keys in the background and tells done how that went.
func (s *server) read(ctx context.Context, done chan<- error, keys ...string) {
	go func() { // ends with the read
		values := make([][]byte, len(keys))
		err := s.line.get(ctx, keys, values)
		for i, key := range keys {
			if err == nil && string(values[i]) != key {
				err = fmt.Errorf("got %q for %q", values[i], key)
			}
		}
		done <- err
	}()
}

// queued waits until n reads wait for a trip.
func (s *server) queued(n int) {
	for {
		s.line.mu.Lock()
		waiting := len(s.line.waiting)
		s.line.mu.Unlock()
		if waiting == n {
			return
		}
		time.Sleep(100 * time.Microsecond) // between looks
	}
}

func TestReadsGather(t *testing.T) {
	s, done := newServer(), make(chan error, 100)
	for i := range lineTrips {
		s.read(t.Context(), done, fmt.Sprint("alone", i))
		if trip := <-s.trips; len(trip) != 1 { // would wait for ever if a lone read waited
			t.Errorf("a trip that was free: got %q", trip)
		}
	}
	for i := range 50 {
		s.read(t.Context(), done, fmt.Sprint("entry", i%10), "tag")
	}
	s.queued(50)
	s.end <- nil
	together := <-s.trips
	if slices.Sort(together); len(together) != 11 || together[10] != "tag" {
		t.Errorf("50 reads of 10 entries and a tag: got one trip for %q, want each key once", together)
	}
	for range lineTrips {
		s.end <- nil
	}
	for range lineTrips + 50 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if s.line.free != lineTrips || len(s.line.waiting) != 0 {
		t.Errorf("afterwards: %d trips free, %d reads waiting", s.line.free, len(s.line.waiting))
	}
}

func TestReaderLeavesTheQueue(t *testing.T) {
	s, done, left := newServer(), make(chan error, 100), make(chan error, 1)
	for range lineTrips {
		s.read(t.Context(), done, "x")
		<-s.trips
	}
	ctx, cancel := context.WithCancel(t.Context())
	s.read(ctx, left, "y")
	s.queued(1)
	s.read(t.Context(), done, "z")
	s.queued(2)
	cancel()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("the reader who left: got %v", err)
	}
	s.end <- nil
	if trip := <-s.trips; !slices.Equal(trip, []string{"z"}) {
		t.Errorf("the next trip: got %q, want z alone", trip)
	}
	for range lineTrips {
		s.end <- nil
	}
	for range lineTrips + 1 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// Readers come and go as they like: none is forgotten, and every trip is given back.
func TestReadersComeAndGo(t *testing.T) {
	l := newLine("test", zap.NewNop(), func(keys []string, values [][]byte) error {
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
				err := l.get(ctx, keys, values)
				cancel()
				if err == nil && string(values[0]) != keys[0] {
					t.Errorf("got %q for %q", values[0], keys[0])
				}
			}
		})
	}
	all.Wait()
	if l.free != lineTrips || len(l.waiting) != 0 {
		t.Errorf("afterwards: %d trips free, %d reads waiting", l.free, len(l.waiting))
	}
}

// Whoever waits for a server that has just been given up is told, and does not
// try it as well.
func TestWaitingReadersAreTold(t *testing.T) {
	s, failed, shut := newServer(), make(chan error, 100), make(chan error, 100)
	for range lineTrips {
		s.read(t.Context(), failed, "x")
		<-s.trips
	}
	down := errors.New("down")
	for range guardFailures - 1 {
		s.read(t.Context(), failed, "y")
		s.queued(1)
		s.end <- down
		<-s.trips
	}
	for range 100 {
		s.read(t.Context(), shut, "z")
	}
	s.queued(100)
	for range lineTrips {
		s.end <- down
	}
	for range lineTrips + guardFailures - 1 {
		if err := <-failed; !errors.Is(err, down) {
			t.Errorf("who was there before: got %v", err)
		}
	}
	for range 100 {
		if err := <-shut; !errors.Is(err, errShut) {
			t.Errorf("who waited: got %v, want %v", err, errShut)
		}
	}
	if s.line.free != lineTrips || len(s.trips) != 0 {
		t.Errorf("afterwards: %d trips free, %d made since", s.line.free, len(s.trips))
	}
}

// A hit is one request to the server and its answer, for an entry and all of its
// tags; the pools keep the connection.
func TestHitIsOneRoundTrip(t *testing.T) {
	remote(t, func(t *testing.T, url string) {
		scheme, address, _ := strings.Cut(url, "://")
		address, _, _ = strings.Cut(address, "/")
		var requests, connections atomic.Int64
		proxy := listen(t, func(c net.Conn) {
			server, err := net.Dial("tcp", address)
			if err != nil {
				t.Error(err)
				return
			}
			connections.Add(1)
			var both sync.WaitGroup
			both.Go(func() { io.Copy(&counted{server, &requests}, c); server.Close() })
			both.Go(func() { io.Copy(c, server); c.Close() })
			both.Wait()
		})
		r := open(t, scheme+"://"+proxy.address)
		d := with(func(p *contract.CachePolicy) { p.Tags = []string{"thing:{id}", "things", "all"} })
		ask(t, r, &function{}, d, input, contract.CacheDirectives{})
		ask(t, r, &function{}, d, input, contract.CacheDirectives{})
		r.flights.running.Wait()
		before, connected := requests.Load(), connections.Load()
		const hits = 50
		for range hits {
			if got := ask(t, r, &function{}, d, input, contract.CacheDirectives{}); !got.Hit {
				t.Fatalf("got %+v", got)
			}
		}
		if n := requests.Load() - before; n != hits || connections.Load() != connected {
			t.Errorf("%d hits: %d requests to the server and %d new connections, want one for each, and none", hits, n, connections.Load()-connected)
		}
	})
}

// counted counts what is written, each time.
type counted struct {
	io.Writer
	n *atomic.Int64
}

func (c *counted) Write(b []byte) (int, error) {
	c.n.Add(1)
	return c.Writer.Write(b)
}
