package delay

import (
	"context"
	"sync"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/connection"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/publish"
)

// An outlet publishes delayed messages to one queue, over a channel of its own and
// with a circuit breaker.
//
// RabbitMQ handles the publishes of one channel in order. The first publish to a
// quorum queue that rejects publishes when it is full waits until the leader of
// that queue answers: 5 s or more if there is no leader (rabbit_fifo_client,
// register_enqueuer). On a shared channel, the publishes to all other queues would
// wait as well.
type outlet struct {
	breaker   breaker
	publisher *publish.Publisher

	used time.Time // guarded by outlets.mu
	stop context.CancelFunc
}

// outletIdle is how long an unused outlet is kept.
const outletIdle = time.Minute

// outlets has the outlets by the name of their queue.
type outlets struct {
	connection *connection.Connection

	mu     sync.Mutex
	byName map[string]*outlet
	closed bool
	live   sync.WaitGroup
}

// of returns the outlet of the queue, or of the exchange of a tier.
func (s *outlets) of(name string) *outlet {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.byName[name]
	if o == nil {
		o = &outlet{breaker: breaker{name: name, changed: make(chan struct{})}, publisher: publish.New(publish.Config{Connection: s.connection, Name: "publish to " + name})}
		if s.closed {
			o.publisher.Close()
			return o
		}
		var ctx context.Context
		ctx, o.stop = context.WithCancel(context.Background())
		s.live.Go(func() { o.publisher.Run(ctx) })
		if s.byName == nil {
			s.byName = map[string]*outlet{}
		}
		s.byName[name] = o
	}
	o.used = time.Now()
	return o
}

// run closes unused outlets. When ctx is done, it closes all of them and waits for
// what is in flight until the close deadline.
func (s *outlets) run(ctx context.Context) {
	tick := time.NewTicker(outletIdle / 4)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-tick.C:
			s.closeIdle(time.Now().Add(-outletIdle))
		case <-ctx.Done():
		}
	}
	s.mu.Lock()
	s.closed = true
	for _, o := range s.byName {
		o.stop()
	}
	s.mu.Unlock()
	s.live.Wait()
}

// closeIdle closes the outlets that were last used before t.
func (s *outlets) closeIdle(t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, o := range s.byName {
		if o.used.Before(t) && o.breaker.isIdle() {
			o.stop()
			delete(s.byName, name)
		}
	}
}
