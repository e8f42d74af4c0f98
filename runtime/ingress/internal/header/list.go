package header

import (
	"mime"
	"net/http"
	"strconv"
	"strings"
)

// Accepts reports whether the Accept field allows the media type major/minor
// (RFC 9110, section 12.5.1): the most specific range that matches decides.
func Accepts(h http.Header, major, minor string) bool {
	values := h["Accept"]
	if len(values) == 0 || len(values) == 1 && (values[0] == "*/*" || values[0] == "") {
		return true
	}
	best, allowed := -1, false
	for _, value := range values {
		for value != "" {
			var item string
			item, value = CutItem(value)
			mediaRange, params, err := mime.ParseMediaType(item)
			if err != nil {
				continue
			}
			specificity := -1
			switch mediaRange {
			case "*/*":
				specificity = 0
			case major + "/*":
				specificity = 1
			case major + "/" + minor:
				specificity = 2
			}
			if specificity > best {
				q, err := strconv.ParseFloat(params["q"], 64)
				best, allowed = specificity, err != nil || q > 0
			}
		}
	}
	return allowed
}

// CutItem cuts the first item off a list (RFC 9110, section 5.6.1). An item may
// contain commas in quotes.
func CutItem(list string) (item, rest string) {
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

// Unquote returns the content of a quoted string (RFC 9110, section 5.6.4), and
// any other text unchanged.
func Unquote(s string) string {
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
