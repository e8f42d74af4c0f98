// Package stores is what stands behind the functions' dependencies: profiles in a
// SQL database. It knows the messages that travel, and neither the functions nor what
// runs them.
package stores

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"

	"github.com/rabbet-fn/rabbet/events"
	"github.com/rabbet-fn/rabbet/runtime/database"
	"github.com/rabbet-fn/rabbet/runtime/outbox"
)

// Errors to distinguish with errors.Is. After any other error of this package the
// same call may succeed later.
var (
	// ErrNotFound says that there is no such row.
	ErrNotFound = errors.New("not found")
	// ErrUnavailable says that the database is locked, unreachable or starting: the
	// same call will succeed in a moment.
	ErrUnavailable = database.ErrUnavailable
)

// Profiles keeps profiles in a SQL database. It is safe for concurrent use, by any
// number of processes.
type Profiles struct {
	db     *database.DB
	outbox *outbox.Outbox
}

//go:embed migrations/*.sql
var migrations embed.FS

// Open connects to the database at url and brings its schema up to date. See
// database.Open for the forms of url. Errors never show the password.
func Open(ctx context.Context, url string) (*Profiles, error) {
	db, err := database.Open(url)
	if err != nil {
		return nil, err
	}
	if err := db.Migrate(ctx, migrations, outbox.Migrations); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &Profiles{db, outbox.New(db)}, nil
}

// Close frees the connections. Calls that still use them fail.
func (p *Profiles) Close() error { return p.db.Close() }

// Ping reports why the database does not answer.
func (p *Profiles) Ping(ctx context.Context) error {
	if err := p.db.PingContext(ctx); err != nil {
		return p.db.Explain(err)
	}
	return nil
}

// ByID returns one profile, or ErrNotFound.
func (p *Profiles) ByID(ctx context.Context, id string) (events.Profile, error) {
	profile := events.Profile{ID: id}
	err := p.db.QueryRowContext(ctx, `SELECT name, email FROM profiles WHERE id = $1`, id).
		Scan(&profile.Name, &profile.Email)
	if errors.Is(err, sql.ErrNoRows) {
		return events.Profile{}, fmt.Errorf("profile %q: %w", id, ErrNotFound)
	}
	if err != nil {
		return events.Profile{}, fmt.Errorf("read profile %q: %w", id, p.db.Explain(err))
	}
	return profile, nil
}

// Outbox returns the outbox that Save stores events in.
func (p *Profiles) Outbox() *outbox.Outbox { return p.outbox }

// Save stores a profile, in place of an earlier one with its id, and events about it
// in the outbox, in one transaction. The events of one profile are published in the
// order of the saves.
func (p *Profiles) Save(ctx context.Context, profile events.Profile, outgoing ...outbox.Record) error {
	err := p.db.Transaction(ctx, func(tx *sql.Tx) error {
		// The row first: its lock keeps the events of a profile in order.
		_, err := tx.ExecContext(ctx, `
			INSERT INTO profiles (id, name, email) VALUES ($1, $2, $3)
			ON CONFLICT (id) DO UPDATE SET name = excluded.name, email = excluded.email`,
			profile.ID, profile.Name, profile.Email)
		if err != nil {
			return err
		}
		return p.outbox.Add(ctx, tx, "profile:"+profile.ID, outgoing...)
	})
	if err != nil {
		return fmt.Errorf("save profile %q: %w", profile.ID, p.db.Explain(err))
	}
	if len(outgoing) > 0 {
		p.outbox.Wake()
	}
	return nil
}

// samples are in a new database of a developer.
var samples = []events.Profile{
	{ID: "1", Name: "Ada Lovelace", Email: "ada@example.com"},
	{ID: "2", Name: "Grace Hopper", Email: "grace@example.com"},
	{ID: "3", Name: "Alan Turing", Email: "alan@example.com"},
	{ID: "7", Name: "Annie Easley", Email: "annie@example.com"},
	{ID: "42", Name: "Douglas Adams", Email: "douglas@example.com"},
}

// Seed adds the sample profiles that are missing, and changes none.
func (p *Profiles) Seed(ctx context.Context) error {
	err := p.db.Transaction(ctx, func(tx *sql.Tx) error {
		for _, s := range samples {
			if _, err := tx.ExecContext(ctx, `INSERT INTO profiles (id, name, email) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`, s.ID, s.Name, s.Email); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("add the sample profiles: %w", p.db.Explain(err))
	}
	return nil
}
