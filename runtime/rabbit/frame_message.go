package rabbit

import (
	"cmp"
	"strconv"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// Headers of a message with one call, beside headerCausation. All may be missing, as they are in the
// messages of foreign callers.
const (
	headerDeadline    = "rabbet-deadline"    // unix milliseconds: the call must not be started later
	headerFrames      = "rabbet-frames"      // true: the caller takes several replies in one message
	headerCorrelation = "rabbet-correlation" // what the chain began with
	headerSession     = "rabbet-session"     // of a call: the client's session; of a reply: what was done to it; JSON
	headerTraceparent = "traceparent"
	headerTracestate  = "tracestate"
	headerBaggage     = "baggage"
)

// Headers of a message with one reply.
const (
	headerError = "rabbet-error" // the error code; the body is then a failure's JSON
	headerRun   = "rabbet-run"   // how long the function ran, in microseconds
)

const contentTypeJSON = "application/json"

func contentTypeOr(t string) string { return cmp.Or(t, contentTypeJSON) }

// callHeaders are the headers of a message with the call c alone.
func callHeaders(c *wireCall, frames bool) amqp.Table {
	h := amqp.Table{headerDeadline: c.deadline}
	if frames {
		h[headerFrames] = true
	}
	for _, x := range [...]struct{ name, value string }{
		{headerCorrelation, c.correlation}, {headerCausation, c.causation},
		{headerTraceparent, c.trace.Parent}, {headerTracestate, c.trace.State}, {headerBaggage, c.trace.Baggage},
	} {
		if x.value != "" {
			h[x.name] = x.value
		}
	}
	if c.session != nil {
		h[headerSession] = string(c.session)
	}
	return h
}

// parseCall reads a message with one call. Nothing in it is believed further
// than its type goes: a header of another type counts as missing.
func parseCall(d *amqp.Delivery, now time.Time) wireCall {
	c := wireCall{
		tag: d.CorrelationId, id: cmp.Or(d.MessageId, d.CorrelationId), contentType: d.ContentType, body: d.Body,
		correlation: text(d.Headers, headerCorrelation), causation: text(d.Headers, headerCausation),
		trace: contract.Trace{
			Parent: text(d.Headers, headerTraceparent), State: text(d.Headers, headerTracestate), Baggage: text(d.Headers, headerBaggage),
		},
		session: bytesOf(d.Headers, headerSession),
	}
	if ms, ok := integer(d.Headers, headerDeadline); ok && ms > 0 {
		c.deadline = ms
	} else if ms, err := strconv.ParseInt(d.Expiration, 10, 64); err == nil && ms >= 0 && ms < maxAfter.Milliseconds() {
		c.deadline = now.UnixMilli() + ms // a foreign caller says how long it waits, not until when
	}
	if c.id == "" {
		c.id = contract.NewID()
	}
	return c
}

// takenMessage tells a caller that worker runs the calls that were sent with the
// call of that tag, and whether it has acknowledged them.
func takenMessage(tag, worker string, acked bool) amqp.Publishing {
	p := amqp.Publishing{ContentType: contentTypeTaken, MessageId: tag, AppId: worker}
	if acked {
		p.Type = typeAcked
	}
	return p
}

// parseReply reads a message with one reply.
func parseReply(d *amqp.Delivery) wireReply {
	r := wireReply{tag: d.CorrelationId, body: d.Body, code: contract.Code(text(d.Headers, headerError)), session: bytesOf(d.Headers, headerSession)}
	if us, ok := integer(d.Headers, headerRun); ok && us > 0 && us < maxRunMicros {
		r.run = time.Duration(us) * time.Microsecond
	}
	if _, there := d.Headers[headerError]; there && r.code == "" {
		r.code = contract.CodeInternal // it says that it is an error, in a way that we cannot read
	}
	return r
}

// text is a header that is a string; "" for anything else.
func text(h amqp.Table, name string) string {
	s, _ := h[name].(string)
	return s
}

// bytesOf is a header that is a string, as bytes; nil for anything else.
func bytesOf(h amqp.Table, name string) []byte {
	if s, ok := h[name].(string); ok {
		return []byte(s)
	}
	return nil
}

// flag is a header that is true.
func flag(h amqp.Table, name string) bool {
	b, _ := h[name].(bool)
	return b
}

// integer is a header that is a whole number of any width.
func integer(h amqp.Table, name string) (int64, bool) {
	switch v := h[name].(type) {
	case int64:
		return v, true
	case int32:
		return int64(v), true
	case int16:
		return int64(v), true
	case int8:
		return int64(v), true
	case uint8:
		return int64(v), true
	case int:
		return int64(v), true
	}
	return 0, false
}
