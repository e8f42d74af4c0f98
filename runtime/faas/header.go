package faas

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/rabbet-fn/rabbet/runtime/faas/internal/schema"
)

// Over HTTP, a message field with the tag `header:"Accept-Language"` is filled only
// from that request header field; several lines of it are joined with ", " (RFC
// 9110, section 5.3). Otherwise the field is like any other: it is a part of the
// cache key, and a caller over AMQP sends it in the body. Its property in the schema
// has the keyword "x-header".

// checkHeaders reports header tags in the message type t that do not work.
func checkHeaders(t reflect.Type) error {
	if t.Kind() != reflect.Struct || schema.Reads.Opaque(t) {
		return nil
	}
	taken := map[string]string{}
	for _, f := range schema.Fields(t) {
		if f.Header == "" {
			if at := headerBelow(f.Type, nil); at != "" {
				return fmt.Errorf("field %q: its part %q has a header tag: only the message's own fields come from header fields", f.Name, at)
			}
			continue
		}
		switch name := f.Header; {
		case !isToken(name):
			return fmt.Errorf("field %q: header %q is not the name of a header field", f.Name, name)
		case taken[name] != "":
			return fmt.Errorf("fields %q and %q: both come from the header field %s", taken[name], f.Name, name)
		case (name == "Authorization" || name == "Cookie") && !f.Sensitive:
			return fmt.Errorf("field %q: the header field %s is a secret: tag the field `sensitive:\"true\"` as well", f.Name, name)
		case ofConnection(name) || ofIngress(name):
			return fmt.Errorf("field %q: the header field %s is not for functions", f.Name, name)
		case !schema.FromText(f.Type):
			return fmt.Errorf("field %q: a header field is text: make it a string, a number or a bool instead of %v", f.Name, f.Type)
		}
		taken[f.Header] = f.Name
	}
	return nil
}

// headerBelow returns the name of a field with a header tag inside of t, or "".
func headerBelow(t reflect.Type, above []reflect.Type) string {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Array || t.Kind() == reflect.Map {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || schema.Reads.Opaque(t) || slices.Contains(above, t) {
		return ""
	}
	for _, f := range schema.Fields(t) {
		if f.Header != "" {
			return f.Name
		}
		if at := headerBelow(f.Type, append(above, t)); at != "" {
			return at
		}
	}
	return ""
}

// ofConnection reports whether a header field, its name in canonical form, belongs
// to the connection or to the framing of the message (RFC 9110, sections 6.6, 7.2
// and 7.6.1).
func ofConnection(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authorization", "Proxy-Authenticate", "Te", "Trailer",
		"Transfer-Encoding", "Upgrade", "Host", "Expect", "Content-Length", "Content-Encoding", "Set-Cookie":
		return true
	}
	return false
}

// ofIngress reports whether a header field is for the ingress, or may be set only
// by a trusted proxy.
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
