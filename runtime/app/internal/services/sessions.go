package services

import (
	"cmp"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/app/internal/config"
	"github.com/rabbet-fn/rabbet/runtime/redisurl"
	"github.com/rabbet-fn/rabbet/runtime/session"
)

// sessionStores are the stores of sessions that there are.
var sessionStores = table[func(url string, cfg session.Config) (*session.Sessions, error)]{
	{session.Open, redisurl.Schemes},
}

// OpenSessions opens the store of sessions that c names; nil if it names none.
func OpenSessions(c *config.Config, log *zap.Logger) (*session.Sessions, error) {
	url := cmp.Or(c.SessionURL, c.StateURL)
	if url == "" {
		return nil, nil
	}
	open, err := sessionStores.find("SESSION_URL", url)
	if err != nil {
		return nil, err
	}
	sessions, err := open(url, sessionConfig(c, log))
	if err != nil {
		return nil, config.Unusable(config.Prefix+"SESSION_URL", url, "%v", err)
	}
	return sessions, nil
}

// OpenDevSessions is OpenSessions for 'rabbet dev', which keeps sessions in its
// own memory if c names no store.
func OpenDevSessions(c *config.Config, log *zap.Logger) (*session.Sessions, error) {
	sessions, err := OpenSessions(c, log)
	if sessions != nil || err != nil {
		return sessions, err
	}
	return session.Open("memory://", sessionConfig(c, log))
}

func sessionConfig(c *config.Config, log *zap.Logger) session.Config {
	return session.Config{Namespace: c.Namespace, Idle: c.SessionIdle, Lifetime: c.SessionLifetime, Log: log}
}
