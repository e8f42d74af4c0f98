// Package event checks what any event published over HTTP must have: a routing
// key that AMQP can carry, and times that JSON can express.
package event

import (
	"net/http"
	"strings"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/access"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/header"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/problem"
)

// MaxShortString is the length in bytes of a short string of AMQP 0-9-1: a routing
// key, a message id, a content type, a type.
const MaxShortString = 255

// CheckKey refuses what is no routing key.
func CheckKey(key string) *problem.Problem {
	if key == "" || len(key) > MaxShortString {
		return problem.New(http.StatusBadRequest, "the routing key has %d bytes: AMQP allows 1 to %d", len(key), MaxShortString)
	}
	if strings.ContainsAny(key, "*#") {
		return problem.New(http.StatusBadRequest, "the routing key %q contains * or #, which only a pattern may", access.Clip(key))
	}
	return nil
}

// CheckPattern refuses what is no pattern of routing keys.
func CheckPattern(pattern string) *problem.Problem {
	if len(pattern) > MaxShortString {
		return CheckKey(pattern)
	}
	if strings.ContainsFunc(pattern, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		return problem.New(http.StatusBadRequest, "the key contains a control character")
	}
	return nil
}

// NotBefore returns the time before which an event must not be delivered: the
// one in Deliver-At (RFC 3339), or now plus the seconds in Deliver-In; zero
// without both. It is at most contract.MaxDelay from now.
func NotBefore(h http.Header) (time.Time, *problem.Problem) {
	at, in := h["Deliver-At"], h["Deliver-In"]
	var t time.Time
	switch {
	case len(at)+len(in) == 0:
		return t, nil
	case len(at)+len(in) > 1:
		return t, problem.New(http.StatusBadRequest, "Deliver-At and Deliver-In: give one of them, once")
	case len(in) > 0:
		seconds, ok := header.Seconds(in[0])
		if !ok {
			return t, problem.New(http.StatusBadRequest, "Deliver-In: %q: write seconds, such as 90 or 0.5", access.Clip(in[0]))
		}
		t = time.Now().Add(time.Duration(min(seconds, 2*contract.MaxDelay.Seconds()) * float64(time.Second)))
	default:
		var err error
		if t, err = parseTime(at[0]); err != nil {
			return t, problem.New(http.StatusBadRequest, "Deliver-At: %q: write a time such as 2030-01-31T09:00:00Z", access.Clip(at[0]))
		}
	}
	if time.Until(t) > contract.MaxDelay {
		return t, problem.New(http.StatusBadRequest, "an event can be published at most %d days ahead", int(contract.MaxDelay.Hours()/24))
	}
	return t, nil
}

// ParseTime reads the time at which an event happened (RFC 3339). ok is false if
// it is malformed or JSON cannot express it.
func ParseTime(text string) (t time.Time, ok bool) {
	t, err := parseTime(text)
	return t, err == nil && IsJSONTime(t)
}

// IsJSONTime reports whether JSON can express t (RFC 3339 has years of four
// digits). What arrives over AMQP may be of any year.
func IsJSONTime(t time.Time) bool {
	year := t.UTC().Year()
	return 0 <= year && year <= 9999
}

// parseTime reads a time as in RFC 3339, whose letters may be in lower case.
func parseTime(text string) (time.Time, error) {
	return time.Parse(time.RFC3339Nano, strings.ToUpper(text))
}
