package stores

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/rabbet-fn/rabbet/events"
)

// Profiles keeps profiles in a SQL database. It is safe for concurrent use, by
// any number of processes.
type Profiles struct {
	db     *database
	outbox *Outbox
}

// startTimeout bounds how long Open waits for a database that does not answer,
// or for another process that migrates it.
const startTimeout = 30 * time.Second

// Open connects to the database at url and brings its schema up to date:
//
//	sqlite://path/to/file.db                      made when it is missing
//	postgres://user:password@host:5432/name?sslmode=require
//
// Its errors never show the password.
func Open(ctx context.Context, url string) (*Profiles, error) {
	db, err := open(url)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := db.migrate(ctx); err != nil {
		return nil, errors.Join(db.explain(err), db.Close())
	}
	return &Profiles{db, newOutbox(db)}, nil
}

// Close frees the connections. Whatever still uses them fails.
func (p *Profiles) Close() error { return p.db.Close() }

// Ping says what is wrong with the database; nil if it answers.
func (p *Profiles) Ping(ctx context.Context) error {
	if err := p.db.PingContext(ctx); err != nil {
		return p.db.explain(err)
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
		return events.Profile{}, fmt.Errorf("read profile %q: %w", id, p.db.explain(err))
	}
	return profile, nil
}

// Outbox holds what Save was given to publish.
func (p *Profiles) Outbox() *Outbox { return p.outbox }

// Save stores a profile, in place of an earlier one with its id, and in the
// same transaction what is to be published about that: either all of it stands
// or nothing. The events of one profile are published in the order of the saves.
func (p *Profiles) Save(ctx context.Context, profile events.Profile, outgoing ...Record) error {
	err := p.db.transaction(ctx, func(tx *sql.Tx) error {
		// The row first: who holds it is the only one to number the profile's events.
		_, err := tx.ExecContext(ctx, `
			INSERT INTO profiles (id, name, email) VALUES ($1, $2, $3)
			ON CONFLICT (id) DO UPDATE SET name = excluded.name, email = excluded.email`,
			profile.ID, profile.Name, profile.Email)
		if err != nil {
			return err
		}
		return p.outbox.add(ctx, tx, "profile:"+profile.ID, outgoing)
	})
	if err != nil {
		return fmt.Errorf("save profile %q: %w", profile.ID, p.db.explain(err))
	}
	if len(outgoing) > 0 {
		p.outbox.wake()
	}
	return nil
}

// samples are what a developer finds in a fresh database.
var samples = []events.Profile{
	{ID: "1", Name: "Ada Lovelace", Email: "ada@example.com"},
	{ID: "2", Name: "Grace Hopper", Email: "grace@example.com"},
	{ID: "3", Name: "Alan Turing", Email: "alan@example.com"},
	{ID: "7", Name: "Annie Easley", Email: "annie@example.com"},
	{ID: "42", Name: "Douglas Adams", Email: "douglas@example.com"},
}

// Seed adds the sample profiles that are not there yet, and leaves those that
// are as they stand.
func (p *Profiles) Seed(ctx context.Context) error {
	err := p.db.transaction(ctx, func(tx *sql.Tx) error {
		for _, s := range samples {
			if _, err := tx.ExecContext(ctx, `INSERT INTO profiles (id, name, email) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`, s.ID, s.Name, s.Email); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("add the sample profiles: %w", p.db.explain(err))
	}
	return nil
}
