package rabbit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rabbet-fn/rabbet/runtime/faas"
)

const (
	maxUnconfirmed    = 2048            // publishes under way at once
	reconnectPatience = 5 * time.Second // how long a publish waits for a connection
)

// Publish returns nil once the broker has confirmed the event and did not
// return it: it stands, safe, in every queue bound to its key. It fails with
// ErrUnroutable (no queue is bound), ErrRefused (a queue is full, or the user
// may not), ErrBlocked (the broker is short of memory or disk), ErrUnavailable
// (no connection within 5 s, or ctx) or ErrInvalid; of these nothing was
// taken. With ErrUnconfirmed it may have been. Waiting ends with ctx always.
func (b *Broker) Publish(ctx context.Context, e faas.Event) error {
	e.Exchange = cmp.Or(e.Exchange, b.names.events())
	e.ID = cmp.Or(e.ID, faas.NewID())
	e.ContentType = cmp.Or(e.ContentType, "application/json")
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	p, err := toPublishing(&e)
	if err != nil {
		return err
	}
	if e.Exchange != b.names.events() {
		if err := b.publisher.exchanges.check(ctx, e.Exchange); err != nil {
			return err
		}
	}
	return b.publisher.publish(ctx, e.Exchange, e.Key, p)
}

// publisher publishes with a confirmation, for any number of goroutines over
// one channel. Each waits for its own confirmation only.
type publisher struct {
	link      *link
	names     names
	queue     chan *outgoing
	over      chan struct{} // closed when run has ended: nothing will be sent any more
	exchanges exchanges
	tiers     tiers
}

// outgoing is one publish on its way.
type outgoing struct {
	exchange, key string
	message       amqp.Publishing
	state         atomic.Int32
	written       chan written // one value, once the state is taken
}

// The states of an outgoing.
const (
	waiting   int32 = iota // it may be taken, or abandoned
	taken                  // the writer has it
	abandoned              // its caller has left
)

// written tells the caller where its message stands.
type written struct {
	session *publishSession
	number  int64
	confirm *amqp.DeferredConfirmation
	err     error // it could not be written
}

func newPublisher(b *Broker) *publisher {
	return &publisher{
		link: b.publish, names: b.names, queue: make(chan *outgoing, 256), over: make(chan struct{}),
		exchanges: exchanges{link: b.consume}, tiers: tiers{link: b.consume, names: b.names},
	}
}

// run serves publishes until ctx is done.
func (p *publisher) run(ctx context.Context) {
	defer close(p.over)
	p.link.use(ctx, "publish", p.serve)
}

// publish is the one primitive: mandatory, confirmed, and bounded by ctx.
func (p *publisher) publish(ctx context.Context, exchange, key string, m amqp.Publishing) error {
	o := &outgoing{exchange: exchange, key: key, message: m, written: make(chan written, 1)}
	patience := time.NewTimer(reconnectPatience)
	defer patience.Stop()
	select {
	case <-p.over:
		return errClosed
	default:
	}
	select {
	case p.queue <- o:
	case <-p.over:
		return errClosed
	case <-ctx.Done():
		return p.notTaken(ctx)
	}
	for {
		select {
		case w := <-o.written:
			return p.confirmed(ctx, o, w)
		case <-patience.C:
			if _, blocked := p.link.blocking(); blocked != nil || p.link.connected() {
				continue // it is a matter of the caller's own patience
			}
		case <-p.over:
		case <-ctx.Done():
		}
		if o.state.CompareAndSwap(waiting, abandoned) {
			return p.notTaken(ctx)
		}
		go func() { // ends with the confirmation, or with the connection
			if w := <-o.written; w.err == nil {
				<-w.confirm.Done()
				w.session.settled(w.number)
			}
		}()
		return unconfirmed(ctx, "the broker has not confirmed it in time")
	}
}

// confirmed waits for the broker's word on what was written.
func (p *publisher) confirmed(ctx context.Context, o *outgoing, w written) error {
	if w.err != nil {
		if errors.Is(w.err, amqp.ErrClosed) {
			return &faas.Error{Code: faas.CodeUnavailable, Detail: "the connection to the broker was lost before the event was sent", Executed: faas.ExecutedNo}
		}
		return unconfirmed(ctx, "it could not be written: "+w.err.Error())
	}
	select {
	case <-w.confirm.Done():
	default:
		select {
		case <-w.confirm.Done():
		case <-ctx.Done():
			go func() { // ends with the confirmation, or with the connection
				<-w.confirm.Done()
				w.session.settled(w.number)
			}()
			return unconfirmed(ctx, "the broker has not confirmed it in time")
		}
	}
	lost := w.session.channel.IsClosed()
	returned := w.session.settled(w.number)
	switch {
	case returned != nil:
		return &faas.Error{
			Code: faas.CodeUnroutable, Executed: faas.ExecutedNo,
			Detail: fmt.Sprintf("no queue is bound to the routing key %q on exchange %q", o.key, o.exchange),
		}
	case w.confirm.Acked():
		return nil
	case lost:
		return w.session.lost(ctx, o.exchange)
	}
	return &faas.Error{
		Code: faas.CodeRefused, Executed: faas.ExecutedNo,
		Detail: fmt.Sprintf("a queue bound to the routing key %q is full or cannot take it", o.key),
	}
}

// notTaken says why a message never reached the broker.
func (p *publisher) notTaken(ctx context.Context) error {
	e := &faas.Error{Code: faas.CodeUnavailable, Detail: "the event was not sent", Cause: ctx.Err(), Executed: faas.ExecutedNo}
	if reason, blocked := p.link.blocking(); blocked != nil {
		e.Code, e.Detail = faas.CodeBlocked, "RabbitMQ takes no messages at present ("+reason+")"
	} else if err := p.link.health(); err != nil {
		e.Detail, e.Cause = "there is no connection to the broker", errors.Join(err, ctx.Err())
	}
	return e
}

var errClosed = &faas.Error{Code: faas.CodeUnavailable, Detail: "the broker is closed", Executed: faas.ExecutedNo}

func unconfirmed(ctx context.Context, detail string) error {
	return &faas.Error{Code: faas.CodeUnconfirmed, Detail: detail, Cause: ctx.Err(), Executed: faas.ExecutedUnknown}
}

// publishSession is one channel in confirm mode.
type publishSession struct {
	channel *amqp.Channel
	slots   chan struct{} // one for each publish under way
	closed  chan *amqp.Error

	mu       sync.Mutex
	returns  chan amqp.Return // has room for everything under way
	returned map[int64]*amqp.Return
	reason   *amqp.Error // why the channel was closed
}

// serve writes what is queued to conn, until it is lost or ctx is done.
func (p *publisher) serve(ctx context.Context, conn *amqp.Connection) error {
	ch, err := conn.Channel()
	if err != nil {
		return fmt.Errorf("open a channel to publish on: %w", err)
	}
	defer closeChannel(ch)
	if err := p.names.common().declare(ch); err != nil {
		return err
	}
	if err := ch.Confirm(false); err != nil {
		return fmt.Errorf("ask for confirmations: %w", err)
	}
	s := &publishSession{
		channel: ch, slots: make(chan struct{}, maxUnconfirmed), returned: map[int64]*amqp.Return{},
		returns: ch.NotifyReturn(make(chan amqp.Return, maxUnconfirmed)),
		closed:  ch.NotifyClose(make(chan *amqp.Error, 1)),
	}
	over := make(chan struct{})
	go func() { // ends with the channel, which ends with serve or its connection
		defer close(over)
		reason := <-s.closed
		s.mu.Lock()
		s.reason = reason
		s.mu.Unlock()
	}()
	for number := int64(1); ; {
		select {
		case s.slots <- struct{}{}:
		case <-over:
			return s.closeReason()
		case <-ctx.Done():
			return nil
		}
		o := p.take(ctx, over)
		if o == nil {
			if ctx.Err() != nil {
				return s.drain(ctx)
			}
			return s.closeReason()
		}
		if o.message.Headers == nil {
			o.message.Headers = amqp.Table{}
		}
		o.message.Headers[headerPublish] = number
		confirm, err := ch.PublishWithDeferredConfirm(o.exchange, o.key, true, false, o.message)
		o.written <- written{session: s, number: number, confirm: confirm, err: err}
		if err != nil {
			<-s.slots
			continue
		}
		number++
	}
}

// take returns the next message once the broker takes messages; nil when ctx
// is done or the channel is over.
func (p *publisher) take(ctx context.Context, over <-chan struct{}) *outgoing {
	for {
		_, unblocked := p.link.blocking()
		queue := p.queue
		if unblocked != nil {
			queue = nil // what has not been sent can still be said to be so
		}
		select {
		case o := <-queue:
			if o.state.CompareAndSwap(waiting, taken) {
				return o
			}
		case <-unblocked:
		case <-p.link.blockings():
		case <-over:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

// settled ends one publish: it returns what the broker returned of it, if so.
// The broker sends a return before its confirmation.
func (s *publishSession) settled(number int64) *amqp.Return {
	s.mu.Lock()
	defer s.mu.Unlock()
	for more := true; more; {
		select {
		case r, ok := <-s.returns:
			if ok {
				s.returned[intOf(r.Headers, headerPublish)] = &r
			}
			more = ok
		default:
			more = false
		}
	}
	r := s.returned[number]
	delete(s.returned, number)
	<-s.slots
	return r
}

// lost says what became of a publish whose channel was closed under it.
func (s *publishSession) lost(ctx context.Context, exchange string) error {
	s.mu.Lock()
	reason := s.reason
	s.mu.Unlock()
	if reason != nil && strings.Contains(reason.Reason, "'"+exchange+"'") {
		switch reason.Code {
		case amqp.NotFound:
			return noExchange(exchange)
		case amqp.AccessRefused:
			return &faas.Error{Code: faas.CodeRefused, Detail: fmt.Sprintf("the broker user may not publish to exchange %q", exchange), Cause: reason, Executed: faas.ExecutedNo}
		}
	}
	return unconfirmed(ctx, "the connection to the broker was lost before it confirmed")
}

// drain waits for the confirmations of what is under way, for a moment.
func (s *publishSession) drain(ctx context.Context) error {
	<-s.slots // the one that found nothing to publish
	patience := time.NewTimer(closeTimeout)
	defer patience.Stop()
	for range cap(s.slots) {
		select {
		case s.slots <- struct{}{}:
		case <-patience.C:
			return nil
		}
	}
	return nil
}

func (s *publishSession) closeReason() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reason == nil {
		return nil
	}
	return fmt.Errorf("the broker closed the publishing channel: %s", s.reason.Reason)
}

func noExchange(name string) error {
	return &faas.Error{Code: faas.CodeUnroutable, Detail: fmt.Sprintf("there is no exchange %q", name), Executed: faas.ExecutedNo}
}
