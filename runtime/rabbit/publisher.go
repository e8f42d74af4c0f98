package rabbit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/connection"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/topology"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/wire"

	amqp "github.com/rabbitmq/amqp091-go"
	"golang.org/x/sync/semaphore"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

const (
	maxUnconfirmed = 64 << 20 // bytes of publishes under way at once
	minShare       = 32 << 10 // bytes that the smallest of them counts for: 2048 are under way at the most

	// A channel that has not confirmed a publish for this long when its caller
	// gives it up is replaced.
	stalledAfter = 500 * time.Millisecond
)

// Publish returns nil once the broker has confirmed the event and did not
// return it: it stands, safe, in every queue bound to its key. It fails with
// ErrUnroutable (no queue is bound; where a live function listens to the key,
// 0.3 s after the first try), ErrBlocked (the broker is short of memory
// or disk), ErrUnavailable (no connection within 5 s, or ctx) or ErrInvalid; of
// these nothing was taken. With ErrRefused a queue is full, and others may have
// taken it, or the user may not publish there: its Executed says which. With
// ErrUnconfirmed it may have been taken. Waiting ends with ctx always.
func (b *Broker) Publish(ctx context.Context, e contract.Event) error {
	e.Exchange = cmp.Or(e.Exchange, b.names.Events())
	e.ID = cmp.Or(e.ID, contract.NewID())
	e.ContentType = cmp.Or(e.ContentType, "application/json")
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	p, err := wire.FromEvent(&e)
	if err != nil {
		return err
	}
	err = b.publishTo(ctx, &e, p)
	for pause := firstRouteWait; errors.Is(err, contract.ErrUnroutable) && pause <= lastRouteWait && b.isHeard(&e); pause *= 2 {
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return err
		}
		err = b.publishTo(ctx, &e, p)
	}
	return err
}

// publishTo publishes p as e, once.
func (b *Broker) publishTo(ctx context.Context, e *contract.Event, p amqp.Publishing) error {
	if e.Exchange != b.names.Events() {
		if err := b.publisher.exchanges.check(ctx, e.Exchange); err != nil {
			return err
		}
	}
	err := b.publisher.publish(ctx, e.Exchange, e.Key, p)
	if errors.Is(err, contract.ErrUnroutable) {
		b.publisher.exchanges.forget(e.Exchange)
	}
	return err
}

// A live function has bound its queue, but the broker may not route by that
// yet: of several that make one binding at the same moment, RabbitMQ 4.0 tells
// all but the first that it is there as soon as it is written down. Probed on
// 4.0.5, with four at once: it did not route for almost every second of them,
// for up to 50 ms. On 3.10.8 it always did.
const (
	firstRouteWait = 10 * time.Millisecond
	lastRouteWait  = 160 * time.Millisecond // 310 ms in all
)

// isHeard reports whether a live function listens to e.
func (b *Broker) isHeard(e *contract.Event) bool {
	return slices.ContainsFunc(b.directory.Functions(), func(f contract.Live) bool {
		return f.Kind == contract.KindEvent && len(f.Workers) > 0 && cmp.Or(f.Exchange, b.names.Events()) == e.Exchange && f.Has(e.Key)
	})
}

// publisher publishes with a confirmation, for any number of goroutines over
// one channel. Each waits for its own confirmation only.
type publisher struct {
	user      string // what its channel is called among the users of link
	declares  bool   // it declares what every process needs, before it publishes
	link      *connection.Connection
	names     topology.Names
	room      *semaphore.Weighted // of what is under way, in bytes
	exchanges exchanges

	mu      sync.Mutex
	session *publishSession // nil while there is no channel
	changed chan struct{}   // closed when session changes
	over    bool            // nothing will be sent any more
}

func newPublisher(b *Broker, user string, declares bool) *publisher {
	return &publisher{
		user: user, declares: declares, link: b.publish, names: b.names, room: semaphore.NewWeighted(maxUnconfirmed), changed: make(chan struct{}),
		exchanges: exchanges{link: b.consume},
	}
}

// run serves publishes until ctx is done, and waits for the confirmations of
// what is under way, for a moment.
func (p *publisher) run(ctx context.Context) {
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var g sync.WaitGroup
	g.Go(func() { p.link.Use(serving, p.user, p.serve) })
	<-ctx.Done()
	p.close()
	patience, done := context.WithDeadline(serving, p.link.CloseDeadline())
	defer done()
	if p.room.Acquire(patience, maxUnconfirmed) == nil { // all of it: nothing is under way
		p.room.Release(maxUnconfirmed) // who comes now learns that it is over
	}
	stop()
	g.Wait()
}

// publish is the one primitive: mandatory, confirmed, and bounded by ctx.
func (p *publisher) publish(ctx context.Context, exchange, key string, m amqp.Publishing) error {
	u, err := p.send(ctx, exchange, key, m)
	if err != nil {
		return err
	}
	return u.confirmed(ctx)
}

// send is the first half of publish. Whoever calls it waits with confirmed, and
// may send others before.
func (p *publisher) send(ctx context.Context, exchange, key string, m amqp.Publishing) (*underway, error) {
	size := max(minShare, int64(len(m.Body)))
	if err := p.room.Acquire(ctx, size); err != nil {
		return nil, p.notTaken(ctx)
	}
	s, err := p.usable(ctx)
	if err != nil {
		p.room.Release(size)
		return nil, err
	}
	u := &underway{publisher: p, session: s, size: size, exchange: exchange, key: key, sent: time.Now()}
	if err := s.write(u, m); err != nil {
		p.room.Release(size)
		if errors.Is(err, amqp.ErrClosed) {
			return nil, &contract.Error{Code: contract.CodeUnavailable, Detail: "the connection to the broker was lost before the event was sent", Executed: contract.ExecutedNo}
		}
		return nil, unconfirmed(ctx, "it could not be written: "+err.Error())
	}
	return u, nil
}

// underway is a publish that was written, and waits for its confirmation.
type underway struct {
	publisher *publisher
	session   *publishSession
	size      int64 // of the room that it takes

	exchange, key string
	sent          time.Time
	number        int64 // on its channel
	confirm       *amqp.DeferredConfirmation
}

// confirmed returns what became of the publish, as Broker.Publish does. It is
// called once.
func (u *underway) confirmed(ctx context.Context) error {
	select {
	case <-u.confirm.Done():
		u.publisher.room.Release(u.size)
		return u.session.settle(ctx, u)
	case <-ctx.Done():
		if time.Since(u.sent) > stalledAfter {
			u.publisher.renew(u.session)
		}
		go func() { // ends with the confirmation, or with the connection
			<-u.confirm.Done()
			u.publisher.room.Release(u.size)
			_ = u.session.settle(ctx, u)
		}()
		return unconfirmed(ctx, "the broker has not confirmed it in time")
	}
}

// usable returns the channel to publish on once the broker takes messages.
// While the connection is being made anew it waits for reconnectPatience; while
// the broker blocks, for as long as ctx allows.
func (p *publisher) usable(ctx context.Context) (*publishSession, error) {
	var patience <-chan time.Time
	for {
		p.mu.Lock()
		s, changed, over := p.session, p.changed, p.over
		p.mu.Unlock()
		_, unblocked := p.link.Blocked()
		switch {
		case over:
			return nil, errClosed
		case unblocked != nil:
			patience = nil
		case s != nil:
			return s, nil
		case patience == nil:
			t := time.NewTimer(connection.ReconnectPatience)
			defer t.Stop()
			patience = t.C
		}
		select {
		case <-unblocked:
		case <-changed:
		case <-patience:
			return nil, p.notTaken(ctx)
		case <-ctx.Done():
			return nil, p.notTaken(ctx)
		}
	}
}

// notTaken says why a message never reached the broker.
func (p *publisher) notTaken(ctx context.Context) error {
	e := &contract.Error{Code: contract.CodeUnavailable, Detail: "the event was not sent", Cause: ctx.Err(), Executed: contract.ExecutedNo}
	if reason, blocked := p.link.Blocked(); blocked != nil {
		e.Code, e.Detail = contract.CodeBlocked, "RabbitMQ takes no messages at present ("+reason+")"
	} else if err := p.link.Health(); err != nil {
		e.Detail, e.Cause = "the event was not sent: the broker cannot be used at present", errors.Join(err, ctx.Err())
	}
	return e
}

func (p *publisher) setSession(s *publishSession) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.session = s
	close(p.changed)
	p.changed = make(chan struct{})
}

// renew replaces the channel of s, if it is still the one in use. The broker
// sends what one channel publishes to one quorum queue in order, and holds it in
// the channel while the queue has no leader: what is published again over the
// same channel would wait for what is stuck there. A channel that the broker
// blocks for want of memory is not stuck.
func (p *publisher) renew(s *publishSession) {
	if _, blocked := p.link.Blocked(); blocked != nil {
		return
	}
	s.retire.Do(func() { close(s.retired) })
}

func (p *publisher) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
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
