package main

import (
	"cmp"
	"context"
	"errors"
	"path/filepath"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/functions"
	"github.com/rabbet-fn/rabbet/functions/stores"
	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/faas"
	"github.com/rabbet-fn/rabbet/runtime/inbox"
)

// hosting is what a process needs to host the functions.
type hosting struct {
	functions []contract.Function
	profiles  *stores.Profiles
	close     func() error
}

// openHosting opens what stands behind the functions and binds them to it.
// Without a STATE_URL, memory is where it is kept which events were handled.
func openHosting(ctx context.Context, c *config, bus faas.Bus, results functions.Results, memory inbox.Store, log *zap.Logger) (*hosting, error) {
	profiles, err := openProfiles(ctx, c, log)
	if err != nil {
		return nil, err
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
	fns, closeInbox, err := guardOnce(ctx, c, memory, fns, log)
	if err != nil {
		profiles.Close()
		return nil, err
	}
	return &hosting{fns, profiles, func() error { return errors.Join(closeInbox(), profiles.Close()) }}, nil
}

// errStopped says that the process was told to stop before it hosted anything.
var errStopped = errors.New("stopped")

// databasePause is how long a start waits before it looks for its database again.
const databasePause = 2 * time.Second

// openProfiles opens the database. One that is not there yet it waits for, as
// long as it takes: a worker that gave up would stay away for as long as its
// supervisor likes, after the database is back.
func openProfiles(ctx context.Context, c *config, log *zap.Logger) (*stores.Profiles, error) {
	databaseURL := cmp.Or(c.DatabaseURL, "sqlite://"+filepath.Join(c.Dir, "dev", "rabbet.db"))
	var last string
	for {
		profiles, err := stores.Open(ctx, databaseURL)
		switch {
		case err == nil:
			return profiles, nil
		case ctx.Err() != nil:
			return nil, errStopped
		case !errors.Is(err, stores.ErrUnavailable):
			return nil, unusable("DATABASE_URL", databaseURL, "%v", err)
		case err.Error() != last: // the same trouble over and over is one line
			last = err.Error()
			log.Warn("no function is hosted yet: the database is not there, trying again", zap.Error(err))
		}
		select {
		case <-ctx.Done():
		case <-time.After(databasePause):
		}
	}
}

// Close frees it once no function runs any more.
func (h *hosting) Close() error { return h.close() }

// devKeys is how the keys of the functions begin that `rabbet dev` hosts for
// the workers that it starts.
const devKeys = "rabbet.dev."

// ofDev reports whether it is one of these.
func ofDev(d *contract.Descriptor) bool { return strings.HasPrefix(d.Keys[0], devKeys) }
