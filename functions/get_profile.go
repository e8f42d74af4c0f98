package functions

import (
	"context"
	"errors"
	"time"

	"github.com/rabbet-fn/rabbet/events"
	"github.com/rabbet-fn/rabbet/functions/stores"
	"github.com/rabbet-fn/rabbet/runtime/faas"
)

func init() {
	faas.OnRequest(&All, "get-profile", getProfile,
		faas.HTTP("GET /profiles/{id}"),
		faas.Cached(5*time.Minute, "profile:{id}"))
}

// getProfile answers with one profile.
func getProfile(ctx context.Context, d *Deps, in events.GetProfile) (events.Profile, error) {
	profile, err := d.Profiles.ByID(ctx, in.ID)
	if errors.Is(err, stores.ErrNotFound) {
		return events.Profile{}, faas.NotFound("no profile %q", in.ID)
	}
	return profile, outcome(err)
}
