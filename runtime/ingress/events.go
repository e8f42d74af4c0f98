package ingress

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/access"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/body"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/cloudevents"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/event"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/header"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/problem"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/routing"
)

// servePublish serves POST /events/{key}. The body is the event, byte by byte.
func (i *Ingress) servePublish(w http.ResponseWriter, r *http.Request, _ *routing.Table) {
	e, p := i.parseEvent(w, r)
	if p != nil {
		problem.Write(w, r, p)
		return
	}
	i.publishOne(w, r, e)
}

// serveCloudEvents serves POST /events: CloudEvents 1.0 in any of the three
// content modes of its HTTP binding.
func (i *Ingress) serveCloudEvents(w http.ResponseWriter, r *http.Request, _ *routing.Table) {
	mode, events, p := i.parseCloudEvents(w, r)
	switch {
	case p != nil:
		problem.Write(w, r, p)
	case mode == cloudevents.Batch:
		i.publishBatch(w, r, events)
	default:
		i.publishOne(w, r, events[0])
	}
}

// parseEvent makes an event of r. The body must be JSON if its content type says
// so, or if it has none.
func (i *Ingress) parseEvent(w http.ResponseWriter, r *http.Request) (contract.Event, *problem.Problem) {
	key := r.PathValue("key")
	if p := event.CheckKey(key); p != nil {
		return contract.Event{}, p
	}
	if r.URL.RawQuery != "" {
		return contract.Event{}, problem.New(http.StatusUnprocessableEntity, "an event takes no query parameters: put them into the body")
	}
	notBefore, p := event.NotBefore(r.Header)
	if p != nil {
		return contract.Event{}, p
	}
	contentType, p := eventType(r.Header)
	if p != nil {
		return contract.Event{}, p
	}
	data, p := body.Read(w, r, i.cfg.MaxBody)
	if p != nil {
		return contract.Event{}, p
	}
	if header.IsJSON(contentType) {
		if len(data) == 0 {
			data = []byte("{}")
		}
		if p := body.CheckJSON(data); p != nil {
			return contract.Event{}, p
		}
	}
	return contract.Event{
		Key: key, ID: header.EventID(r.Header), ContentType: contentType, Body: data, NotBefore: notBefore,
		Correlation: correlationOf(r), Trace: header.Trace(r.Header),
	}, nil
}

// eventType returns the content type of an event.
func eventType(h http.Header) (string, *problem.Problem) {
	if p := body.CheckEncoding(h); p != nil {
		return "", p
	}
	contentType := h.Get("Content-Type")
	switch {
	case header.IsUnlabelled(h):
		return "application/json", nil
	case contentType == "" || contentType == "application/x-www-form-urlencoded":
		return "", problem.New(http.StatusUnsupportedMediaType, "say what the event is with Content-Type: application/json")
	case len(contentType) > event.MaxShortString:
		return "", problem.New(http.StatusUnsupportedMediaType, "the content type is longer than %d bytes", event.MaxShortString)
	}
	return contentType, nil
}

// parseCloudEvents makes the events of r; all of them, or none if one is
// malformed.
func (i *Ingress) parseCloudEvents(w http.ResponseWriter, r *http.Request) (cloudevents.Mode, []contract.Event, *problem.Problem) {
	if p := body.CheckEncoding(r.Header); p != nil {
		return 0, nil, p
	}
	mode, p := cloudevents.ModeOf(r.Header)
	if p != nil {
		return 0, nil, p
	}
	notBefore, p := event.NotBefore(r.Header)
	if p != nil {
		return 0, nil, p
	}
	data, p := body.Read(w, r, i.cfg.MaxBody)
	if p != nil {
		return 0, nil, p
	}
	events, p := cloudevents.Parse(mode, r.Header, data)
	for n := range events {
		events[n].Correlation, events[n].NotBefore = correlationOf(r), notBefore
	}
	return mode, events, p
}

// correlationOf returns the correlation id of r, by default the id of the call.
func correlationOf(r *http.Request) string {
	return header.Correlation(r.Header, access.RecordOf(r.Context()).ID)
}

// publishOne publishes e and answers with its id once it is confirmed.
func (i *Ingress) publishOne(w http.ResponseWriter, r *http.Request, e contract.Event) {
	p := i.limited(r, func(ctx context.Context) *problem.Problem { return i.publish(ctx, e) })
	if p != nil {
		problem.Write(w, r, p)
		return
	}
	writeAccepted(w, r, http.StatusAccepted, accepted{e.ID})
}

// publishBatch publishes events one after another, because their order may matter,
// and answers with the status of each: 202 if all are confirmed, else 207.
func (i *Ingress) publishBatch(w http.ResponseWriter, r *http.Request, events []contract.Event) {
	status, statuses := http.StatusAccepted, make([]eventStatus, 0, len(events))
	p := i.limited(r, func(ctx context.Context) *problem.Problem {
		for _, e := range events {
			s := eventStatus{ID: e.ID, Status: http.StatusAccepted}
			if p := i.publish(ctx, e); p != nil {
				status = http.StatusMultiStatus
				s.Status, s.Detail = p.Status, p.Detail
			}
			statuses = append(statuses, s)
		}
		return nil
	})
	if p != nil {
		problem.Write(w, r, p)
		return
	}
	writeAccepted(w, r, status, statuses)
}

// limited runs publish within the limits that a call has: the number of requests in
// flight, and the client's timeout.
func (i *Ingress) limited(r *http.Request, publish func(context.Context) *problem.Problem) *problem.Problem {
	timeout, p := parseTimeout(r.Header, contract.DefaultTimeout)
	if p != nil {
		return p
	}
	if !i.inFlight.acquire() {
		return i.inFlight.full(time.Second)
	}
	defer i.inFlight.release()
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	return publish(ctx)
}

// publish passes e to the broker and returns once it is confirmed.
func (i *Ingress) publish(ctx context.Context, e contract.Event) *problem.Problem {
	err := i.cfg.Broker.Publish(ctx, e)
	if err == nil {
		return nil
	}
	p := publishProblem(err, e.Key)
	p.Attempt = 1
	return p
}

// publishProblem returns the problem of an event that is not confirmed.
func publishProblem(err error, key string) *problem.Problem {
	failure := contract.AsError(err)
	p := problem.FromError(failure, false)
	switch failure.Code {
	case contract.CodeUnroutable:
		return problem.Unbound(key, err)
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

// accepted is the body of a 202.
type accepted struct {
	ID string `json:"id"`
}

// eventStatus is the outcome of one event of a batch.
type eventStatus struct {
	ID     string `json:"id"`
	Status int    `json:"status"` // as if it had come alone: 202, 404, 503, 504
	Detail string `json:"detail,omitempty"`
}

func writeAccepted(w http.ResponseWriter, r *http.Request, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil { // cannot happen: it consists of strings and numbers
		panic(err)
	}
	writeJSON(w, r, status, append(b, '\n'))
}
