package app_test

import (
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/app/internal/config"
	"github.com/rabbet-fn/rabbet/runtime/app/internal/serve"
	"github.com/rabbet-fn/rabbet/runtime/app/internal/services"
	"github.com/rabbet-fn/rabbet/runtime/ingress"
)

// sessionsOf reads the config with these variables and opens its sessions.
func sessionsOf(t *testing.T, variables ...string) (c *config.Config, kept bool) {
	t.Helper()
	clearEnv(t)
	for _, v := range variables {
		name, value, _ := strings.Cut(v, "=")
		t.Setenv("RABBET_"+name, value)
	}
	c, err := config.Read()
	if err != nil {
		t.Fatal(err)
	}
	s, err := services.OpenSessions(c, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	if s != nil {
		s.Close()
	}
	return c, s != nil
}

func TestSessionsAreKeptWhereThereIsAPlaceForThem(t *testing.T) {
	for variables, want := range map[string]bool{
		"":                               false,
		"CACHE_URL=redis://host:6379":    false, // a cache forgets
		"STATE_URL=redis://host:6379":    true,
		"SESSION_URL=rediss://host:6379": true,
		"SESSION_URL=redis+cluster://a:1,b:2 STATE_URL=redis://host:6379": true,
	} {
		if _, kept := sessionsOf(t, strings.Fields(variables)...); kept != want {
			t.Errorf("%s: sessions are kept: %v, want %v", variables, kept, want)
		}
	}
}

func TestSessionCookieOfTheEnvironment(t *testing.T) {
	for variables, want := range map[string]ingress.Cookie{
		"":                     {},
		"SESSION_SECURE=true":  {},
		"SESSION_SECURE=false": {Insecure: true},
		"SESSION_COOKIE=__Host-id SESSION_SECURE=true": {Name: "__Host-id"},
	} {
		if c, _ := sessionsOf(t, strings.Fields(variables)...); serve.Cookie(c) != want {
			t.Errorf("%s: got %+v, want %+v", variables, serve.Cookie(c), want)
		}
	}
	clearEnv(t)
	t.Setenv("RABBET_SESSION_COOKIE", "__Host-id")
	t.Setenv("RABBET_SESSION_SECURE", "false")
	if _, err := config.Read(); err == nil || !strings.Contains(err.Error(), "RABBET_SESSION_SECURE=true") {
		t.Errorf("a prefix that browsers refuse without Secure: got %v", err)
	}
}
