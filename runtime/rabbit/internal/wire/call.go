package wire

import (
	"cmp"
	"strconv"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// Headers of a message with one call, beside headerCausation. Other clients may
// omit all of them.
const (
	HeaderDeadline    = "rabbet-deadline"    // unix milliseconds: the call must not be started later
	HeaderFrames      = "rabbet-frames"      // true: the caller takes several replies in one message
	headerCorrelation = "rabbet-correlation" // id of the first message of the chain
	HeaderSession     = "rabbet-session"     // of a call: the client's session; of a reply: the changes to it; JSON
	HeaderTraceparent = "traceparent"
	headerTracestate  = "tracestate"
	headerBaggage     = "baggage"
)

// Headers of a message with one reply.
const (
	HeaderError = "rabbet-error" // the error code; the body is then a failure's JSON
	HeaderRun   = "rabbet-run"   // how long the function ran, in microseconds
)

// ContentTypeJSON is the content type of bodies, unless another is given.
const ContentTypeJSON = "application/json"

// ContentTypeOr returns t, or ContentTypeJSON if it is empty.
func ContentTypeOr(t string) string { return cmp.Or(t, ContentTypeJSON) }

// CallHeaders returns the headers of a message with the single call c.
func CallHeaders(c *Call, frames bool) amqp.Table {
	h := amqp.Table{HeaderDeadline: c.Deadline}
	if frames {
		h[HeaderFrames] = true
	}
	for _, x := range [...]struct{ name, value string }{
		{headerCorrelation, c.Correlation}, {headerCausation, c.Causation},
		{HeaderTraceparent, c.Trace.Parent}, {headerTracestate, c.Trace.State}, {headerBaggage, c.Trace.Baggage},
	} {
		if x.value != "" {
			h[x.name] = x.value
		}
	}
	if c.Session != nil {
		h[HeaderSession] = string(c.Session)
	}
	return h
}

// ParseCall reads a message with one call. A header of an unexpected type counts
// as missing.
func ParseCall(d *amqp.Delivery, now time.Time) Call {
	c := Call{
		Tag: d.CorrelationId, ID: cmp.Or(d.MessageId, d.CorrelationId), ContentType: d.ContentType, Body: d.Body,
		Correlation: Text(d.Headers, headerCorrelation), Causation: Text(d.Headers, headerCausation),
		Trace: contract.Trace{
			Parent: Text(d.Headers, HeaderTraceparent), State: Text(d.Headers, headerTracestate), Baggage: Text(d.Headers, headerBaggage),
		},
		Session: bytesOf(d.Headers, HeaderSession),
	}
	if ms, ok := integer(d.Headers, HeaderDeadline); ok && ms > 0 {
		c.Deadline = ms
	} else if ms, err := strconv.ParseInt(d.Expiration, 10, 64); err == nil && ms >= 0 && ms < maxAfter.Milliseconds() {
		c.Deadline = now.UnixMilli() + ms // other clients set an expiration instead of a deadline
	}
	if c.ID == "" {
		c.ID = contract.NewID()
	}
	return c
}

// TakenMessage says that worker is about to run the batch whose first call has
// that tag, and whether it has acknowledged the batch.
func TakenMessage(tag, worker string, acked bool) amqp.Publishing {
	p := amqp.Publishing{ContentType: ContentTypeTaken, MessageId: tag, AppId: worker}
	if acked {
		p.Type = TypeAcked
	}
	return p
}

// ParseReply reads a message with one reply.
func ParseReply(d *amqp.Delivery) Reply {
	r := Reply{Tag: d.CorrelationId, Body: d.Body, Code: contract.Code(Text(d.Headers, HeaderError)), Session: bytesOf(d.Headers, HeaderSession)}
	if us, ok := integer(d.Headers, HeaderRun); ok && us > 0 && us < maxRunMicros {
		r.Run = time.Duration(us) * time.Microsecond
	}
	if _, there := d.Headers[HeaderError]; there && r.Code == "" {
		r.Code = contract.CodeInternal // the header is there, but its value is not a string
	}
	return r
}

// Text returns a header that is a string; "" for anything else.
func Text(h amqp.Table, name string) string {
	s, _ := h[name].(string)
	return s
}

// bytesOf returns a header that is a string, as bytes; nil for anything else.
func bytesOf(h amqp.Table, name string) []byte {
	if s, ok := h[name].(string); ok {
		return []byte(s)
	}
	return nil
}

// Flag reports whether a header is true.
func Flag(h amqp.Table, name string) bool {
	b, _ := h[name].(bool)
	return b
}

// integer returns a header that is an integer of any width.
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
