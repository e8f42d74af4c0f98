package caller

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

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/channel"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/wire"
)

// session sends calls and receives replies over one connection. Its fields but
// the channels are guarded by Caller.mu.
type session struct {
	caller   *Caller
	requests *amqp.Channel
	replyTo  string // the queue that replies come to

	blocked          string          // the reason why the broker blocks publishers; "" when it does not
	directoryChanged <-chan struct{} // closed when the directory has changed
	batchers         map[string]*batcher
}

var replyQueues atomic.Uint64

// serveConnection sends calls over conn until ctx is done or conn fails.
//
// Calls are published without confirms. The broker returns those that it cannot
// route, and dead-letters those whose queue is full to where expired calls go.
// Both become the outcome of the call. Any other loss shows as a missing reply,
// with or without a confirm.
func (c *Caller) serveConnection(ctx context.Context, conn *amqp.Connection) error {
	s := &session{
		caller: c, directoryChanged: c.cfg.Directory.Changed(), batchers: map[string]*batcher{},
	}
	var err error
	if s.requests, err = conn.Channel(); err != nil {
		return fmt.Errorf("open a channel to call on: %w", err)
	}
	defer s.requests.Close()
	if err := c.cfg.Names.Common().Declare(s.requests); err != nil {
		return err
	}
	answers, err := conn.Channel()
	if err != nil {
		return fmt.Errorf("open a channel for replies: %w", err)
	}
	defer answers.Close()
	// Each session has a queue with a new name: after a connection is lost, the
	// broker may keep its exclusive queue locked for some time.
	s.replyTo = fmt.Sprintf("%s.reply.%s.%d", c.cfg.Names.Namespace, c.cfg.Process, replyQueues.Add(1))
	if _, err := answers.QueueDeclare(s.replyTo, false, true, true, false, amqp.Table{"x-queue-type": "classic"}); err != nil {
		return c.cfg.Names.ExplainOwnQueue(err)
	}
	replies, err := answers.Consume(s.replyTo, "", true, true, false, false, nil)
	if err != nil {
		return fmt.Errorf("consume from %q: %w", s.replyTo, err)
	}

	// The client drops a notification that is not received within 5 s. Therefore
	// the goroutines that receive them never wait for anything else.
	returns := s.requests.NotifyReturn(make(chan amqp.Return, 64))
	blocks := conn.NotifyBlocked(make(chan amqp.Blocking, 8))
	requestsClosed := s.requests.NotifyClose(make(chan *amqp.Error, 1))
	answersClosed := answers.NotifyClose(make(chan *amqp.Error, 1))

	c.mu.Lock()
	c.setSession(s)
	c.mu.Unlock()

	// These goroutines end with the channels, forwardExpired with stop.
	running, stop := context.WithCancel(ctx)
	failed := make(chan error, 1)
	var g sync.WaitGroup
	g.Go(func() { s.takeReturns(returns) })
	g.Go(func() { s.receive(replies) })
	g.Go(func() { s.watchBlocks(running, blocks) })
	g.Go(func() { failed <- c.forwardExpired(running, conn) })

	var why error
	select {
	case <-ctx.Done():
		why = errors.New("the connection is closed")
	case e := <-requestsClosed:
		why = channel.CloseReason(e)
	case e := <-answersClosed:
		why = channel.CloseReason(e)
	case why = <-failed:
	}
	s.end(why)
	stop()
	_ = s.requests.Close()
	_ = answers.Close()
	g.Wait()
	return why
}

// end fails all pending calls.
func (s *session) end(why error) {
	s.caller.mu.Lock()
	defer s.caller.mu.Unlock()
	s.caller.setSession(nil)
	for tag, p := range s.caller.pending {
		e := notSent(why)
		if p.batch != nil {
			e = &contract.Error{
				Code: contract.CodeUnconfirmed, Executed: contract.ExecutedUnknown, Cause: why,
				Detail: "the connection to the message broker was lost while the call was in flight",
			}
		}
		s.caller.resolve(tag, outcome{err: e})
	}
}

// send publishes b, unless it is nil. It does not block: the connection buffers
// writes.
func (s *session) send(b *batch) {
	if b == nil {
		return
	}
	if b.frames {
		s.check(b.calls, s.publish(b, b.calls))
		return
	}
	for i := range b.calls { // a worker that understands no frames was announced after they were queued
		s.check(b.calls[i:i+1], s.publish(b, b.calls[i:i+1]))
	}
}

// check fails calls that were not sent because the connection was closed. Any
// other error ends the connection, which fails the calls.
func (s *session) check(calls []wire.Call, err error) {
	if !errors.Is(err, amqp.ErrClosed) {
		return
	}
	s.caller.mu.Lock()
	defer s.caller.mu.Unlock()
	for i := range calls {
		s.caller.resolve(calls[i].Tag, outcome{err: notSent(err)})
	}
}

func notSent(why error) *contract.Error {
	return &contract.Error{
		Code: contract.CodeUnavailable, Executed: contract.ExecutedNo, After: time.Second, Cause: why,
		Detail: "the connection to the message broker was lost before the call was sent",
	}
}

// publish publishes calls of b in one message.
func (s *session) publish(b *batch, calls []wire.Call) error {
	first := &calls[0]
	m := amqp.Publishing{
		DeliveryMode:  amqp.Transient,
		CorrelationId: first.Tag,
		ReplyTo:       s.replyTo,
	}
	last := first.Deadline
	if b.frames {
		for i := range calls {
			last = max(last, calls[i].Deadline)
		}
		m.ContentType = wire.ContentTypeCalls
		m.Body = wire.EncodeCalls(calls)
	} else {
		m.ContentType = wire.ContentTypeOr(first.ContentType)
		m.MessageId = first.ID
		m.Headers = wire.CallHeaders(first, !s.caller.cfg.NoBatch)
		m.Body = first.Body
	}
	m.Expiration = strconv.FormatInt(max(1, last-time.Now().UnixMilli()), 10)
	return s.requests.Publish(s.caller.cfg.Names.Requests(), b.batcher.key, true, false, m)
}

// takeReturns fails the calls of messages that the broker could not route, until
// the channel is closed.
func (s *session) takeReturns(returns <-chan amqp.Return) {
	for r := range returns {
		tags := []string{r.CorrelationId}
		if r.ContentType == wire.ContentTypeCalls {
			calls, err := wire.DecodeCalls(r.Body) // this process has encoded it
			if err != nil {
				s.caller.cfg.Log.Error("cannot decode a returned message", zap.Error(err))
				continue
			}
			tags = tags[:0]
			for i := range calls {
				tags = append(tags, calls[i].Tag)
			}
		}
		s.caller.mu.Lock()
		for _, tag := range tags {
			s.caller.resolve(tag, outcome{err: &contract.Error{
				Code: contract.CodeUnroutable, Executed: contract.ExecutedNo, After: time.Second,
				Detail: fmt.Sprintf("no worker serves the routing key %q", r.RoutingKey),
			}})
		}
		s.caller.mu.Unlock()
	}
}

// watchBlocks notes whether the broker blocks publishers, until the connection is
// closed or ctx is done. In the latter case a goroutine receives the remaining
// notifications.
func (s *session) watchBlocks(ctx context.Context, blocks <-chan amqp.Blocking) {
	for {
		select {
		case <-ctx.Done():
			go func() { // ends with the connection; without a receiver, the client would block
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

func (s *session) setBlocked(b amqp.Blocking) {
	s.caller.mu.Lock()
	defer s.caller.mu.Unlock()
	if !b.Active {
		s.blocked = ""
		return
	}
	s.blocked = b.Reason
	if s.blocked == "" {
		s.blocked = "no reason given"
	}
	for tag, p := range s.caller.pending {
		if p.batch == nil {
			s.caller.resolve(tag, outcome{err: blockedError(s.blocked)})
		}
	}
}

// receive resolves pending calls by their replies until the channel is closed, and
// sends the batches that become due.
func (s *session) receive(replies <-chan amqp.Delivery) {
	var one [1]wire.Reply
	var due []*batch
	for d := range replies {
		if d.ContentType == wire.ContentTypeTaken {
			s.taken(&d)
			continue
		}
		list := one[:]
		if d.ContentType != wire.ContentTypeReplies {
			one[0] = wire.ParseReply(&d)
		} else {
			var err error
			if list, err = wire.DecodeReplies(d.Body); err != nil {
				s.caller.cfg.Log.Warn("cannot decode replies", zap.String("worker", d.AppId), zap.Error(err))
				continue
			}
		}
		s.caller.mu.Lock()
		for i := range list {
			o := outcomeOf(&list[i], d.AppId)
			if d.AppId == "" && list[i].Code == contract.CodeExpired && s.wasTaken(list[i].Tag) {
				// The reply is of forwardExpired, not of a worker: the worker was
				// lost, and the call expired before it was delivered again.
				o.err = contract.Expired(contract.ExecutedUnknown)
			}
			if next := s.caller.resolve(list[i].Tag, o).onReply(list[i].Run); next != nil {
				due = append(due, next)
			}
		}
		s.caller.mu.Unlock()
		for i, b := range due {
			s.send(b)
			due[i] = nil
		}
		due = due[:0]
	}
}

// taken notes that a worker has begun to run a batch; see wire.ContentTypeTaken.
func (s *session) taken(d *amqp.Delivery) {
	s.caller.mu.Lock()
	defer s.caller.mu.Unlock()
	p := s.caller.pending[d.MessageId]
	if p == nil || p.batch == nil {
		return
	}
	p.batch.taken = true
	if d.Type == wire.TypeAcked {
		p.batch.worker = d.AppId
	}
}

// wasTaken reports whether a worker has begun to run the call. The caller must
// hold Caller.mu.
func (s *session) wasTaken(tag string) bool {
	p := s.caller.pending[tag]
	return p != nil && p.batch != nil && p.batch.taken
}

func outcomeOf(r *wire.Reply, worker string) outcome {
	if r.Code != "" {
		return outcome{err: wire.DecodeFailure(r.Code, r.Body)}
	}
	return outcome{reply: contract.Reply{Body: r.Body, Run: r.Run, Worker: worker, Session: r.Session}}
}
