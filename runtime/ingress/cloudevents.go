package ingress

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

const (
	cloudEventType      = "application/cloudevents+json"
	cloudEventBatchType = "application/cloudevents-batch+json"
	maxBatch            = 1000 // CloudEvents in one request
)

// published is the fate of one event of a batch.
type published struct {
	ID     string `json:"id"`
	Status int    `json:"status"` // as if it had come alone: 202, 404, 503, 504
	Detail string `json:"detail,omitempty"`
}

// publishCloudEvents serves POST /events: CloudEvents 1.0 in any of the three
// content modes of its HTTP binding. The routing key is the event's type, or
// its extension routingkey. The attributes travel as cloudEvents_* headers.
func (x *exchange) publishCloudEvents(*routes) {
	events, batch, p := x.cloudEvents()
	if p != nil {
		x.fail(p)
		return
	}
	if !batch {
		e := events[0]
		if p := x.send(func(ctx context.Context) *problem { return x.hand(ctx, e) }); p != nil {
			x.fail(p)
			return
		}
		x.accept(http.StatusAccepted, accepted{e.ID})
		return
	}
	status, report := http.StatusAccepted, make([]published, 0, len(events))
	p = x.send(func(ctx context.Context) *problem {
		for _, e := range events { // in turn: whoever sends a list may mean its order
			fate := published{ID: e.ID, Status: http.StatusAccepted}
			if p := x.hand(ctx, e); p != nil {
				status = http.StatusMultiStatus
				fate.Status, fate.Detail = p.Status, p.Detail
			}
			report = append(report, fate)
		}
		return nil
	})
	if p != nil {
		x.fail(p)
		return
	}
	x.accept(status, report)
}

// cloudEvents reads the events of the request. Either all are well formed or
// none is returned.
func (x *exchange) cloudEvents() (events []contract.Event, batch bool, p *problem) {
	r := x.request
	if p := plainEncoding(r); p != nil {
		return nil, false, p
	}
	contentType := r.Header.Get("Content-Type")
	mode, _, err := mime.ParseMediaType(contentType)
	if err != nil && contentType != "" {
		return nil, false, refuse(http.StatusUnsupportedMediaType, "Content-Type: %q: %v", limited(contentType), err)
	}
	binary := r.Header.Get("Ce-Specversion") != ""
	switch {
	case mode == cloudEventType || mode == cloudEventBatchType:
	case strings.HasPrefix(mode, "application/cloudevents"):
		return nil, false, refuse(http.StatusUnsupportedMediaType, "of CloudEvents formats only JSON is understood: %s or %s", cloudEventType, cloudEventBatchType)
	case !binary:
		return nil, false, refuse(http.StatusUnsupportedMediaType,
			"this takes CloudEvents: ce-* header fields, %s or %s; plain JSON goes to POST /events/{routing key}", cloudEventType, cloudEventBatchType)
	}
	notBefore, p := deliverAt(r.Header)
	if p != nil {
		return nil, false, p
	}
	body, p := x.read()
	if p != nil {
		return nil, false, p
	}
	var found []cloudEvent
	var mistakes []contract.FieldError
	switch mode {
	case cloudEventType:
		found, mistakes = structuredEvents([]json.RawMessage{body}, "")
	case cloudEventBatchType:
		var list []json.RawMessage
		if err := json.Unmarshal(body, &list); err != nil || list == nil {
			return nil, false, badEvent(contract.FieldError{Detail: "want an array of CloudEvents"})
		}
		if len(list) > maxBatch {
			return nil, false, refuse(http.StatusRequestEntityTooLarge, "a batch has at most %d events", maxBatch)
		}
		batch = true
		found, mistakes = structuredEvents(list, "/")
	default:
		e, wrong := binaryEvent(r.Header, contentType, body)
		found, mistakes = []cloudEvent{e}, wrong
	}
	if len(mistakes) > 0 {
		return nil, batch, badEvent(mistakes...)
	}
	trace := traceOf(r.Header)
	for n := range found {
		e := found[n].event(trace)
		e.Correlation, e.NotBefore = x.correlation(), notBefore
		events = append(events, e)
	}
	return events, batch, nil
}

func badEvent(mistakes ...contract.FieldError) *problem {
	p := refuse(http.StatusBadRequest, "that is no CloudEvent; nothing was published")
	p.Type, p.Errors = typeOf(contract.CodeMalformed), mistakes
	return p
}

// cloudEvent is a CloudEvent 1.0.
type cloudEvent struct {
	attributes map[string]string // by name, but for datacontenttype
	dataType   string            // datacontenttype
	data       []byte
}

// binaryEvent reads an event in binary mode: its attributes are header fields.
func binaryEvent(h http.Header, contentType string, body []byte) (cloudEvent, []contract.FieldError) {
	e := cloudEvent{attributes: map[string]string{}, dataType: contentType, data: body}
	var mistakes []contract.FieldError
	for field, values := range h {
		name, found := strings.CutPrefix(strings.ToLower(field), "ce-")
		if !found {
			continue
		}
		// Some quote the value, and characters outside of printable ASCII
		// travel percent-encoded (HTTP binding, section 3.1.3.2).
		value, err := url.PathUnescape(unquoted(values[0]))
		if err != nil || len(values) > 1 {
			mistakes = append(mistakes, contract.FieldError{Pointer: pointer(name), Detail: "want one value, percent-encoded where needed"})
			continue
		}
		e.attributes[name] = value
	}
	return e, e.mistakes("", mistakes)
}

// structuredEvents reads events in JSON format. at is where the first one's
// index belongs in a pointer: "" without an index.
func structuredEvents(list []json.RawMessage, at string) (events []cloudEvent, mistakes []contract.FieldError) {
	for n, raw := range list {
		where := at
		if at != "" {
			where = fmt.Sprintf("/%d", n)
		}
		e, wrong := structuredEvent(raw, where)
		mistakes = append(mistakes, wrong...)
		events = append(events, e)
	}
	return events, mistakes
}

func structuredEvent(raw json.RawMessage, at string) (cloudEvent, []contract.FieldError) {
	var object map[string]json.RawMessage
	if err := json.Unmarshal(raw, &object); err != nil || object == nil {
		return cloudEvent{}, []contract.FieldError{{Pointer: at, Detail: "want an object"}}
	}
	e := cloudEvent{attributes: make(map[string]string, len(object)), dataType: "application/json"}
	var mistakes []contract.FieldError
	wrong := func(name, detail string) {
		mistakes = append(mistakes, contract.FieldError{Pointer: at + pointer(name), Detail: detail})
	}
	for name, value := range object {
		switch text := string(value); {
		case name == "data" || name == "data_base64" || text == "null":
		case value[0] == '"':
			e.attributes[name] = unquote(value)
		case isText(name):
			wrong(name, "it is a string")
		case text == "true" || text == "false" || isInt32(text):
			e.attributes[name] = text
		default:
			wrong(name, "an attribute is a string, an integer of 32 bits, true or false")
		}
	}
	if t, ok := e.attributes["datacontenttype"]; ok {
		e.dataType = t
		delete(e.attributes, "datacontenttype")
	}
	data, plain := object["data"]
	encoded, base := object["data_base64"]
	switch {
	case plain && base:
		wrong("data_base64", "give either data or data_base64")
	case base:
		var text string
		err := json.Unmarshal(encoded, &text)
		if err == nil {
			e.data, err = base64.StdEncoding.DecodeString(text)
		}
		if err != nil {
			wrong("data_base64", "it is not base64")
		}
	case plain && !isJSON(e.dataType) && data[0] == '"':
		e.data = []byte(unquote(data))
	default:
		e.data = data
	}
	return e, e.mistakes(at, mistakes)
}

// isText reports whether an attribute is a string by the specification; an
// extension may be something else.
func isText(attribute string) bool {
	switch attribute {
	case "specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema":
		return true
	}
	return false
}

func isInt32(text string) bool {
	_, err := strconv.ParseInt(text, 10, 32)
	return err == nil
}

// mistakes adds what CloudEvents 1.0 does not allow.
func (e *cloudEvent) mistakes(at string, found []contract.FieldError) []contract.FieldError {
	wrong := func(name, detail string) {
		found = append(found, contract.FieldError{Pointer: at + pointer(name), Detail: detail})
	}
	for _, name := range [...]string{"specversion", "id", "source", "type"} {
		if e.attributes[name] == "" {
			wrong(name, "it is required")
		}
	}
	if v := e.attributes["specversion"]; v != "" && v != "1.0" {
		wrong("specversion", "only 1.0 is understood")
	}
	for name, value := range e.attributes {
		if detail := attributeMistake(name, value); detail != "" {
			wrong(name, detail)
		}
	}
	if _, _, err := mime.ParseMediaType(e.dataType); err != nil && e.dataType != "" || len(e.dataType) > maxShort {
		wrong("datacontenttype", "want a media type of at most 255 bytes")
	} else if (e.dataType == "" || isJSON(e.dataType)) && len(e.data) > 0 && malformed(e.data) != nil {
		wrong("data", "it is not JSON in UTF-8, which its content type says")
	}
	if p := checkKey(e.key()); e.attributes["type"] != "" && p != nil {
		wrong("type", p.Detail)
	}
	return found
}

// attributeMistake says what is wrong with one attribute, "" if nothing is.
func attributeMistake(name, value string) string {
	for n := range len(name) {
		if c := name[n]; c < '0' || c > '9' && c < 'a' || c > 'z' {
			return "an attribute's name has lower-case letters and digits only"
		}
	}
	if strings.ContainsFunc(value, func(c rune) bool { return c < ' ' || c == 0x7f || c == 0xfffd }) {
		return "it contains a control character, or is not UTF-8"
	}
	if len(name) > 64 || len(value) > 4096 {
		return "it is too long"
	}
	switch name {
	case "id", "type":
		if len(value) > maxShort {
			return "it is longer than 255 bytes"
		}
	case "source":
		if _, err := url.Parse(value); err != nil {
			return "want a URI reference"
		}
	case "dataschema":
		if u, err := url.Parse(value); err != nil || !u.IsAbs() {
			return "want a URI"
		}
	case "subject":
		if value == "" {
			return "leave it out if it is empty"
		}
	case "time":
		if _, ok := eventTime(value); !ok || value == "" {
			return "want a time as in RFC 3339"
		}
	case "data":
		return "no attribute may be called data"
	}
	return ""
}

func (e *cloudEvent) key() string {
	if key := e.attributes["routingkey"]; key != "" {
		return key
	}
	return e.attributes["type"]
}

// event is the CloudEvent as a message. Its own trace context, which stays with
// it when it is passed on, counts if the request has none.
func (e *cloudEvent) event(trace contract.Trace) contract.Event {
	headers := make(map[string]any, len(e.attributes))
	for name, value := range e.attributes {
		headers["cloudEvents_"+name] = value
	}
	if parent := e.attributes["traceparent"]; trace.Parent == "" && wellFormedParent(parent) {
		trace.Parent, trace.State = parent, printable([]string{e.attributes["tracestate"]}, 512)
	}
	at, _ := eventTime(e.attributes["time"]) // checked before
	body := e.data
	if len(body) == 0 && (e.dataType == "" || isJSON(e.dataType)) {
		body = []byte("{}")
	}
	return contract.Event{
		Key: e.key(), ID: e.attributes["id"], Type: e.attributes["type"], ContentType: e.dataType,
		Time: at, Headers: headers, Body: body, Trace: trace,
	}
}
