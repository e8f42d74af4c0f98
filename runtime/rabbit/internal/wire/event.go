// Package wire maps events, calls and replies to AMQP messages and back: headers,
// properties and the frames that carry several calls in one message. It neither
// sends nor receives.
package wire

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"maps"
	"math"
	"strconv"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/topology"
)

// Headers reserved for Rabbet.
const (
	HeaderAttempt   = "rabbet-attempt"    // number of the next run, from 1
	headerCausation = "rabbet-causation"  // id of the message that caused this one
	HeaderNotBefore = "rabbet-not-before" // Unix milliseconds
	HeaderKey       = "rabbet-key"        // routing key that it was first published with
	HeaderExchange  = "rabbet-exchange"   // exchange that it was first published to
	HeaderFirst     = "rabbet-first"      // Unix milliseconds of the first failure
	HeaderPublish   = "rabbet-publish"    // number of the publish on its channel, to tell returns apart

	// Headers of a message in a delay tier, or due.
	HeaderTarget = "rabbet-target"  // the target queue
	HeaderTier   = "rabbet-tier"    // the tier to which it was last published
	HeaderDue    = "rabbet-due"     // Unix milliseconds: when it leaves that tier
	HeaderPutOff = "rabbet-put-off" // how often its target did not accept it

	headerPrefix      = "rabbet-"
	CloudEventsPrefix = "cloudEvents_"
)

// Limits of messages, in bytes.
const (
	maxBody    = 16 << 20 // the default maximum of RabbitMQ 4
	MaxHeaders = 64 << 10 // of all headers; they must fit into one frame of 128 KiB
	MaxShort   = 255      // of an AMQP short string
)

// isReserved reports whether a header is reserved for the broker or for Rabbet:
// publishers must not set it, and functions do not see it. CC and BCC would
// bypass permissions.
func isReserved(header string) bool {
	switch header {
	case "CC", "BCC", "x-death", "x-delivery-count", "x-acquired-count", "x-opt-deaths",
		"x-first-death-exchange", "x-first-death-queue", "x-first-death-reason",
		"x-last-death-exchange", "x-last-death-queue", "x-last-death-reason",
		"traceparent", "tracestate", "baggage":
		return true
	}
	return strings.HasPrefix(header, headerPrefix)
}

// FromEvent returns the message for e. It fails with contract.CodeInvalid on what
// AMQP cannot carry.
func FromEvent(e *contract.Event) (amqp.Publishing, error) {
	headers := make(amqp.Table, len(e.Headers)+4)
	for k, v := range e.Headers {
		if isReserved(k) {
			continue
		}
		if len(k) > MaxShort {
			return amqp.Publishing{}, contract.Errorf(contract.CodeInvalid, "header %.40q…: its name is longer than %d bytes", k, MaxShort)
		}
		headers[k] = toField(v)
	}
	setTrace(headers, e.Trace)
	if e.Causation != "" {
		headers[headerCausation] = e.Causation
	}
	if !e.NotBefore.IsZero() {
		headers[HeaderNotBefore] = UnixMilliCeil(e.NotBefore)
	}
	for name, v := range map[string]string{
		"exchange": e.Exchange, "routing key": e.Key, "id": e.ID, "content type": e.ContentType,
		"type": e.Type, "correlation id": e.Correlation,
	} {
		if len(v) > MaxShort {
			return amqp.Publishing{}, contract.Errorf(contract.CodeInvalid, "%s %.40q…: it is longer than %d bytes", name, v, MaxShort)
		}
	}
	switch {
	case e.Key == "":
		return amqp.Publishing{}, contract.Errorf(contract.CodeInvalid, "an event needs a routing key")
	case time.Until(e.NotBefore) > contract.MaxDelay:
		return amqp.Publishing{}, contract.Errorf(contract.CodeInvalid, "an event for %s: it can be published at most %d days ahead", e.NotBefore.Format(time.RFC3339), int(contract.MaxDelay.Hours()/24))
	case len(e.Body) > maxBody:
		return amqp.Publishing{}, contract.Errorf(contract.CodeInvalid, "an event of %d bytes: RabbitMQ takes up to %d; send a reference to the data instead", len(e.Body), maxBody)
	case tableSize(headers) > MaxHeaders:
		return amqp.Publishing{}, contract.Errorf(contract.CodeInvalid, "headers of %d bytes: at most %d fit", tableSize(headers), MaxHeaders)
	}
	if err := headers.Validate(); err != nil {
		return amqp.Publishing{}, contract.Errorf(contract.CodeInvalid, "headers that AMQP cannot carry: %w", err)
	}
	return amqp.Publishing{
		Headers: headers, ContentType: e.ContentType, DeliveryMode: amqp.Persistent,
		CorrelationId: e.Correlation, MessageId: e.ID, Timestamp: e.Time, Type: e.Type, AppId: "rabbet", Body: e.Body,
	}, nil
}

// ToEvent returns the event of a delivery, of any publisher. It never fails: what
// is not valid is left out, what is missing is filled in.
func ToEvent(n topology.Names, d *amqp.Delivery) contract.Event {
	e := contract.Event{
		Key: d.RoutingKey, Exchange: d.Exchange, ID: d.MessageId, ContentType: cmp.Or(d.ContentType, "application/json"),
		Type: d.Type, Time: d.Timestamp, Body: d.Body, Correlation: d.CorrelationId,
		Causation: String(d.Headers, headerCausation),
		Trace: contract.Trace{
			Parent: String(d.Headers, "traceparent"), State: String(d.Headers, "tracestate"), Baggage: String(d.Headers, "baggage"),
		},
		Attempt:     int(min(max(Int(d.Headers, HeaderAttempt), 1), math.MaxInt32)),
		Redelivered: d.Redelivered,
	}
	switch d.Exchange {
	case n.OldDueExchange(), "": // it was delayed or replayed
		if key := String(d.Headers, HeaderKey); key != "" {
			e.Key, e.Exchange = key, String(d.Headers, HeaderExchange)
		}
	}
	if ms := Int(d.Headers, HeaderNotBefore); ms > 0 {
		e.NotBefore = time.UnixMilli(ms)
	}
	if len(d.Headers) > 0 {
		e.Headers = make(map[string]any, len(d.Headers))
		for k, v := range d.Headers {
			if !isReserved(k) {
				e.Headers[cloudEventsName(k)] = fromField(v, 0)
			}
		}
	}
	fillFromCloudEvent(&e)
	return e
}

// fillFromCloudEvent fills what the AMQP properties leave open from the
// CloudEvents attributes.
func fillFromCloudEvent(e *contract.Event) {
	attribute := func(name string) string {
		s, _ := e.Headers[CloudEventsPrefix+name].(string)
		return s
	}
	e.ID = cmp.Or(e.ID, shortID(attribute("id")), contract.NewID())
	e.Type = cmp.Or(e.Type, attribute("type"))
	if e.Time.IsZero() {
		e.Time, _ = time.Parse(time.RFC3339Nano, attribute("time"))
	}
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
}

// shortID returns an id that fits into the AMQP property message-id. A longer one
// is replaced by its hash.
func shortID(id string) string {
	if len(id) <= MaxShort {
		return id
	}
	return fmt.Sprintf("sha256-%x", sha256.Sum256([]byte(id)))
}

// cloudEventsName returns the name of a CloudEvents attribute in the form that
// functions see.
func cloudEventsName(header string) string {
	for _, prefix := range []string{"cloudEvents:", "ce-", "ce_"} {
		if name, ok := strings.CutPrefix(header, prefix); ok {
			return CloudEventsPrefix + name
		}
	}
	return header
}

func setTrace(headers amqp.Table, t contract.Trace) {
	for name, v := range map[string]string{"traceparent": t.Parent, "tracestate": t.State, "baggage": t.Baggage} {
		if v != "" {
			headers[name] = v
		}
	}
}

// UnixMilliCeil returns t in Unix milliseconds, rounded up, so that a wait until
// then never ends early.
func UnixMilliCeil(t time.Time) int64 { return t.Add(time.Millisecond - 1).UnixMilli() }

// String returns a header that is a string; "" for anything else.
func String(t amqp.Table, name string) string {
	s, _ := t[name].(string)
	return s
}

// Int returns a header that is an integer of any width, or digits; 0 for anything
// else.
func Int(t amqp.Table, name string) int64 {
	switch v := t[name].(type) {
	case int64:
		return v
	case int32:
		return int64(v)
	case int16:
		return int64(v)
	case int8:
		return int64(v)
	case byte:
		return int64(v)
	case uint16:
		return int64(v)
	case uint32:
		return int64(v)
	case string:
		n, _ := strconv.ParseInt(v, 10, 64)
		return n
	}
	return 0
}

// toField converts a Go value to one that the AMQP client can encode.
func toField(v any) any {
	switch v := v.(type) {
	case map[string]any:
		t := make(amqp.Table, len(v))
		for k, f := range v {
			t[k] = toField(f)
		}
		return t
	case []any:
		list := make([]any, len(v))
		for i, f := range v {
			list[i] = toField(f)
		}
		return list
	case []string:
		list := make([]any, len(v))
		for i, s := range v {
			list[i] = s
		}
		return list
	case uint64:
		return strconv.FormatUint(v, 10)
	case uint:
		return strconv.FormatUint(uint64(v), 10)
	case time.Duration:
		return v.String()
	case fmt.Stringer:
		if t, ok := v.(time.Time); ok {
			return t
		}
		return v.String()
	}
	return v
}

// fromField reverts toField for tables, so that functions see no AMQP types.
func fromField(v any, depth int) any {
	if depth > 32 {
		return nil
	}
	switch v := v.(type) {
	case amqp.Table:
		m := make(map[string]any, len(v))
		for k, f := range v {
			m[k] = fromField(f, depth+1)
		}
		return m
	case []any:
		list := make([]any, len(v))
		for i, f := range v {
			list[i] = fromField(f, depth+1)
		}
		return list
	}
	return v
}

// tableSize returns about how many bytes v has as a field on the wire.
func tableSize(v any) int {
	switch v := v.(type) {
	case amqp.Table:
		n := 5
		for k, f := range v {
			n += 1 + len(k) + tableSize(f)
		}
		return n
	case []any:
		n := 5
		for _, f := range v {
			n += tableSize(f)
		}
		return n
	case string:
		return 5 + len(v)
	case []byte:
		return 5 + len(v)
	}
	return 9
}

// CopyOf returns a message with the bytes and headers of a delivery, and own on
// top. It omits what would route, expire or refuse the copy: CC and BCC, the
// expiration, the user id.
func CopyOf(d *amqp.Delivery, e *contract.Event, own amqp.Table) amqp.Publishing {
	headers := make(amqp.Table, len(d.Headers)+len(own)+3)
	maps.Copy(headers, d.Headers)
	for _, name := range []string{"CC", "BCC", "x-death", "x-delivery-count", "x-acquired-count", HeaderPublish} {
		delete(headers, name)
	}
	headers[HeaderKey], headers[HeaderExchange] = e.Key, e.Exchange
	maps.Copy(headers, own)
	fitHeaders(headers)
	return amqp.Publishing{
		Headers: headers, ContentType: d.ContentType, ContentEncoding: d.ContentEncoding, DeliveryMode: amqp.Persistent,
		Priority: d.Priority, CorrelationId: d.CorrelationId, ReplyTo: d.ReplyTo, MessageId: e.ID, Timestamp: e.Time,
		Type: d.Type, AppId: d.AppId, Body: d.Body,
	}
}

// fitHeaders drops the largest headers until the rest fits into a frame. A
// message that cannot be copied would be delivered again without end.
func fitHeaders(headers amqp.Table) {
	const frame = 120 << 10
	for tableSize(headers) > frame {
		var largest string
		for k, v := range headers {
			if largest == "" || tableSize(v) > tableSize(headers[largest]) {
				largest = k
			}
		}
		delete(headers, largest)
		headers[headerPrefix+"dropped-header"] = largest[:min(len(largest), MaxShort)]
	}
}
