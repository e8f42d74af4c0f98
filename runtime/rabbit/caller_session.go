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

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// callSession is the calling side's life on one connection. All of its fields
// but the channels are guarded by caller.mu.
type callSession struct {
	c        *caller
	requests *amqp.Channel
	replyTo  string // the queue that replies come to

	blocked string          // the broker's reason to take nothing; "" when it does
	changed <-chan struct{} // closed when the directory has changed
	lanes   map[string]*lane
}

var replyQueues atomic.Uint64

// serveConnection lets calls be made over conn, until ctx is done or conn fails.
//
// Calls are not confirmed: what the broker cannot route it returns, what finds
// its queue full it puts where expired calls go, and both come back as the
// outcome of the call; anything else that is lost shows as a reply that is
// missing, with or without a confirmation.
func (c *caller) serveConnection(ctx context.Context, conn *amqp.Connection) error {
	s := &callSession{
		c: c, changed: c.b.Directory().Changed(), lanes: map[string]*lane{},
	}
	var err error
	if s.requests, err = conn.Channel(); err != nil {
		return fmt.Errorf("open a channel to call on: %w", err)
	}
	defer s.requests.Close()
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
	s.replyTo = fmt.Sprintf("%s.reply.%s.%d", c.b.cfg.Namespace, c.b.cfg.Process, replyQueues.Add(1))
	if _, err := answers.QueueDeclare(s.replyTo, false, true, true, false, amqp.Table{"x-queue-type": "classic"}); err != nil {
		return c.b.names.explainOwnQueue(err)
	}
	replies, err := answers.Consume(s.replyTo, "", true, true, false, false, nil)
	if err != nil {
		return fmt.Errorf("consume from %q: %w", s.replyTo, err)
	}

	// The client drops notifications that nobody takes for 5 s. These are taken
	// by a goroutine that never waits for anything else.
	returns := s.requests.NotifyReturn(make(chan amqp.Return, 64))
	blocks := conn.NotifyBlocked(make(chan amqp.Blocking, 8))
	requestsClosed := s.requests.NotifyClose(make(chan *amqp.Error, 1))
	answersClosed := answers.NotifyClose(make(chan *amqp.Error, 1))

	c.mu.Lock()
	c.setSession(s)
	c.mu.Unlock()

	// All of these end with the channels, the forwarder with stop.
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
		e := notSent(why)
		if w.message != nil {
			e = &contract.Error{
				Code: contract.CodeUnconfirmed, Executed: contract.ExecutedUnknown, Cause: why,
				Detail: "the connection to the message broker was lost while the call was under way",
			}
		}
		s.c.resolve(tag, outcome{err: e})
	}
}

// send publishes m, if there is one. It does not wait: see bufferedConn.
func (s *callSession) send(m *message) {
	if m == nil {
		return
	}
	if m.frames {
		s.check(m.calls, s.publish(m, m.calls))
		return
	}
	for i := range m.calls { // a worker that does not understand frames came while they gathered
		s.check(m.calls[i:i+1], s.publish(m, m.calls[i:i+1]))
	}
}

// check tells calls that they were not sent, if the connection was closed by
// then. Any other error ends the connection, and them with it.
func (s *callSession) check(calls []wireCall, err error) {
	if !errors.Is(err, amqp.ErrClosed) {
		return
	}
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	for i := range calls {
		s.c.resolve(calls[i].tag, outcome{err: notSent(err)})
	}
}

func notSent(why error) *contract.Error {
	return &contract.Error{
		Code: contract.CodeUnavailable, Executed: contract.ExecutedNo, After: time.Second, Cause: why,
		Detail: "the connection to the message broker was lost before the call was sent",
	}
}

// publish publishes calls of m in one message.
func (s *callSession) publish(m *message, calls []wireCall) error {
	first := &calls[0]
	p := amqp.Publishing{
		DeliveryMode:  amqp.Transient,
		CorrelationId: first.tag,
		ReplyTo:       s.replyTo,
	}
	last := first.deadline
	if m.frames {
		for i := range calls {
			last = max(last, calls[i].deadline)
		}
		p.ContentType = contentTypeCalls
		p.Body = encodeCalls(calls)
	} else {
		p.ContentType = contentTypeOr(first.contentType)
		p.MessageId = first.id
		p.Headers = callHeaders(first, !s.c.b.cfg.NoBatch)
		p.Body = first.body
	}
	p.Expiration = strconv.FormatInt(max(1, last-time.Now().UnixMilli()), 10)
	return s.requests.Publish(s.c.b.names.requests(), m.lane.key, true, false, p)
}

// takeReturns ends the calls of messages that the broker could not route, until
// the channel closes.
func (s *callSession) takeReturns(returns <-chan amqp.Return) {
	for r := range returns {
		tags := []string{r.CorrelationId}
		if r.ContentType == contentTypeCalls {
			calls, err := decodeCalls(r.Body) // it is what this process has sent
			if err != nil {
				s.c.b.cfg.Log.Error("a returned message cannot be read", zap.Error(err))
				continue
			}
			tags = tags[:0]
			for i := range calls {
				tags = append(tags, calls[i].tag)
			}
		}
		s.c.mu.Lock()
		for _, tag := range tags {
			s.c.resolve(tag, outcome{err: &contract.Error{
				Code: contract.CodeUnroutable, Executed: contract.ExecutedNo, After: time.Second,
				Detail: fmt.Sprintf("no worker serves the routing key %q", r.RoutingKey),
			}})
		}
		s.c.mu.Unlock()
	}
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
		if w.message == nil {
			s.c.resolve(tag, outcome{err: blockedError(s.blocked)})
		}
	}
}

// receive hands replies to who waits for them, until the channel closes, and
// sends the calls that gathered meanwhile.
func (s *callSession) receive(replies <-chan amqp.Delivery) {
	var one [1]wireReply
	var gathered []*message
	for d := range replies {
		if d.ContentType == contentTypeTaken {
			s.taken(&d)
			continue
		}
		list := one[:]
		if d.ContentType != contentTypeReplies {
			one[0] = parseReply(&d)
		} else {
			var err error
			if list, err = decodeReplies(d.Body); err != nil {
				s.c.b.cfg.Log.Warn("replies that cannot be read", zap.String("worker", d.AppId), zap.Error(err))
				continue
			}
		}
		s.c.mu.Lock()
		for i := range list {
			o := outcomeOf(&list[i], d.AppId)
			if d.AppId == "" && list[i].code == contract.CodeExpired && s.wasTaken(list[i].tag) {
				// Not a worker says so, see forwardExpired: the worker was lost, and
				// the call expired before it was delivered again.
				o.err = contract.Expired(contract.ExecutedUnknown)
			}
			if m := s.replied(s.c.resolve(list[i].tag, o), list[i].run); m != nil {
				gathered = append(gathered, m)
			}
		}
		s.c.mu.Unlock()
		for i, m := range gathered {
			s.send(m)
			gathered[i] = nil
		}
		gathered = gathered[:0]
	}
}

// taken notes what a worker says of a message of calls, see contentTypeTaken.
func (s *callSession) taken(d *amqp.Delivery) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	w := s.c.waiting[d.MessageId]
	if w == nil || w.message == nil {
		return
	}
	w.message.taken = true
	if d.Type == typeAcked {
		w.message.worker = d.AppId
	}
}

// wasTaken reports whether a worker has begun to run the call. c.mu is held.
func (s *callSession) wasTaken(tag string) bool {
	w := s.c.waiting[tag]
	return w != nil && w.message != nil && w.message.taken
}

func outcomeOf(r *wireReply, worker string) outcome {
	if r.code != "" {
		return outcome{err: decodeFailure(r.code, r.body)}
	}
	return outcome{reply: contract.Reply{Body: r.body, Run: r.run, Worker: worker, Session: r.session}}
}
