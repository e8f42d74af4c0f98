package caching

import (
	"net/http"
	"strings"
)

// Precondition evaluates If-Match and If-None-Match for a result with that entity
// tag (RFC 9110, section 13.2.2). It returns the name of the field whose
// condition is false; "" if there is none. Conditions on dates do not apply,
// because results have no modification date.
func Precondition(h http.Header, etag string) (failed string) {
	if match := h["If-Match"]; len(match) > 0 && !matches(match, etag, true) {
		return "If-Match"
	}
	if match := h["If-None-Match"]; len(match) > 0 && matches(match, etag, false) {
		return "If-None-Match"
	}
	return ""
}

// Unchecked returns the name of the field with a condition on a change that the
// ingress cannot check and the function does not check; "" if there is none.
// checked reports whether the function checks that field itself.
//
// The ingress does not know what the function is about to change. It must not let
// a client believe that it is protected from a lost update (RFC 9110, sections
// 13.1.1 and 13.1.2).
func Unchecked(h http.Header, checked func(field string) bool) string {
	for _, name := range [...]string{"If-Match", "If-None-Match"} {
		if match := h[name]; len(match) > 0 && !checked(name) && (name == "If-Match" || matches(match, "", false)) {
			return name
		}
	}
	return ""
}

// matches reports whether a list of entity tags contains etag or is "*". In a
// strong comparison weak tags match nothing; in a weak one there is no difference
// (RFC 9110, section 8.8.3.2).
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
				break // malformed: the rest of the list is ignored
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
