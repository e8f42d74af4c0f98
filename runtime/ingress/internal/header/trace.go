package header

import (
	"net/http"
	"strings"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// Trace returns the W3C trace context, as far as it is well formed. What is not
// is dropped, as the recommendation requires.
func Trace(h http.Header) (t contract.Trace) {
	if v := h["Traceparent"]; len(v) == 1 && IsTraceParent(v[0]) {
		t.Parent = v[0]
		t.State = Printable(h["Tracestate"], 512)
	}
	t.Baggage = Printable(h["Baggage"], 8192)
	return t
}

// IsTraceParent reports whether s is "version-trace-parent-flags" in lower-case
// hex. Versions after 00 may go on after the flags.
func IsTraceParent(s string) bool {
	if len(s) < 55 || len(s) > 255 || s[:2] == "ff" || s[:2] == "00" && len(s) != 55 || len(s) > 55 && s[55] != '-' {
		return false
	}
	trace, parent := false, false // whether they have a digit that is not 0
	for n := range 55 {
		c := s[n]
		switch {
		case n == 2 || n == 35 || n == 52:
			if c != '-' {
				return false
			}
			continue
		case ('0' > c || c > '9') && ('a' > c || c > 'f'):
			return false
		}
		trace = trace || n < 35 && n > 2 && c != '0'
		parent = parent || n < 52 && n > 35 && c != '0'
	}
	return trace && parent && Printable([]string{s}, 255) != ""
}

// Printable joins the values of a field; "" if they are longer than limit bytes
// or contain anything but printable ASCII.
func Printable(values []string, limit int) string {
	if len(values) == 0 {
		return ""
	}
	s := values[0]
	if len(values) > 1 {
		s = strings.Join(values, ",")
	}
	if len(s) > limit {
		return ""
	}
	for n := range len(s) {
		if s[n] < ' ' || s[n] > '~' {
			return ""
		}
	}
	return s
}
