package header

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Timeout returns how long the client will wait: its Request-Timeout, in
// seconds with or without a fraction, but at most limit. It is limit without
// that field, and at least a millisecond. ok is false if the field is not a
// positive number or is given more than once.
func Timeout(h http.Header, limit time.Duration) (timeout time.Duration, ok bool) {
	values := h["Request-Timeout"]
	if len(values) == 0 {
		return limit, true
	}
	seconds, ok := Seconds(values[0])
	if !ok || len(values) > 1 || seconds <= 0 {
		return 0, false
	}
	if seconds >= limit.Seconds() {
		return limit, true
	}
	return max(time.Duration(seconds*float64(time.Second)), time.Millisecond), true
}

// Seconds reads a number of seconds, with or without a fraction.
func Seconds(text string) (seconds float64, ok bool) {
	seconds, err := strconv.ParseFloat(text, 64)
	return seconds, err == nil && strings.Trim(text, "0123456789.") == ""
}
