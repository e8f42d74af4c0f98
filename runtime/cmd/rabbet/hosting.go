package main

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/functions"
	"github.com/rabbet-fn/rabbet/functions/stores"
	"github.com/rabbet-fn/rabbet/runtime/faas"
)

// hosting is what a process needs to host the functions.
type hosting struct {
	functions []faas.Function
	profiles  *stores.Profiles
}

// openHosting opens what stands behind the functions and binds them to it.
func openHosting(ctx context.Context, c *config, bus faas.Bus, results functions.Results, log *zap.Logger) (*hosting, error) {
	databaseURL := cmp.Or(c.DatabaseURL, "sqlite://"+filepath.Join(c.Dir, "dev", "rabbet.db"))
	profiles, err := stores.Open(ctx, databaseURL)
	if err != nil {
		return nil, unusable("DATABASE_URL", databaseURL, "%v", err)
	}
	mail, err := stores.OpenMail(cmp.Or(c.SMTPURL, "smtp://127.0.0.1:25"))
	if err != nil {
		profiles.Close()
		return nil, unusable("SMTP_URL", c.SMTPURL, "%v", err)
	}
	fns, err := functions.All.With(&functions.Deps{
		Profiles: profiles, Mail: mail, Bus: bus, Results: results, Log: log,
	}, c.Functions...)
	if err != nil {
		profiles.Close()
		return nil, unusable("FUNCTIONS", strings.Join(c.Functions, ","), "%v; 'rabbet functions' lists what is live", err)
	}
	return &hosting{fns, profiles}, nil
}

func (h *hosting) Close() error { return h.profiles.Close() }

// nothingCached takes the place of a results cache where there is none.
type nothingCached struct{}

func (nothingCached) Invalidate(context.Context, ...string) error { return nil }

// dropResults is the message by which a worker that `rabbet dev` started asks
// it to drop results from its cache: memory:// is in that process alone.
type dropResults struct {
	Tags []string `json:"tags"`
}

func (dropResults) RoutingKey() string { return "rabbet.dev.results.drop" }

// remoteResults invalidates the cache of the `rabbet dev` behind bus.
type remoteResults struct{ bus faas.Bus }

func (r remoteResults) Invalidate(ctx context.Context, tags ...string) error {
	if _, err := faas.Call[struct{}](ctx, r.bus, dropResults{tags}); err != nil {
		return fmt.Errorf("invalidate %s: %w", strings.Join(tags, ", "), err)
	}
	return nil
}
