// Package cloudevents reads CloudEvents 1.0 from HTTP requests, in any of the
// three content modes of the HTTP binding: binary, structured and batch. The
// routing key of an event is its type, or its extension routingkey; its
// attributes travel as cloudEvents_* headers.
package cloudevents

import (
	"encoding/json"
	"mime"
	"net/http"
	"strings"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/access"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/header"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/problem"
)

// Content types of the structured and the batch mode.
const (
	Type      = "application/cloudevents+json"
	BatchType = "application/cloudevents-batch+json"
)

const maxBatch = 1000 // events in one request

// Mode is the content mode of a request.
type Mode byte

// The modes of the HTTP binding, section 3.
const (
	Binary Mode = iota
	Structured
	Batch
)

// ModeOf returns the content mode of a request; a 415 if it has no CloudEvents.
func ModeOf(h http.Header) (Mode, *problem.Problem) {
	contentType := h.Get("Content-Type")
	mediaType, _, err := mime.ParseMediaType(contentType)
	switch {
	case err != nil && contentType != "":
		return 0, problem.New(http.StatusUnsupportedMediaType, "Content-Type: %q: %v", access.Clip(contentType), err)
	case mediaType == Type:
		return Structured, nil
	case mediaType == BatchType:
		return Batch, nil
	case strings.HasPrefix(mediaType, "application/cloudevents"):
		return 0, problem.New(http.StatusUnsupportedMediaType, "of the CloudEvents formats only JSON is supported: %s or %s", Type, BatchType)
	case h.Get("Ce-Specversion") == "":
		return 0, problem.New(http.StatusUnsupportedMediaType,
			"this takes CloudEvents: ce-* header fields, %s or %s; plain JSON goes to POST /events/{routing key}", Type, BatchType)
	}
	return Binary, nil
}

// Parse reads the events of a request with that mode and body. It returns all of
// them, or the problem of the first malformed ones. The trace context of the
// request precedes that of an event.
func Parse(mode Mode, h http.Header, body []byte) ([]contract.Event, *problem.Problem) {
	var parsed []cloudEvent
	var mistakes []contract.FieldError
	switch mode {
	case Binary:
		e, wrong := parseBinary(h, body)
		parsed, mistakes = []cloudEvent{e}, wrong
	case Structured:
		parsed, mistakes = parseStructured([]json.RawMessage{body}, "")
	case Batch:
		var list []json.RawMessage
		if err := json.Unmarshal(body, &list); err != nil || list == nil {
			return nil, malformed(contract.FieldError{Detail: "want an array of CloudEvents"})
		}
		if len(list) > maxBatch {
			return nil, problem.New(http.StatusRequestEntityTooLarge, "a batch has at most %d events", maxBatch)
		}
		parsed, mistakes = parseStructured(list, "/")
	}
	if len(mistakes) > 0 {
		return nil, malformed(mistakes...)
	}
	trace := header.Trace(h)
	events := make([]contract.Event, len(parsed))
	for n := range parsed {
		events[n] = parsed[n].event(trace)
	}
	return events, nil
}

func malformed(mistakes ...contract.FieldError) *problem.Problem {
	return problem.Malformed(mistakes, "this is no CloudEvent; nothing was published")
}
