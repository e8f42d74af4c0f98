package functions

import (
	"cmp"
	"context"
	"fmt"
	netmail "net/mail"

	"github.com/rabbet-fn/rabbet/events"
	"github.com/rabbet-fn/rabbet/runtime/faas"
	"github.com/rabbet-fn/rabbet/runtime/mail"
)

func init() {
	faas.OnEvent(&All, "send-email", sendEmail, faas.Also(mailAboutProfile),
		faas.Once("")) // one mail for an event, even if it is delivered more than once
}

// sendEmail sends the mail that an event asks for.
func sendEmail(ctx context.Context, d *Deps, in events.EmailRequested) error {
	return send(ctx, d, mail.Message{To: in.To, Subject: in.Subject, Text: in.Text})
}

// mailAboutProfile tells the owner of a profile that it has changed.
func mailAboutProfile(ctx context.Context, d *Deps, in events.ProfileUpdated) error {
	profile := events.Profile(in)
	if in.Name == "" || in.Email == "" {
		stored, err := d.Profiles.ByID(ctx, in.ID)
		if err != nil {
			return outcome(err)
		}
		profile.Name, profile.Email = cmp.Or(in.Name, stored.Name), cmp.Or(in.Email, stored.Email)
	}
	return send(ctx, d, mail.Message{
		To:      (&netmail.Address{Name: profile.Name, Address: profile.Email}).String(),
		Subject: "Your profile has changed",
		Text: fmt.Sprintf("Hello %s,\n\nyour profile has changed. It now reads:\n\n  Name:   %s\n  E-mail: %s\n\nIf you did not expect this, please answer this mail.\n",
			profile.Name, profile.Name, profile.Email),
	})
}

// send sends message under the id of the event that caused it, so that a second copy
// can be recognized.
func send(ctx context.Context, d *Deps, message mail.Message) error {
	message.ID = faas.MetaOf(ctx).ID
	return outcome(d.Mail.Send(ctx, message))
}
