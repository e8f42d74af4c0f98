package faas

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// A message field tagged `header:"Accept-Language"` is filled from that request
// header field over HTTP, and from nowhere else; several lines of it are joined
// with ", " (RFC 9110, section 5.3). It is part of the input like every other
// field: of the cache's key, of what a caller over AMQP sends. In the schema
// the property says so with the keyword "x-header".

// checkHeaders says which header tags in the message type t cannot work.
func checkHeaders(t reflect.Type) error {
	if t.Kind() != reflect.Struct || reads.opaque(t) {
		return nil
	}
	taken := map[string]string{}
	for _, f := range fieldsOf(t) {
		if f.header == "" {
			if at := headerBelow(f.typ, nil); at != "" {
				return fmt.Errorf("field %q: its part %q has a header tag: only the message's own fields come from header fields", f.name, at)
			}
			continue
		}
		switch name := f.header; {
		case !isToken(name):
			return fmt.Errorf("field %q: header %q is not the name of a header field", f.name, name)
		case taken[name] != "":
			return fmt.Errorf("fields %q and %q: both come from the header field %s", taken[name], f.name, name)
		case (name == "Authorization" || name == "Cookie") && !f.sensitive:
			return fmt.Errorf("field %q: the header field %s is a secret: tag the field `sensitive:\"true\"` as well", f.name, name)
		case ofConnection(name) || ofIngress(name):
			return fmt.Errorf("field %q: the header field %s is not for functions", f.name, name)
		case !fromText(f.typ):
			return fmt.Errorf("field %q: a header field is text: make it a string, a number or a bool instead of %v", f.name, f.typ)
		}
		taken[f.header] = f.name
	}
	return nil
}

// headerBelow is the name of a field with a header tag inside of t; "" if there is none.
func headerBelow(t reflect.Type, above []reflect.Type) string {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Array || t.Kind() == reflect.Map {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || reads.opaque(t) || slices.Contains(above, t) {
		return ""
	}
	for _, f := range fieldsOf(t) {
		if f.header != "" {
			return f.name
		}
		if at := headerBelow(f.typ, append(above, t)); at != "" {
			return at
		}
	}
	return ""
}

// fromText reports whether the text of a header field can become a t.
func fromText(t reflect.Type) bool {
	s := reads.schema(t, nil)
	name, ok := s.Type.(string)
	if names, several := s.Type.([]string); several {
		name, ok = names[0], true
	}
	return ok && name != "array" && name != "object" && s.ContentEncoding == ""
}

// ofConnection reports whether a header field, its name in canonical form, is
// about one connection or the way the message is framed (RFC 9110, sections
// 6.6, 7.2 and 7.6.1).
func ofConnection(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authorization", "Proxy-Authenticate", "Te", "Trailer",
		"Transfer-Encoding", "Upgrade", "Host", "Expect", "Content-Length", "Content-Encoding", "Set-Cookie":
		return true
	}
	return false
}

// ofIngress reports whether a header field is the ingress's own business, or
// says what nobody but a trusted proxy may say.
func ofIngress(name string) bool {
	switch name {
	case "Cache-Control", "Pragma", "Age", "Vary", "If-Modified-Since", "Range", "If-Range",
		"Request-Timeout", "Forwarded", "X-Real-Ip":
		return true
	}
	return strings.HasPrefix(name, "X-Forwarded-") || strings.HasPrefix(name, "Rabbet-")
}

// isToken reports whether s is a token of RFC 9110, section 5.6.2.
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	return s != "" && len(s) <= 100
}
