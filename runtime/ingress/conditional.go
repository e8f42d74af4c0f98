package ingress

import (
	"net/http"
	"strings"
)

// precondition evaluates If-Match and If-None-Match (RFC 9110, section 13.2.2)
// and returns the name of the one that does not hold; "" if all is well. The
// conditions on dates do not apply: nothing here has a date of modification.
func precondition(h http.Header, etag string) string {
	if match := h["If-Match"]; len(match) > 0 && !matches(match, etag, true) {
		return "If-Match"
	}
	if match := h["If-None-Match"]; len(match) > 0 && matches(match, etag, false) {
		return "If-None-Match"
	}
	return ""
}

// unguarded refuses a condition on a change that nobody would check: the
// ingress does not know what the function is about to change, and a client that
// asks for protection from a lost update must not believe it has it (RFC 9110,
// sections 13.1.1 and 13.1.2). A function whose message has a field for the
// header field checks it itself.
func (f *function) unguarded(h http.Header) *problem {
	for _, name := range [...]string{"If-Match", "If-None-Match"} {
		if match := h[name]; len(match) > 0 && !f.takes(name) && (name == "If-Match" || matches(match, "", false)) {
			return refuse(http.StatusPreconditionFailed, "%s does not check %s: it changes things whatever their entity tag is", f.Name, name)
		}
	}
	return nil
}

// takes reports whether the message has a field for that header field.
func (f *function) takes(header string) bool {
	for _, name := range f.input.headers {
		if f.input.members[name].header == header {
			return true
		}
	}
	return false
}

// matches reports whether a list of entity tags contains etag. The strong
// comparison knows no weak tags; the weak one ignores the difference.
func matches(list []string, etag string, strong bool) bool {
	if strong && strings.HasPrefix(etag, "W/") {
		etag = ""
	}
	for _, value := range list {
		for value = strings.TrimLeft(value, " \t,"); value != ""; value = strings.TrimLeft(value, " \t,") {
			if value[0] == '*' {
				return true
			}
			weak := strings.HasPrefix(value, "W/")
			value = strings.TrimPrefix(value, "W/")
			if value == "" || value[0] != '"' {
				break // malformed: nothing after it can be trusted
			}
			end := strings.IndexByte(value[1:], '"')
			if end < 0 {
				break
			}
			tag := value[:end+2]
			value = value[end+2:]
			if etag != "" && !(weak && strong) && tag == strings.TrimPrefix(etag, "W/") {
				return true
			}
		}
	}
	return false
}
