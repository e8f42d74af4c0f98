package caller

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/channel"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/wire"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// session is the calling side's life on one connection. All of its fields
// but the channels are guarded by caller.mu.
type session struct {
	c        *Caller
	requests *amqp.Channel
	replyTo  string // the queue that replies come to

	blocked  string          // the broker's reason to take nothing; "" when it does
	changed  <-chan struct{} // closed when the directory has changed
	batchers map[string]*batcher
}

var replyQueues atomic.Uint64

// serveConnection lets calls be made over conn, until ctx is done or conn fails.
//
// Calls are not confirmed: what the broker cannot route it returns, what finds
// its queue full it puts where expired calls go, and both come back as the
// outcome of the call; anything else that is lost shows as a reply that is
// missing, with or without a confirmation.
func (c *Caller) serveConnection(ctx context.Context, conn *amqp.Connection) error {
	s := &session{
		c: c, changed: c.cfg.Directory.Changed(), batchers: map[string]*batcher{},
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
	// A name of its own each time: after a connection was lost, the broker
	// may believe for a while that its exclusive queue is still in use.
	s.replyTo = fmt.Sprintf("%s.reply.%s.%d", c.cfg.Names.Namespace, c.cfg.Process, replyQueues.Add(1))
	if _, err := answers.QueueDeclare(s.replyTo, false, true, true, false, amqp.Table{"x-queue-type": "classic"}); err != nil {
		return c.cfg.Names.ExplainOwnQueue(err)
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

// end fails all that waits, at once.
func (s *session) end(why error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.c.setSession(nil)
	for tag, w := range s.c.pending {
		e := notSent(why)
		if w.batch != nil {
			e = &contract.Error{
				Code: contract.CodeUnconfirmed, Executed: contract.ExecutedUnknown, Cause: why,
				Detail: "the connection to the message broker was lost while the call was under way",
			}
		}
		s.c.resolve(tag, outcome{err: e})
	}
}

// send publishes m, if there is one. It does not wait: see bufferedConn.
func (s *session) send(m *batch) {
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
func (s *session) check(calls []wire.Call, err error) {
	if !errors.Is(err, amqp.ErrClosed) {
		return
	}
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	for i := range calls {
		s.c.resolve(calls[i].Tag, outcome{err: notSent(err)})
	}
}

func notSent(why error) *contract.Error {
	return &contract.Error{
		Code: contract.CodeUnavailable, Executed: contract.ExecutedNo, After: time.Second, Cause: why,
		Detail: "the connection to the message broker was lost before the call was sent",
	}
}

// publish publishes calls of m in one message.
func (s *session) publish(m *batch, calls []wire.Call) error {
	first := &calls[0]
	p := amqp.Publishing{
		DeliveryMode:  amqp.Transient,
		CorrelationId: first.Tag,
		ReplyTo:       s.replyTo,
	}
	last := first.Deadline
	if m.frames {
		for i := range calls {
			last = max(last, calls[i].Deadline)
		}
		p.ContentType = wire.ContentTypeCalls
		p.Body = wire.EncodeCalls(calls)
	} else {
		p.ContentType = wire.ContentTypeOr(first.ContentType)
		p.MessageId = first.Id
		p.Headers = wire.CallHeaders(first, !s.c.cfg.NoBatch)
		p.Body = first.Body
	}
	p.Expiration = strconv.FormatInt(max(1, last-time.Now().UnixMilli()), 10)
	return s.requests.Publish(s.c.cfg.Names.Requests(), m.batcher.key, true, false, p)
}

// takeReturns ends the calls of messages that the broker could not route, until
// the channel closes.
func (s *session) takeReturns(returns <-chan amqp.Return) {
	for r := range returns {
		tags := []string{r.CorrelationId}
		if r.ContentType == wire.ContentTypeCalls {
			calls, err := wire.DecodeCalls(r.Body) // it is what this process has sent
			if err != nil {
				s.c.cfg.Log.Error("a returned message cannot be read", zap.Error(err))
				continue
			}
			tags = tags[:0]
			for i := range calls {
				tags = append(tags, calls[i].Tag)
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
func (s *session) watchBlocks(ctx context.Context, blocks <-chan amqp.Blocking) {
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

func (s *session) setBlocked(b amqp.Blocking) {
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
	for tag, w := range s.c.pending {
		if w.batch == nil {
			s.c.resolve(tag, outcome{err: blockedError(s.blocked)})
		}
	}
}

// receive hands replies to who waits for them, until the channel closes, and
// sends the calls that gathered meanwhile.
func (s *session) receive(replies <-chan amqp.Delivery) {
	var one [1]wire.Reply
	var gathered []*batch
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
				s.c.cfg.Log.Warn("replies that cannot be read", zap.String("worker", d.AppId), zap.Error(err))
				continue
			}
		}
		s.c.mu.Lock()
		for i := range list {
			o := outcomeOf(&list[i], d.AppId)
			if d.AppId == "" && list[i].Code == contract.CodeExpired && s.wasTaken(list[i].Tag) {
				// Not a worker says so, see forwardExpired: the worker was lost, and
				// the call expired before it was delivered again.
				o.err = contract.Expired(contract.ExecutedUnknown)
			}
			if m := s.onReply(s.c.resolve(list[i].Tag, o), list[i].Run); m != nil {
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
func (s *session) taken(d *amqp.Delivery) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	w := s.c.pending[d.MessageId]
	if w == nil || w.batch == nil {
		return
	}
	w.batch.taken = true
	if d.Type == wire.TypeAcked {
		w.batch.worker = d.AppId
	}
}

// wasTaken reports whether a worker has begun to run the call. c.mu is held.
func (s *session) wasTaken(tag string) bool {
	w := s.c.pending[tag]
	return w != nil && w.batch != nil && w.batch.taken
}

func outcomeOf(r *wire.Reply, worker string) outcome {
	if r.Code != "" {
		return outcome{err: wire.DecodeFailure(r.Code, r.Body)}
	}
	return outcome{reply: contract.Reply{Body: r.Body, Run: r.Run, Worker: worker, Session: r.Session}}
}
