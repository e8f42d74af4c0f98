// Package sse writes events to a client as server-sent events. It does not know where
// they come from.
package sse

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/body"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/event"
)

// writeTimeout limits the time for one event to reach the client's socket.
const writeTimeout = 10 * time.Second

// Stream writes server-sent events, and flushes each one.
type Stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
	err     error
}

// SetHeader sets the header fields of a stream.
func SetHeader(h http.Header) {
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no") // tells NGINX not to collect the stream in a buffer
}

// Start writes the header fields and returns a Stream.
func Start(w http.ResponseWriter) *Stream {
	SetHeader(w.Header())
	w.WriteHeader(http.StatusOK)
	return &Stream{w: w, control: http.NewResponseController(w)}
}

// Err returns the first error of a write. Nothing is written after it.
func (s *Stream) Err() error { return s.err }

// Comment writes a comment, which clients ignore.
func (s *Stream) Comment(text string) { s.write(": %s\n\n", text) }

// Event writes an event.
func (s *Stream) Event(e *contract.Event) {
	data, err := json.Marshal(dataOf(e)) // Marshal writes a single line, whatever the body looks like
	if err != nil {
		s.err = err
		return
	}
	s.write("data: %s\n\n", data)
}

func (s *Stream) write(format string, a any) {
	if s.err != nil {
		return
	}
	// Not every ResponseWriter has deadlines; a connection has.
	_ = s.control.SetWriteDeadline(time.Now().Add(writeTimeout))
	if _, s.err = fmt.Fprintf(s.w, format, a); s.err == nil {
		s.err = s.control.Flush()
	}
}

// data is the JSON form of an event.
type data struct {
	Key         string          `json:"key"`
	ID          string          `json:"id"`
	Type        string          `json:"type,omitempty"`
	ContentType string          `json:"contentType,omitempty"`
	Time        time.Time       `json:"time,omitzero"`
	Data        json.RawMessage `json:"data,omitempty"`        // if it is JSON
	DataBase64  []byte          `json:"data_base64,omitempty"` // if it is not
}

func dataOf(e *contract.Event) data {
	d := data{Key: e.Key, ID: e.ID, Type: e.Type, ContentType: e.ContentType}
	if event.IsJSONTime(e.Time) {
		d.Time = e.Time
	}
	if body.IsJSON(e.Body) {
		d.Data = e.Body
	} else {
		d.DataBase64 = e.Body
	}
	return d
}
