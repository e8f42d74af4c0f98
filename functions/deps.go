package functions

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/functions/stores"
	"github.com/rabbet-fn/rabbet/runtime/app"
	"github.com/rabbet-fn/rabbet/runtime/mail"
	"github.com/rabbet-fn/rabbet/runtime/outbox"
)

// Product is what runtime/cmd/rabbet runs.
var Product = app.Product[Deps]{
	Functions: &All,
	Open:      open,
	Settings:  settings{},
	Try: []string{
		`curl http://{http}/profiles/42`,
		`curl -X PUT http://{http}/profiles/42 -d '{"name":"Ada King","email":"ada@example.org"}'`,
		`{rabbet} publish profile.updated '{"id":"42"}'`,
	},
}

// settings are the environment variables of the product itself.
type settings struct {
	DatabaseURL string `env:"RABBET_DATABASE_URL" doc:"sqlite://path or postgres://user:password@host:5432/name; by default sqlite://$RABBET_DIR/dev/rabbet.db"`
	SMTPURL     string `env:"RABBET_SMTP_URL" doc:"smtp://user:password@host:587?from=a@example.org or smtps://…; by default the mail catcher of 'rabbet dev', elsewhere smtp://127.0.0.1:25"`
}

// Validate reports a URL whose scheme is unknown.
func (s *settings) Validate() error {
	return cmp.Or(
		checkScheme("RABBET_DATABASE_URL", s.DatabaseURL, "sqlite", "postgres", "postgresql"),
		checkScheme("RABBET_SMTP_URL", s.SMTPURL, "smtp", "smtps"),
	)
}

func checkScheme(variable, url string, schemes ...string) error {
	scheme, _, _ := strings.Cut(url, "://")
	if url == "" || slices.Contains(schemes, scheme) {
		return nil
	}
	return app.BadSetting(variable, url, "begin it with one of %s://", strings.Join(schemes, "://, "))
}

// open opens what stands behind Deps.
func open(ctx context.Context, host app.Host) (opened app.Opened[Deps], err error) {
	var s settings
	if err := app.ReadSettings(&s); err != nil {
		return opened, err
	}
	sender, err := mail.Open(cmp.Or(s.SMTPURL, host.MailCatcher, "smtp://127.0.0.1:25"))
	if err != nil {
		return opened, app.BadSetting("RABBET_SMTP_URL", s.SMTPURL, "%v", err)
	}
	profiles, err := openProfiles(ctx, host, s.DatabaseURL)
	if err != nil {
		return opened, err
	}
	relay := outbox.Relay{
		Publish: outbox.PublishTo(host.Broker),
		Report:  func(err error) { host.Log.Warn("outbox", zap.Error(err)) },
	}
	return app.Opened[Deps]{
		Deps:  Deps{Profiles: profiles, Mail: sender, Bus: host.Bus, Results: host.Results, Log: host.Log},
		Ready: profiles.Ping,
		Run:   func(ctx context.Context) { profiles.Outbox().Relay(ctx, relay) },
		Close: profiles.Close,
	}, nil
}

// openProfiles opens the database at url. Without a url it opens a file in the folder
// of host, with sample profiles for developers.
func openProfiles(ctx context.Context, host app.Host, url string) (*stores.Profiles, error) {
	file := "sqlite://" + filepath.Join(host.Dir, "rabbet.db")
	profiles, err := stores.Open(ctx, cmp.Or(url, file))
	if errors.Is(err, stores.ErrUnavailable) {
		return nil, fmt.Errorf("the database is not open: %w", outcome(err))
	}
	if err != nil {
		return nil, app.BadSetting("RABBET_DATABASE_URL", cmp.Or(url, file), "%v", err)
	}
	if host.Dev && url == "" {
		if err := profiles.Seed(ctx); err != nil {
			return nil, errors.Join(outcome(err), profiles.Close())
		}
	}
	return profiles, nil
}
