package dead

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// A record is a dead letter as JSON: a line of an export.
type record struct {
	ID          string         `json:"id"`
	Function    string         `json:"function"`
	Key         string         `json:"key"`
	Exchange    string         `json:"exchange,omitempty"`
	ContentType string         `json:"content_type,omitempty"`
	Type        string         `json:"type,omitempty"`
	Time        time.Time      `json:"time,omitzero"`
	Headers     map[string]any `json:"headers,omitempty"`
	Correlation string         `json:"correlation,omitempty"`
	Causation   string         `json:"causation,omitempty"`
	Traceparent string         `json:"traceparent,omitempty"`
	Tracestate  string         `json:"tracestate,omitempty"`
	Baggage     string         `json:"baggage,omitempty"`

	Code     contract.Code `json:"code"`
	Error    string        `json:"error"`
	Attempts int           `json:"attempts,omitempty"` // missing if unknown
	First    time.Time     `json:"first,omitzero"`
	Last     time.Time     `json:"last,omitzero"`
	Worker   string        `json:"worker,omitempty"`
	Stack    string        `json:"stack,omitempty"`

	Body       json.RawMessage `json:"body,omitempty"`        // if it is JSON
	BodyBase64 []byte          `json:"body_base64,omitempty"` // if it is not
}

// recordOf returns the record of l, with body in place of its own.
func recordOf(l *contract.DeadLetter, body []byte) record {
	e := &l.Event
	r := record{
		ID: e.ID, Function: l.Function, Key: e.Key, Exchange: e.Exchange, ContentType: e.ContentType, Type: e.Type, Time: e.Time,
		Headers: e.Headers, Correlation: e.Correlation, Causation: e.Causation,
		Traceparent: e.Trace.Parent, Tracestate: e.Trace.State, Baggage: e.Trace.Baggage,
		Code: l.Code, Error: l.Error, Attempts: e.Attempt, First: l.First, Last: l.Last, Worker: l.Worker, Stack: l.Stack,
	}
	if json.Valid(body) {
		r.Body = body
	} else {
		r.BodyBase64 = body
	}
	if _, err := json.Marshal(r.Headers); err != nil { // a NaN, or a time out of bounds
		r.Headers = map[string]any{}
		for name, v := range e.Headers {
			r.Headers[name] = fmt.Sprint(v)
		}
	}
	for _, t := range []*time.Time{&r.Time, &r.First, &r.Last} {
		if _, err := t.MarshalJSON(); err != nil {
			*t = time.Time{}
		}
	}
	return r
}

// recordsOf returns records without bodies.
func recordsOf(list []contract.DeadLetter) []record {
	records := make([]record, len(list))
	for i := range list {
		records[i] = recordOf(&list[i], nil)
	}
	return records
}
