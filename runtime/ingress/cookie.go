package ingress

import (
	"net/http"
	"time"
)

// Cookie configures the cookie that holds the token of a client's session. It is
// always HttpOnly, SameSite=Lax and for all paths of the host.
type Cookie struct {
	// Name is "__Host-rabbet-session" by default. A browser accepts a cookie with
	// that prefix from this very host only, and over TLS (RFC 6265bis, section
	// 4.1.3). With Insecure, which excludes that, it is "rabbet-session".
	Name string
	// Insecure lets the cookie travel without TLS. It is for development:
	// Safari accepts no Secure cookie from http://localhost.
	Insecure bool
}

func (c Cookie) withDefaults() Cookie {
	switch {
	case c.Name == "" && c.Insecure:
		c.Name = "rabbet-session"
	case c.Name == "":
		c.Name = "__Host-rabbet-session"
	}
	return c
}

// tokenOf returns the token that the client sent; "" for none.
func (c Cookie) tokenOf(r *http.Request) string {
	cookie, err := r.Cookie(c.Name)
	if err != nil {
		return ""
	}
	return cookie.Value
}

// set returns a Set-Cookie field that gives the client a token for some time; if
// that is less than a second, one that removes the token.
func (c Cookie) set(token string, lifetime time.Duration) string {
	cookie := http.Cookie{
		Name: c.Name, Value: token, Path: "/", MaxAge: int(lifetime / time.Second),
		Secure: !c.Insecure, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	}
	if cookie.MaxAge <= 0 {
		cookie.MaxAge = -1 // written as Max-Age=0
	}
	return cookie.String()
}
