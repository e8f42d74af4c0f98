package caching

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"net/http"
	"strconv"
	"strings"
)

// cookiePrefix marks a cookie among the names of an identity; the others are
// header fields.
const cookiePrefix = "cookie:"

// identityOf returns a hash of what identifies the client; "" if the request has
// none of it. Only the hash leaves the ingress.
func identityOf(r *http.Request, names []string) string {
	known := false
	h := sha256.New()
	write := func(value string) {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(value)))) // separates it from the next one
		h.Write([]byte(value))
	}
	for _, name := range names {
		values := r.Header[name]
		if cookie, ok := strings.CutPrefix(name, cookiePrefix); ok {
			values = nil
			for _, c := range r.CookiesNamed(cookie) {
				values = append(values, c.Value)
			}
		}
		write(strconv.Itoa(len(values)))
		for _, value := range values {
			known = known || value != ""
			write(value)
		}
	}
	if !known {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}
