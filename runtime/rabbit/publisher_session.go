package rabbit

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// publishSession is one channel in confirm mode.
type publishSession struct {
	channel  *amqp.Channel
	last     atomic.Int64 // number of the last publish
	underway atomic.Int64 // written, and not yet confirmed

	retired chan struct{} // closed when another channel is to replace this one
	retire  sync.Once

	mu       sync.Mutex
	returns  chan amqp.Return // has room for everything under way
	returned map[int64]bool   // by number
	closed   chan *amqp.Error
	reason   *amqp.Error // why the channel was closed, out of closed
}

// serve lets events be published over conn, until it is lost or ctx is done.
func (p *publisher) serve(ctx context.Context, conn *amqp.Connection) error {
	var retired sync.WaitGroup
	defer retired.Wait()
	ctx, end := context.WithCancel(ctx)
	defer end()
	for {
		s, err := p.openSession(conn)
		if err != nil {
			return err
		}
		closed := s.channel.NotifyClose(make(chan *amqp.Error, 1))
		p.setSession(s)
		select {
		case <-s.retired:
			p.setSession(nil)
			retired.Go(func() { s.finish(ctx) })
			continue
		case reason := <-closed:
			if reason != nil {
				err = &closedError{"the publishing channel", reason}
			}
		case <-ctx.Done():
		}
		p.setSession(nil)
		closeChannel(s.channel)
		return err
	}
}

// openSession opens a channel in confirm mode.
func (p *publisher) openSession(conn *amqp.Connection) (*publishSession, error) {
	ch, err := conn.Channel()
	if err != nil {
		return nil, fmt.Errorf("open a channel to publish on: %w", err)
	}
	if p.declares {
		err = p.names.common().declare(ch)
	}
	if err == nil {
		if err = ch.Confirm(false); err != nil {
			err = fmt.Errorf("ask for confirmations: %w", err)
		}
	}
	if err != nil {
		closeChannel(ch)
		return nil, err
	}
	return &publishSession{
		channel: ch, returned: map[int64]bool{}, retired: make(chan struct{}),
		returns: ch.NotifyReturn(make(chan amqp.Return, maxUnconfirmed/minShare)),
		closed:  ch.NotifyClose(make(chan *amqp.Error, 1)),
	}, nil
}

// retiredFor is how long a channel that was replaced may take to confirm what is
// in flight on it.
const retiredFor = 30 * time.Second

// finish closes a channel that was replaced once nothing is in flight on it, at
// the latest after retiredFor, or when ctx ends.
func (s *publishSession) finish(ctx context.Context) {
	defer closeChannel(s.channel)
	ctx, cancel := context.WithTimeout(ctx, retiredFor)
	defer cancel()
	check := time.NewTicker(100 * time.Millisecond)
	defer check.Stop()
	for s.underway.Load() > 0 && !s.channel.IsClosed() {
		select {
		case <-check.C:
		case <-ctx.Done():
			return
		}
	}
}

// write sends m as u. It does not wait: see bufferedConn.
func (s *publishSession) write(u *underway, m amqp.Publishing) error {
	u.number = s.last.Add(1)
	if m.Headers == nil {
		m.Headers = amqp.Table{}
	}
	m.Headers[headerPublish] = u.number
	var err error
	s.underway.Add(1)
	if u.confirm, err = s.channel.PublishWithDeferredConfirm(u.exchange, u.key, true, false, m); err != nil {
		s.underway.Add(-1)
	}
	return err
}

// settle says what became of u, whose confirmation has come or will not come.
func (s *publishSession) settle(ctx context.Context, u *underway) error {
	returned, acked := s.wasReturned(u.number), u.confirm.Acked()
	if !returned && !acked && s.channel.IsClosed() {
		return s.lost(ctx, u.exchange)
	}
	s.underway.Add(-1)
	switch {
	case returned:
		return &contract.Error{
			Code: contract.CodeUnroutable, Executed: contract.ExecutedNo,
			Detail: fmt.Sprintf("no queue is bound to the routing key %q on exchange %q", u.key, u.exchange),
		}
	case acked:
		return nil
	}
	return &contract.Error{
		Code: contract.CodeRefused, Executed: contract.ExecutedUnknown, After: time.Second,
		Detail: fmt.Sprintf("a queue bound to the routing key %q is full or cannot take it; others may have taken it", u.key),
	}
}

// wasReturned reports whether the broker returned that publish. It sends a
// return before its confirmation.
func (s *publishSession) wasReturned(number int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.returns) > 0 {
		if r, ok := <-s.returns; ok {
			s.returned[intOf(r.Headers, headerPublish)] = true
		}
	}
	returned := s.returned[number]
	delete(s.returned, number)
	return returned
}

// closeReason returns why the broker closed the channel. The client tells it
// before it gives up the confirmations.
func (s *publishSession) closeReason() *amqp.Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reason == nil {
		select {
		case s.reason = <-s.closed:
		default:
		}
	}
	return s.reason
}

// lost says what became of a publish whose channel was closed under it. When
// others were under way to the same end, nobody knows which of them the broker
// had taken before.
func (s *publishSession) lost(ctx context.Context, exchange string) error {
	reason := s.closeReason()
	if reason == nil || !strings.Contains(reason.Reason, "'"+exchange+"'") {
		return unconfirmed(ctx, "the connection to the broker was lost before it confirmed")
	}
	if s.underway.Load() > 1 {
		return unconfirmed(ctx, "the broker refused an event and confirmed no other that was under way ("+reason.Reason+")")
	}
	switch reason.Code {
	case amqp.NotFound:
		return noExchange(exchange)
	case amqp.AccessRefused:
		return &contract.Error{Code: contract.CodeRefused, Detail: fmt.Sprintf("the broker user may not publish to exchange %q", exchange), Cause: reason, Executed: contract.ExecutedNo}
	}
	return unconfirmed(ctx, "the broker closed the channel before it confirmed ("+reason.Reason+")")
}
