// Package header reads the header fields of requests that are not about caching:
// ids, trace context, time limits, lists and content negotiation. It knows
// nothing of responses.
package header

import (
	"net/http"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// CallID returns the id that the client gave the call in X-Call-Id or
// X-Request-Id, if it is well formed, else a new one.
func CallID(h http.Header) string {
	if id := idIn(h, "X-Call-Id"); id != "" {
		return id
	}
	return Correlation(h, "")
}

// EventID returns the X-Call-Id that the client gave the publish, if it is well
// formed, else a new one. X-Request-Id does not count: functions that run once
// per event compare these ids, and one request may publish many events.
func EventID(h http.Header) string {
	if id := idIn(h, "X-Call-Id"); id != "" {
		return id
	}
	return contract.NewID()
}

// Correlation returns the id that a chain of calls and events began with: the
// client's X-Request-Id, if it is well formed, else id, or a new one if id is
// empty.
func Correlation(h http.Header, id string) string {
	if given := idIn(h, "X-Request-Id"); given != "" {
		return given
	}
	if id == "" {
		return contract.NewID()
	}
	return id
}

// idIn returns the id in the field of that canonical name; "" if there is none,
// or more than one, or it is not well formed.
func idIn(h http.Header, name string) string {
	if v := h[name]; len(v) == 1 && isID(v[0]) {
		return v[0]
	}
	return ""
}

// isID accepts 1 to 128 characters that need no quoting anywhere.
func isID(id string) bool {
	if id == "" || len(id) > 128 {
		return false
	}
	for n := range len(id) {
		c := id[n]
		if !isAlphanumeric(c) && c != '-' && c != '_' && c != '.' && c != ':' {
			return false
		}
	}
	return true
}

func isAlphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}
