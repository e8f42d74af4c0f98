package rabbit

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// outbox holds replies that are ready to leave.
type outbox struct {
	wake chan struct{} // holds one: there is something to send

	mu      sync.Mutex
	replies []ready
}

// ready is a reply on its way, with the delivery that it answers a call of.
type ready struct {
	d        *delivery
	deadline int64 // unix milliseconds; 0 is none
	reply    wireReply
}

// reply sends the answer to c, or puts it in the outbox: failed's, or done.
func (r *responder) reply(d *delivery, c *wireCall, done contract.Reply, failed *contract.Error, run time.Duration) {
	reply := wireReply{tag: c.tag, run: run, session: done.Session, body: done.Body}
	if failed != nil {
		reply.code, reply.session, reply.body = failed.Code, nil, encodeFailure(failed)
	}
	if len(reply.body) > contract.MaxReply { // a failure's: see contract.Run.Do
		reply.code, reply.session, reply.body = contract.CodePermanent, nil, encodeFailure(&contract.Error{
			Detail: fmt.Sprintf("the function's error has %d bytes: a message takes %d at the most", len(reply.body), contract.MaxReply),
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
		reply = wireReply{tag: c.tag, code: errReplyLost.Code, body: encodeFailure(errReplyLost)}
	} else if r.sendAlone(d, &reply) {
		return
	}
	r.outbox.mu.Lock()
	r.outbox.replies = append(r.outbox.replies, ready{d, c.deadline, reply})
	r.outbox.mu.Unlock()
	select {
	case r.outbox.wake <- struct{}{}:
	default:
	}
}

// sendAlone sends a reply at once if no other call is under way here that it
// could travel with. It does not wait: see bufferedConn.
func (r *responder) sendAlone(d *delivery, reply *wireReply) bool {
	r.mu.Lock()
	s, alone := r.session, r.load == 1
	r.mu.Unlock()
	return alone && s != nil && r.sendOver(s, d, reply)
}

// sendOver sends a reply over s at once; it returns false if it could not.
func (r *responder) sendOver(s *workSession, d *delivery, reply *wireReply) bool {
	if d.replyTo != "" && s.ch.Publish("", d.replyTo, false, false, r.replyMessage([]wireReply{*reply}, d.frames)) != nil {
		return false
	}
	r.noteSent(s, d, reply.tag)
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

// noteSent remembers a reply that is lost with its connection, because the
// broker does not deliver its call again.
func (r *responder) noteSent(s *workSession, d *delivery, tag string) {
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
func (s *workSession) lastSent() []sentReply {
	s.mu.Lock()
	defer s.mu.Unlock()
	sent := s.sent
	s.sent, s.next = nil, 0
	return sent
}

// send sends what is in the outbox, until ctx is done. While there is no
// connection, replies wait for the next one: their callers may still be there.
func (r *responder) send(ctx context.Context) {
	var spare []ready
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.outbox.wake:
		}
		r.outbox.mu.Lock()
		replies := r.outbox.replies
		r.outbox.replies = spare[:0]
		r.outbox.mu.Unlock()
		r.sendAll(ctx, replies)
		clear(replies)
		spare = replies
	}
}

// sendAll sends replies, those to one caller together.
func (r *responder) sendAll(ctx context.Context, replies []ready) {
	slices.SortStableFunc(replies, func(a, b ready) int { return strings.Compare(a.d.replyTo, b.d.replyTo) })
	var frame []wireReply
	for len(replies) > 0 {
		n, size := 1, replies[0].reply.size()
		for n < len(replies) && n < frameMaxReplies && replies[0].d.frames && replies[n].d.frames &&
			replies[n].d.replyTo == replies[0].d.replyTo {
			if size += replies[n].reply.size(); size > gatherMaxBytes {
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
func (r *responder) sendFrame(ctx context.Context, replyTo string, frame []wireReply, replies []ready) bool {
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
				r.noteSent(s, replies[i].d, frame[i].tag)
			}
			return true
		}
		if allExpired(replies) || !r.sessionAfter(ctx, s) {
			return ctx.Err() == nil
		}
	}
}

func (r *responder) replyMessage(frame []wireReply, frames bool) amqp.Publishing {
	if frames {
		return amqp.Publishing{ContentType: contentTypeReplies, AppId: r.b.cfg.Process, Body: encodeReplies(frame)}
	}
	one := &frame[0]
	p := amqp.Publishing{
		ContentType: contentTypeJSON, CorrelationId: one.tag, AppId: r.b.cfg.Process, Body: one.body,
		Headers: amqp.Table{headerRun: one.run.Microseconds()},
	}
	if one.code != "" {
		p.Headers[headerError] = string(one.code)
	}
	if one.session != nil {
		p.Headers[headerSession] = string(one.session)
	}
	return p
}

// allExpired reports whether nobody waits for any of the replies any more.
func allExpired(replies []ready) bool {
	now := time.Now().Add(-verdictWait).UnixMilli()
	return !slices.ContainsFunc(replies, func(p ready) bool { return p.deadline == 0 || p.deadline > now })
}

// nextSession returns the living session, and waits for one; nil when ctx is done.
func (r *responder) nextSession(ctx context.Context) *workSession {
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
func (r *responder) sessionAfter(ctx context.Context, s *workSession) bool {
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
