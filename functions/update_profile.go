package functions

import (
	"context"
	"net/mail"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/events"
	"github.com/rabbet-fn/rabbet/runtime/faas"
	"github.com/rabbet-fn/rabbet/runtime/outbox"
)

func init() {
	faas.OnRequest(&All, "update-profile", updateProfile,
		faas.HTTP("PUT /profiles/{id}"))
}

// updateProfile stores a profile, new or not, and the event about it. The event is
// published soon after, even if this process or the broker fails meanwhile.
func updateProfile(ctx context.Context, d *Deps, in events.UpdateProfile) (events.Profile, error) {
	profile := events.Profile{ID: in.ID, Name: strings.TrimSpace(in.Name), Email: strings.TrimSpace(in.Email)}
	if err := checkProfile(profile); err != nil {
		return events.Profile{}, err
	}
	updated, err := outbox.NewRecord(ctx, events.ProfileUpdated(profile))
	if err != nil {
		return events.Profile{}, err
	}
	if err := d.Profiles.Save(ctx, profile, updated); err != nil {
		return events.Profile{}, outcome(err)
	}
	// Before the reply, so that a client that has it never reads the old profile. If
	// the cache is unreachable, invalidate-cache does it later.
	if err := d.Results.Invalidate(ctx, events.ProfileUpdated(profile).CacheTags()...); err != nil {
		d.Log.Warn("cached results not invalidated yet", zap.String("profile", profile.ID), zap.Error(err))
	}
	return profile, nil
}

// checkProfile reports a field that cannot be stored.
func checkProfile(p events.Profile) error {
	switch {
	case p.ID == "" || len(p.ID) > 200 || !printable(p.ID):
		return faas.InvalidField("/id", "want 1 to 200 bytes of printable text")
	case p.Name == "" || utf8.RuneCountInString(p.Name) > 200 || !printable(p.Name):
		return faas.InvalidField("/name", "want 1 to 200 printable characters")
	}
	// Only the address: "Ada <ada@example.com>" is refused.
	if address, err := mail.ParseAddress(p.Email); err != nil || address.Address != p.Email || len(p.Email) > 254 {
		return faas.InvalidField("/email", "want an address such as ada@example.com")
	}
	return nil
}

func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}
