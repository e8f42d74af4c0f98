package responder

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/wire"
)

// replyQueue holds replies to be sent.
type replyQueue struct {
	wake  chan struct{} // has capacity one; receives when pending is to be sent
	timer *time.Timer   // flushes

	mu      sync.Mutex
	pending []pendingReply
}

// pendingReply is a reply to be sent to a call of d.
type pendingReply struct {
	d        *delivery
	deadline int64 // unix milliseconds; 0 is none
	reply    wire.Reply
}

// reply sends the reply to a call, or adds it to the queue of replies. The reply is
// failed, or done if failed is nil.
func (r *Responder) reply(d *delivery, c *wire.Call, done contract.Reply, failed *contract.Error, run time.Duration) {
	reply := wire.Reply{Tag: c.Tag, Run: run, Session: done.Session, Body: done.Body}
	if failed != nil {
		reply.Code, reply.Session, reply.Body = failed.Code, nil, wire.EncodeFailure(failed)
	}
	if len(reply.Body) > contract.MaxReply { // only an error can be so large: see contract.Run.Do
		reply.Code, reply.Session, reply.Body = contract.CodePermanent, nil, wire.EncodeFailure(&contract.Error{
			Detail: fmt.Sprintf("the function's error has %d bytes: at most %d can be sent", len(reply.Body), contract.MaxReply),
		})
	}
	if !d.answer() {
		r.answered() // the broker delivers it again
		return
	}
	if r.fn.Redeliver && !r.fn.ReadOnly {
		if r.sendOver(d.session, d, &reply) {
			return
		}
		// The broker may have received the acknowledgement. If the caller received the
		// reply over another channel and the broker did not, the call would run again
		// after its reply.
		reply = wire.Reply{Tag: c.Tag, Code: errReplyLost.Code, Body: wire.EncodeFailure(errReplyLost)}
	} else if r.sendImmediately(d, &reply) {
		return
	}
	r.replies.add(pendingReply{d, c.Deadline, reply})
}

// replyWait is how long a reply may wait for those to other calls of its message.
const replyWait = 500 * time.Microsecond

// add adds a reply. It is sent together with the others after the last call of its
// message has ended, or after replyWait.
func (q *replyQueue) add(p pendingReply) {
	last := p.d.ended()
	q.mu.Lock()
	defer q.mu.Unlock()
	q.pending = append(q.pending, p)
	if last {
		q.flush()
	} else if len(q.pending) == 1 {
		q.timer.Reset(replyWait)
	}
}

// flush makes sendReplies send what is pending.
func (q *replyQueue) flush() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// sendImmediately sends a reply if there is no other call whose reply could be sent
// with it. It does not block: the connection buffers writes.
func (r *Responder) sendImmediately(d *delivery, reply *wire.Reply) bool {
	r.mu.Lock()
	s, alone := r.session, r.unanswered == 1
	r.mu.Unlock()
	return alone && s != nil && r.sendOver(s, d, reply)
}

// sendOver sends a reply over s. It returns false if the channel is closed.
func (r *Responder) sendOver(s *session, d *delivery, reply *wire.Reply) bool {
	if d.replyTo != "" && s.ch.Publish("", d.replyTo, false, false, r.replyMessage([]wire.Reply{*reply}, d.frames)) != nil {
		return false
	}
	r.recordSent(s, d, reply.Tag)
	d.sent()
	r.answered()
	return true
}

// maxSent is how many replies a session remembers: more than the buffers of a
// connection may hold when it is lost, at about 10,000 replies a second.
const maxSent = 1024

// sentReply identifies a reply that was sent after its call was acknowledged.
type sentReply struct {
	replyTo, tag string
	frames       bool
}

// recordSent remembers a reply that would be lost with its connection, because the
// broker does not deliver its call again.
func (r *Responder) recordSent(s *session, d *delivery, tag string) {
	if d.settle == afterReply || d.replyTo == "" {
		return
	}
	sent := sentReply{d.replyTo, tag, d.frames}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.sent) < maxSent {
		s.sent = append(s.sent, sent)
		return
	}
	s.sent[s.next] = sent
	s.next = (s.next + 1) % maxSent
}

// lastSent returns what recordSent has remembered, and forgets it.
func (s *session) lastSent() []sentReply {
	s.mu.Lock()
	defer s.mu.Unlock()
	sent := s.sent
	s.sent, s.next = nil, 0
	return sent
}

// sendReplies sends queued replies until ctx is done. Without a connection, replies
// wait for the next one: their callers may still be waiting.
func (r *Responder) sendReplies(ctx context.Context) {
	var spare []pendingReply
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.replies.wake:
		}
		r.replies.mu.Lock()
		replies := r.replies.pending
		r.replies.pending = spare[:0]
		r.replies.mu.Unlock()
		r.sendAll(ctx, replies)
		clear(replies)
		spare = replies
	}
}

// sendAll sends replies, in one message for each caller where possible.
func (r *Responder) sendAll(ctx context.Context, replies []pendingReply) {
	slices.SortStableFunc(replies, func(a, b pendingReply) int { return strings.Compare(a.d.replyTo, b.d.replyTo) })
	var frame []wire.Reply
	for len(replies) > 0 {
		n, size := 1, replies[0].reply.Size()
		for n < len(replies) && n < frameMaxReplies && replies[0].d.frames && replies[n].d.frames &&
			replies[n].d.replyTo == replies[0].d.replyTo {
			if size += replies[n].reply.Size(); size > wire.FrameMaxBytes {
				break
			}
			n++
		}
		frame = frame[:0]
		for i := range replies[:n] {
			frame = append(frame, replies[i].reply)
		}
		if !r.sendFrame(ctx, replies[0].d.replyTo, frame, replies[:n]) {
			return
		}
		for i := range replies[:n] {
			replies[i].d.sent()
			r.answered()
		}
		replies = replies[n:]
	}
}

// frameMaxReplies is the maximum number of replies in a message.
const frameMaxReplies = 256

// sendFrame sends the replies in one message, over the next connection if this one
// fails. It returns false if ctx was done first.
func (r *Responder) sendFrame(ctx context.Context, replyTo string, frame []wire.Reply, replies []pendingReply) bool {
	if replyTo == "" {
		return true
	}
	p := r.replyMessage(frame, replies[0].d.frames)
	for {
		s := r.nextSession(ctx)
		if s == nil {
			return false
		}
		if s.ch.Publish("", replyTo, false, false, p) == nil {
			for i := range replies {
				r.recordSent(s, replies[i].d, frame[i].Tag)
			}
			return true
		}
		if allExpired(replies) || !r.sessionAfter(ctx, s) {
			return ctx.Err() == nil
		}
	}
}

func (r *Responder) replyMessage(frame []wire.Reply, frames bool) amqp.Publishing {
	if frames {
		return amqp.Publishing{ContentType: wire.ContentTypeReplies, AppId: r.cfg.Process, Body: wire.EncodeReplies(frame)}
	}
	one := &frame[0]
	p := amqp.Publishing{
		ContentType: wire.ContentTypeJSON, CorrelationId: one.Tag, AppId: r.cfg.Process, Body: one.Body,
		Headers: amqp.Table{wire.HeaderRun: one.Run.Microseconds()},
	}
	if one.Code != "" {
		p.Headers[wire.HeaderError] = string(one.Code)
	}
	if one.Session != nil {
		p.Headers[wire.HeaderSession] = string(one.Session)
	}
	return p
}

// allExpired reports whether the callers of all replies have stopped waiting.
func allExpired(replies []pendingReply) bool {
	now := time.Now().Add(-wire.ExpiryGrace).UnixMilli()
	return !slices.ContainsFunc(replies, func(p pendingReply) bool { return p.deadline == 0 || p.deadline > now })
}

// nextSession returns the current session, or waits for one; nil when ctx is done.
func (r *Responder) nextSession(ctx context.Context) *session {
	for {
		r.mu.Lock()
		s, changed := r.session, r.changed
		r.mu.Unlock()
		if s != nil {
			return s
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// sessionAfter waits until s is no longer the current session. It returns false if
// ctx was done first.
func (r *Responder) sessionAfter(ctx context.Context, s *session) bool {
	for {
		r.mu.Lock()
		now, changed := r.session, r.changed
		r.mu.Unlock()
		if now != s {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-changed:
		}
	}
}
