package contract

import (
	"encoding/json"
	"time"
)

// Kind is the kind of a function.
type Kind string

// The kinds.
const (
	KindRequest Kind = "request" // answers one routing key with a reply
	KindEvent   Kind = "event"   // reacts to events on one or more keys or patterns
)

// Descriptor describes a function: everything that an ingress or a command line
// needs to call it. Workers announce it as JSON, with durations in nanoseconds.
type Descriptor struct {
	Name     string   `json:"name"`
	Kind     Kind     `json:"kind"`
	Keys     []string `json:"keys"`               // one routing key of a request function; keys and patterns of an event function
	Exchange string   `json:"exchange,omitempty"` // of an event function; "" is the events exchange of the namespace
	Route    *Route   `json:"route,omitempty"`

	Input     json.RawMessage `json:"input,omitempty"`     // JSON Schema 2020-12 of a request function's message
	Output    json.RawMessage `json:"output,omitempty"`    // JSON Schema 2020-12 of the reply
	Reactions []Reaction      `json:"reactions,omitempty"` // of an event function, in the order in which they are tried
	Sensitive bool            `json:"sensitive,omitempty"` // the message or the reply has sensitive fields, see Redact

	Cache       *CachePolicy  `json:"cache,omitempty"`
	Retry       Retry         `json:"retry,omitzero"` // of an event function
	Once        *OncePolicy   `json:"once,omitempty"` // of an event function
	Timeout     time.Duration `json:"timeout"`
	Concurrency int           `json:"concurrency"` // maximum of concurrent runs in one worker
	Ordered     bool          `json:"ordered,omitempty"`
	ReadOnly    bool          `json:"readOnly,omitempty"`   // a request function that changes nothing
	Redeliver   bool          `json:"redeliver,omitempty"`  // a call that its worker has not answered may run on another one
	Idempotent  bool          `json:"repeatable,omitempty"` // the client may repeat a call (RFC 9110, section 9.2.2)
	Session     bool          `json:"session,omitempty"`    // it uses the session of its client
	Version     string        `json:"version"`              // changes when older cached results no longer fit
}

// Reaction describes one message type that an event function accepts.
type Reaction struct {
	Keys  []string        `json:"keys"`            // routing keys and patterns
	Input json.RawMessage `json:"input,omitempty"` // JSON Schema 2020-12 of the message; empty if it is taken undecoded
}

// Route is the HTTP route of a request function.
type Route struct {
	Method string `json:"method"`
	Path   string `json:"path"`   // as in net/http.ServeMux, "/profiles/{id}"
	Status int    `json:"status"` // status of a success
}

// Has reports whether key is one of the keys of d or matches one of its patterns.
func (d *Descriptor) Has(key string) bool {
	for _, k := range d.Keys {
		if k == key || d.Kind == KindEvent && Match(k, key) {
			return true
		}
	}
	return false
}

// InputOf returns the JSON Schema of messages with this routing key; nil if the
// function takes them undecoded or not at all.
func (d *Descriptor) InputOf(key string) json.RawMessage {
	if d.Kind == KindRequest {
		return d.Input
	}
	for _, r := range d.Reactions {
		for _, k := range r.Keys {
			if Match(k, key) {
				return r.Input
			}
		}
	}
	return nil
}
