// Package publish publishes messages with a publisher confirm, and reports what
// became of each: confirmed, returned, refused, or unknown.
package publish

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"golang.org/x/sync/semaphore"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/connection"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/topology"
)

// MaxUnconfirmed is how many bytes a Publisher has in flight at most.
const MaxUnconfirmed = 64 << 20

const (
	minShare = 32 << 10 // bytes that a publish counts at least: at most 2048 are in flight

	// A channel is replaced if it has not confirmed a publish for this long when
	// its caller gives up.
	stalledAfter = 500 * time.Millisecond
)

// Publisher publishes with publisher confirms, for any number of goroutines over
// one channel. Each waits for its own confirm only.
type Publisher struct {
	cfg  Config
	room *semaphore.Weighted // bytes in flight

	mu      sync.Mutex
	session *session      // nil while there is no channel
	changed chan struct{} // closed when session changes
	closed  bool          // nothing is sent any more
}

// Config says what a publisher publishes over.
type Config struct {
	Connection *connection.Connection
	Name       string        // of the publisher, among the users of Connection
	Needs      topology.Part // declared before the first publish
}

// New returns a Publisher that publishes while Run runs.
func New(cfg Config) *Publisher {
	return &Publisher{cfg: cfg, room: semaphore.NewWeighted(MaxUnconfirmed), changed: make(chan struct{})}
}

// Run publishes until ctx is done, and waits until the close deadline for the
// confirms of what is in flight.
func (p *Publisher) Run(ctx context.Context) {
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var g sync.WaitGroup
	g.Go(func() { p.cfg.Connection.Use(serving, p.cfg.Name, p.useConnection) })
	<-ctx.Done()
	p.Close()
	closing, done := context.WithDeadline(serving, p.cfg.Connection.CloseDeadline())
	defer done()
	if p.room.Acquire(closing, MaxUnconfirmed) == nil { // all of it: nothing is in flight
		p.room.Release(MaxUnconfirmed) // a later publish fails because p is closed
	}
	stop()
	g.Wait()
}

// Publish publishes m as mandatory, and waits for its confirm until ctx is done.
// Errors are those of Broker.Publish.
func (p *Publisher) Publish(ctx context.Context, exchange, key string, m amqp.Publishing) error {
	u, err := p.Send(ctx, exchange, key, m)
	if err != nil {
		return err
	}
	return u.Confirmed(ctx)
}

// Send is the first half of Publish. The caller must call Confirmed, and may send
// other messages before.
func (p *Publisher) Send(ctx context.Context, exchange, key string, m amqp.Publishing) (*Pending, error) {
	size := max(minShare, int64(len(m.Body)))
	if err := p.room.Acquire(ctx, size); err != nil {
		return nil, p.notTaken(ctx)
	}
	s, err := p.usable(ctx)
	if err != nil {
		p.room.Release(size)
		return nil, err
	}
	u := &Pending{publisher: p, session: s, size: size, exchange: exchange, key: key, sent: time.Now()}
	if err := s.write(u, m); err != nil {
		p.room.Release(size)
		if errors.Is(err, amqp.ErrClosed) {
			return nil, &contract.Error{Code: contract.CodeUnavailable, Detail: "the connection to the broker was lost before the event was sent", Executed: contract.ExecutedNo}
		}
		return nil, unconfirmed(ctx, "it could not be written: "+err.Error())
	}
	return u, nil
}

// Pending is a publish in flight.
type Pending struct {
	publisher *Publisher
	session   *session
	size      int64 // its part of Publisher.room

	exchange, key string
	sent          time.Time
	number        int64 // on its channel
	confirm       *amqp.DeferredConfirmation
}

// Confirmed waits for the confirm and returns the outcome. It must be called
// once.
func (u *Pending) Confirmed(ctx context.Context) error {
	select {
	case <-u.confirm.Done():
		u.publisher.room.Release(u.size)
		return u.session.settle(ctx, u)
	case <-ctx.Done():
		if time.Since(u.sent) > stalledAfter {
			u.publisher.replaceChannel(u.session)
		}
		go func() { // ends with the confirmation, or with the connection
			<-u.confirm.Done()
			u.publisher.room.Release(u.size)
			_ = u.session.settle(ctx, u)
		}()
		return unconfirmed(ctx, "the broker has not confirmed it in time")
	}
}

// usable returns the channel to publish on once the broker accepts messages. It
// waits for ReconnectPatience while there is no connection, and until ctx is done
// while the broker blocks publishers.
func (p *Publisher) usable(ctx context.Context) (*session, error) {
	var timeout <-chan time.Time
	for {
		p.mu.Lock()
		s, changed, over := p.session, p.changed, p.closed
		p.mu.Unlock()
		_, unblocked := p.cfg.Connection.Blocked()
		switch {
		case over:
			return nil, errClosed
		case unblocked != nil:
			timeout = nil
		case s != nil:
			return s, nil
		case timeout == nil:
			t := time.NewTimer(connection.ReconnectPatience)
			defer t.Stop()
			timeout = t.C
		}
		select {
		case <-unblocked:
		case <-changed:
		case <-timeout:
			return nil, p.notTaken(ctx)
		case <-ctx.Done():
			return nil, p.notTaken(ctx)
		}
	}
}

// notTaken says why a message was not sent.
func (p *Publisher) notTaken(ctx context.Context) error {
	e := &contract.Error{Code: contract.CodeUnavailable, Detail: "the event was not sent", Cause: ctx.Err(), Executed: contract.ExecutedNo}
	if reason, blocked := p.cfg.Connection.Blocked(); blocked != nil {
		e.Code, e.Detail = contract.CodeBlocked, "RabbitMQ takes no messages at present ("+reason+")"
	} else if err := p.cfg.Connection.Health(); err != nil {
		e.Detail, e.Cause = "the event was not sent: the broker cannot be used at present", errors.Join(err, ctx.Err())
	}
	return e
}

func (p *Publisher) setSession(s *session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.session = s
	close(p.changed)
	p.changed = make(chan struct{})
}

// replaceChannel replaces the channel of s, if it is still in use. The broker
// handles the publishes of one channel to one quorum queue in order, and keeps
// them in the channel while the queue has no leader. A message that is published
// again over the same channel would wait for those. A channel that the broker
// blocks for want of memory is not replaced.
func (p *Publisher) replaceChannel(s *session) {
	if _, blocked := p.cfg.Connection.Blocked(); blocked != nil {
		return
	}
	s.retire.Do(func() { close(s.retired) })
}

// Close makes later publishes fail.
func (p *Publisher) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	close(p.changed)
	p.changed = make(chan struct{})
}

var errClosed = &contract.Error{Code: contract.CodeUnavailable, Detail: "the broker is closed", Executed: contract.ExecutedNo}

func unconfirmed(ctx context.Context, detail string) error {
	return &contract.Error{Code: contract.CodeUnconfirmed, Detail: detail, Cause: ctx.Err(), Executed: contract.ExecutedUnknown}
}

func noExchange(name string) error {
	return &contract.Error{Code: contract.CodeUnroutable, Detail: fmt.Sprintf("there is no exchange %q", name), Executed: contract.ExecutedNo}
}

// BlockedSince reports whether the broker blocks publishers, or did at any time
// after t.
func (p *Publisher) BlockedSince(t time.Time) bool { return p.cfg.Connection.BlockedSince(t) }
