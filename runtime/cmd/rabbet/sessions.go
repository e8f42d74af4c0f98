package main

import (
	"cmp"
	"net/http"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/ingress"
	"github.com/rabbet-fn/rabbet/runtime/session"
)

// openSessions opens what keeps the clients' sessions; nil for nothing.
// fallback is used when c names no place for them.
func openSessions(c *config, fallback string, log *zap.Logger) (*session.Sessions, error) {
	url := cmp.Or(c.SessionURL, c.StateURL, fallback)
	if url == "" {
		return nil, nil
	}
	sessions, err := session.Open(url, session.Config{
		Namespace: c.Namespace, Idle: c.SessionIdle, Lifetime: c.SessionLifetime, Log: log,
	})
	if err != nil {
		return nil, unusable("SESSION_URL", url, "%v", err)
	}
	return sessions, nil
}

func (c *config) cookie() ingress.Cookie {
	return ingress.Cookie{Name: c.SessionCookie, Insecure: c.SessionSecure != nil && !*c.SessionSecure}
}

func (c *config) validateSessions() error {
	if c.SessionIdle < time.Second {
		return unusable("SESSION_IDLE", c.SessionIdle.String(), "write a duration such as 1h")
	}
	if c.SessionLifetime < c.SessionIdle {
		return unusable("SESSION_LIFETIME", c.SessionLifetime.String(), "choose no less than %sSESSION_IDLE, which is %v", envPrefix, c.SessionIdle)
	}
	name := c.SessionCookie
	if name == "" {
		return nil
	}
	if (&http.Cookie{Name: name}).Valid() != nil {
		return unusable("SESSION_COOKIE", name, "use letters, digits, - and _")
	}
	prefixed := strings.HasPrefix(strings.ToLower(name), "__host-") || strings.HasPrefix(strings.ToLower(name), "__secure-")
	if secure := c.SessionSecure; prefixed && secure != nil && !*secure {
		return unusable("SESSION_COOKIE", name, "browsers refuse this prefix on a cookie that is not Secure: leave it out, or set %sSESSION_SECURE=true", envPrefix)
	}
	return nil
}
