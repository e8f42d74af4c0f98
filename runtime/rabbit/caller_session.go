package rabbit

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/faas"
)

// callSession is the calling side's life on one connection. All of its fields
// but the channels are guarded by caller.mu.
type callSession struct {
	c        *caller
	requests *amqp.Channel
	replyTo  string        // the queue that replies come to
	wake     chan struct{} // holds one: there is something to write

	blocked     string          // the broker's reason to take nothing; "" when it does
	changed     <-chan struct{} // closed when the directory has changed
	lanes       map[laneKey]*lane
	queue       []*message // to be written, in this order
	unconfirmed []*message // written, in the order in which confirmations come
}

var replyQueues atomic.Uint64

// serveConnection lets calls be made over conn, until ctx is done or conn fails.
func (c *caller) serveConnection(ctx context.Context, conn *amqp.Connection) error {
	s := &callSession{
		c: c, wake: make(chan struct{}, 1), changed: c.b.Directory().Changed(), lanes: map[laneKey]*lane{},
	}
	var err error
	if s.requests, err = conn.Channel(); err != nil {
		return fmt.Errorf("open a channel to call on: %w", err)
	}
	defer s.requests.Close()
	if err := s.requests.Confirm(false); err != nil {
		return fmt.Errorf("ask for confirmations: %w", err)
	}
	if err := c.b.names.common().declare(s.requests); err != nil {
		return err
	}
	answers, err := conn.Channel()
	if err != nil {
		return fmt.Errorf("open a channel for replies: %w", err)
	}
	defer answers.Close()
	// A name of its own each time: after a connection was lost, the broker
	// may believe for a while that its exclusive queue is still in use.
	s.replyTo = fmt.Sprintf("%s.reply.%s.%d", c.b.names, c.b.cfg.Process, replyQueues.Add(1))
	if _, err := answers.QueueDeclare(s.replyTo, false, true, true, false, amqp.Table{"x-queue-type": "classic"}); err != nil {
		return explainDeclare(fmt.Sprintf("queue %q", s.replyTo), err)
	}
	replies, err := answers.Consume(s.replyTo, "", true, true, false, false, nil)
	if err != nil {
		return fmt.Errorf("consume from %q: %w", s.replyTo, err)
	}

	// The client drops notifications that nobody takes for 5 s. These two are
	// taken by a goroutine that never waits for anything else.
	confirms := s.requests.NotifyPublish(make(chan amqp.Confirmation, 1024))
	returns := s.requests.NotifyReturn(make(chan amqp.Return, 1024))
	blocks := conn.NotifyBlocked(make(chan amqp.Blocking, 8))
	requestsClosed := s.requests.NotifyClose(make(chan *amqp.Error, 1))
	answersClosed := answers.NotifyClose(make(chan *amqp.Error, 1))

	c.mu.Lock()
	c.setSession(s)
	c.mu.Unlock()

	// All of these end with the channels, the writer and the forwarder with stop.
	running, stop := context.WithCancel(ctx)
	failed := make(chan error, 2)
	var g sync.WaitGroup
	g.Go(func() { s.settle(confirms, returns) })
	g.Go(func() { s.receive(replies) })
	g.Go(func() { s.watchBlocks(running, blocks) })
	g.Go(func() { failed <- s.write(running) })
	g.Go(func() { failed <- c.forwardExpired(running, conn) })

	var why error
	select {
	case <-ctx.Done():
		why = errors.New("the connection is closed")
	case e := <-requestsClosed:
		why = closeReason(e)
	case e := <-answersClosed:
		why = closeReason(e)
	case why = <-failed:
	}
	s.end(why)
	stop()
	_ = s.requests.Close()
	_ = answers.Close()
	g.Wait()
	return why
}

func closeReason(e *amqp.Error) error {
	if e == nil {
		return amqp.ErrClosed
	}
	return e
}

// end fails all that waits, at once.
func (s *callSession) end(why error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.c.setSession(nil)
	for tag, w := range s.c.waiting {
		e := &faas.Error{
			Code: faas.CodeUnavailable, Executed: faas.ExecutedNo, After: time.Second, Cause: why,
			Detail: "the connection to the message broker was lost before the call was sent",
		}
		if w.sent {
			e = &faas.Error{
				Code: faas.CodeUnconfirmed, Executed: faas.ExecutedUnknown, Cause: why,
				Detail: "the connection to the message broker was lost while the call was under way",
			}
		}
		s.c.resolve(tag, outcome{err: e})
	}
}

// enqueue puts m in line for the writer. c.mu is held.
func (s *callSession) enqueue(m *message) {
	m.lane.underway++
	s.queue = append(s.queue, m)
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// next takes the first message out of the line, without the calls that nobody
// waits for any more; nil when there is none.
func (s *callSession) next() *message {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	for len(s.queue) > 0 {
		m := s.queue[0]
		s.queue[0] = nil
		if s.queue = s.queue[1:]; len(s.queue) == 0 {
			s.queue = nil
		}
		live := m.calls[:0]
		for i := range m.calls {
			if w := s.c.waiting[m.calls[i].tag]; w != nil {
				w.sent = true
				live = append(live, m.calls[i])
			}
		}
		if m.calls = live; len(live) > 0 {
			s.unconfirmed = append(s.unconfirmed, m) // now: the confirmation may be faster than Publish returns
			return m
		}
		s.confirmed(m.lane)
	}
	return nil
}

// write publishes what is in line, until ctx is done. It is one goroutine, so
// that a caller can turn away from a connection that takes nothing.
func (s *callSession) write(ctx context.Context) error {
	for {
		m := s.next()
		if m == nil {
			select {
			case <-ctx.Done():
				return nil
			case <-s.wake:
			}
			continue
		}
		if err := s.publish(m); err != nil {
			return fmt.Errorf("publish a call: %w", err)
		}
	}
}

func (s *callSession) publish(m *message) error {
	first := &m.calls[0]
	p := amqp.Publishing{
		DeliveryMode:  amqp.Transient,
		CorrelationId: first.tag,
		ReplyTo:       s.replyTo,
	}
	last := first.deadline
	if m.frames {
		for i := range m.calls {
			last = max(last, m.calls[i].deadline)
		}
		p.ContentType = contentTypeCalls
		p.Body = encodeCalls(m.calls, m.lane.repeatable)
	} else {
		p.ContentType = contentTypeOr(first.contentType)
		p.MessageId = first.id
		p.Headers = callHeaders(first, m.lane.repeatable, !s.c.b.cfg.NoBatch)
		p.Body = first.body
	}
	p.Expiration = strconv.FormatInt(max(1, last-time.Now().UnixMilli()), 10)
	return s.requests.Publish(s.c.b.names.requests(), m.lane.key, true, false, p)
}

// settle takes in what the broker says of the messages, until the channel closes.
func (s *callSession) settle(confirms <-chan amqp.Confirmation, returns <-chan amqp.Return) {
	returned := map[string]bool{} // by tag of the first call
	for {
		select {
		case r, ok := <-returns:
			if !ok {
				returns = nil
				continue
			}
			returned[r.CorrelationId] = true
		case confirm, ok := <-confirms:
			if !ok {
				return
			}
			// A message is returned before it is confirmed.
			for len(returns) > 0 {
				if r, ok := <-returns; ok {
					returned[r.CorrelationId] = true
				}
			}
			s.settleOne(confirm.Ack, returned)
		}
	}
}

func (s *callSession) settleOne(ack bool, returned map[string]bool) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if len(s.unconfirmed) == 0 {
		return
	}
	m := s.unconfirmed[0]
	s.unconfirmed[0] = nil
	if s.unconfirmed = s.unconfirmed[1:]; len(s.unconfirmed) == 0 {
		s.unconfirmed = nil
	}
	var why *faas.Error
	if first := m.calls[0].tag; len(returned) > 0 && returned[first] {
		delete(returned, first)
		why = &faas.Error{
			Code: faas.CodeUnroutable, Executed: faas.ExecutedNo, After: time.Second,
			Detail: fmt.Sprintf("no worker serves the routing key %q", m.lane.key),
		}
	} else if !ack {
		why = &faas.Error{
			Code: faas.CodeRefused, Executed: faas.ExecutedNo, After: time.Second,
			Detail: fmt.Sprintf("the queue behind the routing key %q is full", m.lane.key),
		}
	}
	if why != nil {
		for i := range m.calls {
			s.c.resolve(m.calls[i].tag, outcome{err: why})
		}
	}
	s.confirmed(m.lane)
}

// watchBlocks notes whether the broker takes messages, until conn closes; ctx
// ends it too, but the connection's last notifications are taken all the same.
func (s *callSession) watchBlocks(ctx context.Context, blocks <-chan amqp.Blocking) {
	for {
		select {
		case <-ctx.Done():
			go func() { // ends with the connection, which must not wait for a reader
				for range blocks {
				}
			}()
			return
		case b, ok := <-blocks:
			if !ok {
				return
			}
			s.setBlocked(b)
		}
	}
}

func (s *callSession) setBlocked(b amqp.Blocking) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if !b.Active {
		s.blocked = ""
		return
	}
	s.blocked = b.Reason
	if s.blocked == "" {
		s.blocked = "no reason given"
	}
	for tag, w := range s.c.waiting {
		if !w.sent {
			s.c.resolve(tag, outcome{err: blockedError(s.blocked)})
		}
	}
}

// receive hands replies to who waits for them, until the channel closes.
func (s *callSession) receive(replies <-chan amqp.Delivery) {
	for d := range replies {
		if d.ContentType != contentTypeReplies {
			r := parseReply(&d)
			s.c.mu.Lock()
			s.c.resolve(r.tag, outcomeOf(&r, d.AppId))
			s.c.mu.Unlock()
			continue
		}
		list, err := decodeReplies(d.Body)
		if err != nil {
			s.c.b.cfg.Log.Warn("replies that cannot be read", zap.String("worker", d.AppId), zap.Error(err))
			continue
		}
		s.c.mu.Lock()
		for i := range list {
			s.c.resolve(list[i].tag, outcomeOf(&list[i], d.AppId))
		}
		s.c.mu.Unlock()
	}
}

func outcomeOf(r *wireReply, worker string) outcome {
	if r.code != "" {
		return outcome{err: decodeFailure(r.code, r.body)}
	}
	return outcome{reply: faas.Reply{Body: r.body, Run: r.run, Worker: worker, Session: r.session}}
}
