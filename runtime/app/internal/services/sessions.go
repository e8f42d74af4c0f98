package services

import (
	"cmp"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/app/internal/config"
	"github.com/rabbet-fn/rabbet/runtime/redisurl"
	"github.com/rabbet-fn/rabbet/runtime/session"
	"github.com/rabbet-fn/rabbet/runtime/session/memory"
	"github.com/rabbet-fn/rabbet/runtime/session/redis"
	"github.com/rabbet-fn/rabbet/runtime/session/store"
)

// sessionStores are the stores of sessions that there are.
var sessionStores = table[func(url string, o store.Options) (store.Store, error)]{
	{redis.Open, redisurl.Schemes},
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
	s, err := open(url, store.Options{})
	if err != nil {
		return nil, config.Unusable(config.Prefix+"SESSION_URL", url, "%v", err)
	}
	sessions, err := session.New(s, sessionConfig(c, log))
	if err != nil {
		s.Close()
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
	return session.New(&memory.Store{}, sessionConfig(c, log))
}

func sessionConfig(c *config.Config, log *zap.Logger) session.Config {
	return session.Config{Namespace: c.Namespace, Idle: c.SessionIdle, Lifetime: c.SessionLifetime, Log: log}
}
