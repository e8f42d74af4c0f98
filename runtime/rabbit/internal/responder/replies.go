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

// replyQueue holds replies that are ready to leave.
type replyQueue struct {
	wake chan struct{} // holds one: there is something to send

	mu      sync.Mutex
	pending []pendingReply
}

// pendingReply is a reply on its way, with the delivery that it answers a call of.
type pendingReply struct {
	d        *delivery
	deadline int64 // unix milliseconds; 0 is none
	reply    wire.Reply
}

// reply sends the answer to c, or puts it in the outbox: failed's, or done.
func (r *Responder) reply(d *delivery, c *wire.Call, done contract.Reply, failed *contract.Error, run time.Duration) {
	reply := wire.Reply{Tag: c.Tag, Run: run, Session: done.Session, Body: done.Body}
	if failed != nil {
		reply.Code, reply.Session, reply.Body = failed.Code, nil, wire.EncodeFailure(failed)
	}
	if len(reply.Body) > contract.MaxReply { // a failure's: see contract.Run.Do
		reply.Code, reply.Session, reply.Body = contract.CodePermanent, nil, wire.EncodeFailure(&contract.Error{
			Detail: fmt.Sprintf("the function's error has %d bytes: a message takes %d at the most", len(reply.Body), contract.MaxReply),
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
		// The acknowledgement may have reached the broker: if the caller got the
		// reply over another channel, the call could run after that.
		reply = wire.Reply{Tag: c.Tag, Code: errReplyLost.Code, Body: wire.EncodeFailure(errReplyLost)}
	} else if r.sendImmediately(d, &reply) {
		return
	}
	r.replies.mu.Lock()
	r.replies.pending = append(r.replies.pending, pendingReply{d, c.Deadline, reply})
	r.replies.mu.Unlock()
	select {
	case r.replies.wake <- struct{}{}:
	default:
	}
}

// sendImmediately sends a reply at once if no other call is under way here that it
// could travel with. It does not wait: see bufferedConn.
func (r *Responder) sendImmediately(d *delivery, reply *wire.Reply) bool {
	r.mu.Lock()
	s, alone := r.session, r.unanswered == 1
	r.mu.Unlock()
	return alone && s != nil && r.sendOver(s, d, reply)
}

// sendOver sends a reply over s at once; it returns false if it could not.
func (r *Responder) sendOver(s *session, d *delivery, reply *wire.Reply) bool {
	if d.replyTo != "" && s.ch.Publish("", d.replyTo, false, false, r.replyMessage([]wire.Reply{*reply}, d.frames)) != nil {
		return false
	}
	r.recordSent(s, d, reply.Tag)
	d.sent()
	r.answered()
	return true
}

// maxSent is how many replies a session remembers. It covers what may be in
// the buffers of a connection when it is lost, at some 10,000 replies a second.
const maxSent = 1024

// sentReply names a reply that was sent behind the acknowledgement of its call.
type sentReply struct {
	replyTo, tag string
	frames       bool
}

// recordSent remembers a reply that is lost with its connection, because the
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

// lastSent returns what noteSent has remembered, once.
func (s *session) lastSent() []sentReply {
	s.mu.Lock()
	defer s.mu.Unlock()
	sent := s.sent
	s.sent, s.next = nil, 0
	return sent
}

// sendReplies sends what is in the outbox, until ctx is done. While there is no
// connection, replies wait for the next one: their callers may still be there.
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

// sendAll sends replies, those to one caller together.
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

// frameMaxReplies bounds the replies in a message.
const frameMaxReplies = 256

// sendFrame sends the replies in one message, over the next connection if
// this one fails. It reports false when ctx was done first.
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

// allExpired reports whether nobody waits for any of the replies any more.
func allExpired(replies []pendingReply) bool {
	now := time.Now().Add(-wire.ExpiryGrace).UnixMilli()
	return !slices.ContainsFunc(replies, func(p pendingReply) bool { return p.deadline == 0 || p.deadline > now })
}

// nextSession returns the living session, and waits for one; nil when ctx is done.
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

// sessionAfter waits until s is not the living session any more; it reports
// false when ctx is done first.
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
