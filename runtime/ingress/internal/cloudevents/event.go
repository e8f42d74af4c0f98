package cloudevents

import (
	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/event"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/header"
)

// key returns the routing key.
func (e *cloudEvent) key() string {
	if key := e.attributes["routingkey"]; key != "" {
		return key
	}
	return e.attributes["type"]
}

// event returns the CloudEvent as a message. Its own trace context, which stays
// with it when it is forwarded, counts if the request has none.
func (e *cloudEvent) event(trace contract.Trace) contract.Event {
	headers := make(map[string]any, len(e.attributes))
	for name, value := range e.attributes {
		headers["cloudEvents_"+name] = value
	}
	if parent := e.attributes["traceparent"]; trace.Parent == "" && header.IsTraceParent(parent) {
		trace.Parent, trace.State = parent, header.Printable([]string{e.attributes["tracestate"]}, 512)
	}
	at, _ := event.ParseTime(e.attributes["time"]) // zero, which means now, without one
	data := e.data
	if len(data) == 0 && (e.dataType == "" || header.IsJSON(e.dataType)) {
		data = []byte("{}")
	}
	return contract.Event{
		Key: e.key(), ID: e.attributes["id"], Type: e.attributes["type"], ContentType: e.dataType,
		Time: at, Headers: headers, Body: data, Trace: trace,
	}
}
