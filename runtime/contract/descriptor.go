package contract

import (
	"encoding/json"
	"time"
)

// Kind tells the two sorts of function apart.
type Kind string

// The kinds.
const (
	KindRequest Kind = "request" // answers one routing key with a reply
	KindEvent   Kind = "event"   // reacts to events on one or more keys or patterns
)

// Descriptor is what a worker announces about a function: all that an ingress
// or a command line needs to know to reach it. It travels as JSON; durations
// are nanoseconds there.
type Descriptor struct {
	Name     string   `json:"name"`
	Kind     Kind     `json:"kind"`
	Keys     []string `json:"keys"`               // one for a request; patterns for an event
	Exchange string   `json:"exchange,omitempty"` // of an event function; "" is the namespace's own
	Route    *Route   `json:"route,omitempty"`

	Input     json.RawMessage `json:"input,omitempty"`     // JSON Schema 2020-12 of a request function's message
	Output    json.RawMessage `json:"output,omitempty"`    // JSON Schema 2020-12 of the reply
	Reactions []Reaction      `json:"reactions,omitempty"` // of an event function, in the order in which they are tried
	Sensitive bool            `json:"sensitive,omitempty"` // a message or the reply has sensitive fields, see Redact

	Cache       *CachePolicy  `json:"cache,omitempty"`
	Retry       Retry         `json:"retry,omitzero"` // of an event function
	Once        *OncePolicy   `json:"once,omitempty"` // of an event function
	Timeout     time.Duration `json:"timeout"`
	Concurrency int           `json:"concurrency"` // runs at once, per worker
	Ordered     bool          `json:"ordered,omitempty"`
	ReadOnly    bool          `json:"readOnly,omitempty"`   // a request function that changes nothing
	Redeliver   bool          `json:"redeliver,omitempty"`  // a call that its worker has not answered may run on another one
	Idempotent  bool          `json:"repeatable,omitempty"` // the client may repeat a call (RFC 9110, section 9.2.2)
	Session     bool          `json:"session,omitempty"`    // it reads and changes its client's session
	Version     string        `json:"version"`              // changes when a cached result of before no longer fits
}

// Reaction is what an event function makes of events with one of its keys.
type Reaction struct {
	Keys  []string        `json:"keys"`            // or patterns
	Input json.RawMessage `json:"input,omitempty"` // JSON Schema 2020-12 of the message; none when it is taken undecoded
}

// Route is how a request function is reached over HTTP.
type Route struct {
	Method string `json:"method"`
	Path   string `json:"path"`   // as in net/http.ServeMux, "/profiles/{id}"
	Status int    `json:"status"` // on success
}

// Has reports whether key is one of d's keys, or fits one of its patterns.
func (d *Descriptor) Has(key string) bool {
	for _, k := range d.Keys {
		if k == key || d.Kind == KindEvent && Match(k, key) {
			return true
		}
	}
	return false
}

// InputOf returns the schema of messages with that routing key; nil if the
// function takes them undecoded, or not at all.
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
