package cloudevents

import (
	"mime"
	"net/url"
	"strings"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/body"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/event"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/header"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/message"
)

// mistakes appends what CloudEvents 1.0 does not allow to found.
func (e *cloudEvent) mistakes(at string, found []contract.FieldError) []contract.FieldError {
	wrong := func(name, detail string) {
		found = append(found, contract.FieldError{Pointer: at + message.Pointer(name), Detail: detail})
	}
	for _, name := range [...]string{"specversion", "id", "source", "type"} {
		if e.attributes[name] == "" {
			wrong(name, "it is required")
		}
	}
	if v := e.attributes["specversion"]; v != "" && v != "1.0" {
		wrong("specversion", "only 1.0 is supported")
	}
	for name, value := range e.attributes {
		if detail := attributeMistake(name, value); detail != "" {
			wrong(name, detail)
		}
	}
	if _, _, err := mime.ParseMediaType(e.dataType); err != nil && e.dataType != "" || len(e.dataType) > event.MaxShortString {
		wrong("datacontenttype", "want a media type of at most 255 bytes")
	} else if (e.dataType == "" || header.IsJSON(e.dataType)) && len(e.data) > 0 && !body.IsJSON(e.data) {
		wrong("data", "it is not JSON in UTF-8, which its content type says")
	}
	if p := event.CheckKey(e.key()); e.attributes["type"] != "" && p != nil {
		wrong("type", p.Detail)
	}
	return found
}

// attributeMistake returns what is wrong with an attribute; "" for nothing.
func attributeMistake(name, value string) string {
	for n := range len(name) {
		if c := name[n]; c < '0' || c > '9' && c < 'a' || c > 'z' {
			return "an attribute's name has lower-case letters and digits only"
		}
	}
	if strings.ContainsFunc(value, func(c rune) bool { return c < ' ' || c == 0x7f || c == 0xfffd }) {
		return "it contains a control character, or is not UTF-8"
	}
	if len(name) > 64 || len(value) > 4096 {
		return "it is too long"
	}
	switch name {
	case "id", "type":
		if len(value) > event.MaxShortString {
			return "it is longer than 255 bytes"
		}
	case "source":
		if _, err := url.Parse(value); err != nil {
			return "want a URI reference"
		}
	case "dataschema":
		if u, err := url.Parse(value); err != nil || !u.IsAbs() {
			return "want a URI"
		}
	case "subject":
		if value == "" {
			return "leave it out if it is empty"
		}
	case "time":
		if _, ok := event.ParseTime(value); !ok {
			return "want a time as in RFC 3339"
		}
	case "data":
		return "no attribute may be called data"
	}
	return ""
}
