package ingress

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// accepted is the body of a 202.
type accepted struct {
	ID string `json:"id"`
}

// publish serves POST /events/{key}. The body is the event, byte by byte; it
// must be JSON if that is what its content type says, or if it has none.
func (x *exchange) publish(*routes) {
	r := x.request
	e := contract.Event{Key: r.PathValue("key"), ID: eventID(r.Header), Correlation: x.correlation(), Trace: traceOf(r.Header)}
	p := checkKey(e.Key)
	if p == nil && r.URL.RawQuery != "" {
		p = refuse(http.StatusUnprocessableEntity, "an event takes no query parameters: put them into the body")
	}
	if p == nil {
		e.NotBefore, p = deliverAt(r.Header)
	}
	if p == nil {
		e.ContentType, e.Body, p = x.eventBody()
	}
	if p != nil {
		x.fail(p)
		return
	}
	if p := x.send(func(ctx context.Context) *problem { return x.hand(ctx, e) }); p != nil {
		x.fail(p)
		return
	}
	x.accept(http.StatusAccepted, accepted{e.ID})
}

// eventBody reads the body of an event and its content type.
func (x *exchange) eventBody() (contentType string, body []byte, p *problem) {
	r := x.request
	if p := plainEncoding(r); p != nil {
		return "", nil, p
	}
	contentType = r.Header.Get("Content-Type")
	switch {
	case unlabelled(r, contentType):
		contentType = "application/json"
	case contentType == "" || contentType == "application/x-www-form-urlencoded":
		return "", nil, refuse(http.StatusUnsupportedMediaType, "say what the event is with Content-Type: application/json")
	case len(contentType) > maxShort:
		return "", nil, refuse(http.StatusUnsupportedMediaType, "the content type is longer than %d bytes", maxShort)
	}
	if body, p = x.read(); p != nil {
		return "", nil, p
	}
	if isJSON(contentType) {
		if len(body) == 0 {
			body = []byte("{}")
		}
		p = malformed(body)
	}
	return contentType, body, p
}

// maxShort is how long a short string of AMQP 0-9-1 can be: a routing key, a
// message id, a content type, a type.
const maxShort = 255

func checkKey(key string) *problem {
	switch {
	case key == "" || len(key) > maxShort:
		return refuse(http.StatusBadRequest, "the routing key has %d bytes: AMQP allows 1 to %d", len(key), maxShort)
	case strings.ContainsAny(key, "*#"):
		return refuse(http.StatusBadRequest, "the routing key %q contains * or #, which only a pattern does", limited(key))
	}
	return nil
}

// send runs publish within the limits that a call has: one place at the
// ingress, and the client's patience.
func (x *exchange) send(publish func(context.Context) *problem) *problem {
	patience, p := timeout(x.request.Header, contract.DefaultTimeout)
	if p != nil {
		return p
	}
	if p := x.ingress.enter(); p != nil {
		return p
	}
	defer x.ingress.leave()
	ctx, cancel := context.WithTimeout(x.context(), patience)
	defer cancel()
	return publish(ctx)
}

// hand gives e to the broker and returns once it is confirmed.
func (x *exchange) hand(ctx context.Context, e contract.Event) *problem {
	x.sent = true
	err := x.ingress.cfg.Broker.Publish(ctx, e)
	if err == nil {
		return nil
	}
	failure := contract.AsError(err)
	p := problemOf(failure, false)
	switch failure.Code {
	case contract.CodeUnroutable:
		// Nothing is wrong with the event or the broker: what the key names,
		// somebody who listens, is not there.
		p = refuse(http.StatusNotFound, "nobody listens to %q: the event was not published", limited(e.Key))
		p.Type, p.cause = typeOf(failure.Code), err
	case contract.CodeUnconfirmed:
		p.Executed = contract.ExecutedUnknown
	case contract.CodeRefused, contract.CodeBlocked, contract.CodeUnavailable:
		p.Executed = cmp.Or(failure.Executed, contract.ExecutedNo)
		p.Retryable = p.Executed == contract.ExecutedNo
	default:
		p.Detail = "the event may or may not have been published"
		p.Executed = contract.ExecutedUnknown
	}
	return p
}

// accept answers that events were taken.
func (x *exchange) accept(status int, v any) {
	body, err := json.Marshal(v)
	if err != nil { // never: it is made of strings and numbers
		panic(err)
	}
	x.set("Content-Type", "application/json")
	x.write(status, append(body, '\n'))
}

// deliverAt is when an event is to be delivered: at the time that Deliver-At
// gives (RFC 3339), or in so many seconds as Deliver-In says; at once without.
func deliverAt(h http.Header) (time.Time, *problem) {
	at, in := h["Deliver-At"], h["Deliver-In"]
	var t time.Time
	switch {
	case len(at)+len(in) == 0:
		return t, nil
	case len(at)+len(in) > 1:
		return t, refuse(http.StatusBadRequest, "Deliver-At and Deliver-In: give one of them, once")
	case len(in) > 0:
		seconds, ok := parseSeconds(in[0])
		if !ok {
			return t, refuse(http.StatusBadRequest, "Deliver-In: %q: write seconds, such as 90 or 0.5", limited(in[0]))
		}
		t = time.Now().Add(time.Duration(min(seconds, 2*contract.MaxDelay.Seconds()) * float64(time.Second)))
	default:
		var err error
		if t, err = parseTime(at[0]); err != nil {
			return t, refuse(http.StatusBadRequest, "Deliver-At: %q: write a time such as 2030-01-31T09:00:00Z", limited(at[0]))
		}
	}
	if time.Until(t) > contract.MaxDelay {
		return t, refuse(http.StatusBadRequest, "an event can be published at most %d days ahead", int(contract.MaxDelay.Hours()/24))
	}
	return t, nil
}

// eventTime is the time at which an event happened; the broker fills in now
// for none.
func eventTime(text string) (time.Time, bool) {
	if text == "" {
		return time.Time{}, true
	}
	t, err := parseTime(text)
	return t, err == nil && jsonTime(t)
}

// parseTime reads a time as in RFC 3339, whose letters may be small.
func parseTime(text string) (time.Time, error) {
	return time.Parse(time.RFC3339Nano, strings.ToUpper(text))
}
