package ingress

import (
	"cmp"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// callID is the id that the client gave the call, if it is well formed, else a
// fresh one.
func callID(h http.Header) string { return givenID(h, "X-Call-Id", "X-Request-Id") }

// eventID is the X-Call-Id that the client gave the publish, else a fresh one: a
// function that runs once for an event goes by it, and many publishes may share
// the X-Request-Id of the request that they serve.
func eventID(h http.Header) string { return givenID(h, "X-Call-Id") }

// correlation is what the chain of calls and events began with: the client's
// X-Request-Id, if it is well formed, else the id of this call.
func (x *exchange) correlation() string { return cmp.Or(idIn(x.request.Header, "X-Request-Id"), x.id) }

// givenID is the first well-formed id in the header fields of these canonical
// names, else a fresh one.
func givenID(h http.Header, names ...string) string {
	for _, name := range names {
		if id := idIn(h, name); id != "" {
			return id
		}
	}
	return contract.NewID()
}

// idIn is the id in that header field; "" without one, or if it is not well formed.
func idIn(h http.Header, name string) string {
	if v := h[name]; len(v) == 1 && wellFormedID(v[0]) {
		return v[0]
	}
	return ""
}

// wellFormedID accepts 1 to 128 characters that need no quoting anywhere.
func wellFormedID(id string) bool {
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

// traceOf takes over the W3C trace context, as far as it is well formed: what
// is not is dropped, as the recommendation asks for.
func traceOf(h http.Header) (t contract.Trace) {
	if v := h["Traceparent"]; len(v) == 1 && wellFormedParent(v[0]) {
		t.Parent = v[0]
		t.State = printable(h["Tracestate"], 512)
	}
	t.Baggage = printable(h["Baggage"], 8192)
	return t
}

// wellFormedParent checks "version-trace-parent-flags" in lower-case hex.
// Later versions may go on after the flags.
func wellFormedParent(s string) bool {
	if len(s) < 55 || len(s) > 255 || s[:2] == "ff" || s[:2] == "00" && len(s) != 55 || len(s) > 55 && s[55] != '-' {
		return false
	}
	trace, parent := false, false // neither may be all zero
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
	return trace && parent && printable([]string{s}, 255) != ""
}

// printable joins the values of a field; "" if they are too long or contain
// anything but printable ASCII.
func printable(values []string, limit int) string {
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

// timeout is how long the client waits at the most: its Request-Timeout, in
// seconds, capped by limit.
func timeout(h http.Header, limit time.Duration) (time.Duration, *problem) {
	if limit <= 0 {
		limit = contract.DefaultTimeout
	}
	values := h["Request-Timeout"]
	if len(values) == 0 {
		return limit, nil
	}
	text := values[0]
	seconds, ok := parseSeconds(text)
	if !ok || len(values) > 1 || seconds <= 0 {
		return 0, refuse(http.StatusBadRequest, "Request-Timeout: %q: write seconds, more than none, such as 2 or 0.5", limited(text))
	}
	if seconds >= limit.Seconds() {
		return limit, nil
	}
	return max(time.Duration(seconds*float64(time.Second)), time.Millisecond), nil
}

// parseSeconds reads seconds, with a fraction or without.
func parseSeconds(text string) (float64, bool) {
	seconds, err := strconv.ParseFloat(text, 64)
	return seconds, err == nil && strings.Trim(text, "0123456789.") == ""
}

// cutItem cuts the first item off a list (RFC 9110, section 5.6.1). It may
// contain commas in quotes.
func cutItem(list string) (item, rest string) {
	end, quoted := 0, false
	for ; end < len(list) && (quoted || list[end] != ','); end++ {
		switch {
		case quoted && list[end] == '\\':
			end++
		case list[end] == '"':
			quoted = !quoted
		}
	}
	item = list[:min(end, len(list))]
	if end < len(list) {
		rest = list[end+1:]
	}
	return strings.Trim(item, " \t"), rest
}

// unquoted is what a quoted string stands for (RFC 9110, section 5.6.4), and
// anything else as it is.
func unquoted(s string) string {
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' {
		return s
	}
	var b strings.Builder
	for n := 1; n < len(s)-1; n++ {
		if s[n] == '\\' && n < len(s)-2 {
			n++
		}
		b.WriteByte(s[n])
	}
	return b.String()
}

// accepts reports whether the Accept header field allows what is written as
// major/minor (RFC 9110, section 12.5.1): the most specific range that fits
// decides.
func accepts(h http.Header, major, minor string) bool {
	values := h["Accept"]
	if len(values) == 0 || len(values) == 1 && (values[0] == "*/*" || values[0] == "") {
		return true
	}
	best, allowed := -1, false
	for _, value := range values {
		for value != "" {
			var item string
			item, value = cutItem(value)
			t, params, err := mime.ParseMediaType(item)
			if err != nil {
				continue
			}
			specific := -1
			switch t {
			case "*/*":
				specific = 0
			case major + "/*":
				specific = 1
			case major + "/" + minor:
				specific = 2
			}
			if specific > best {
				q, err := strconv.ParseFloat(params["q"], 64)
				best, allowed = specific, err != nil || q > 0
			}
		}
	}
	return allowed
}
