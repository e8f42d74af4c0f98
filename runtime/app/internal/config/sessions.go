package config

import (
	"net/http"
	"strings"
	"time"
)

// CheckSessions reports settings of sessions that contradict each other.
func (c *Config) CheckSessions() error {
	if c.SessionIdle < time.Second {
		return Unusable(Prefix+"SESSION_IDLE", c.SessionIdle.String(), "write a duration such as 1h")
	}
	if c.SessionLifetime < c.SessionIdle {
		return Unusable(Prefix+"SESSION_LIFETIME", c.SessionLifetime.String(), "choose no less than %sSESSION_IDLE, which is %v", Prefix, c.SessionIdle)
	}
	name := c.SessionCookie
	if name == "" {
		return nil
	}
	if (&http.Cookie{Name: name}).Valid() != nil {
		return Unusable(Prefix+"SESSION_COOKIE", name, "use letters, digits, - and _")
	}
	prefixed := strings.HasPrefix(strings.ToLower(name), "__host-") || strings.HasPrefix(strings.ToLower(name), "__secure-")
	if secure := c.SessionSecure; prefixed && secure != nil && !*secure {
		return Unusable(Prefix+"SESSION_COOKIE", name, "browsers refuse this prefix on a cookie that is not Secure: leave it out, or set %sSESSION_SECURE=true", Prefix)
	}
	return nil
}
