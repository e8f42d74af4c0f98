package header

import (
	"mime"
	"net/http"
	"strings"
)

// IsJSON reports whether a content type is application/json or ends in +json.
func IsJSON(contentType string) bool {
	if contentType == "application/json" {
		return true
	}
	t, _, err := mime.ParseMediaType(contentType)
	return err == nil && (t == "application/json" || strings.HasSuffix(t, "+json"))
}

// IsUnlabelled reports whether the client did not say what it sends: it gave no
// content type, or the one that curl -d adds by itself. For a browser it is
// always false, because a browser lets any page send both across sites without
// asking first.
func IsUnlabelled(h http.Header) bool {
	if h["Origin"] != nil || h["Sec-Fetch-Site"] != nil {
		return false
	}
	contentType := h.Get("Content-Type")
	return contentType == "" || contentType == "application/x-www-form-urlencoded"
}
