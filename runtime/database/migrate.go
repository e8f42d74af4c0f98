package database

import (
	"context"
	"database/sql"
	"fmt"
	"io/fs"
	"strings"
	"time"
)

// migrateTimeout is how long Migrate waits for a database that does not answer, or
// for another process that migrates it.
const migrateTimeout = 30 * time.Second

// Migrate brings the schema up to date, with the scripts migrations/*.sql of each of
// sources, one source after the other. The scripts of a source are applied in the
// order of their names, each once. One whose name ends in .sqlite.sql or
// .postgres.sql is applied only to that kind of database. Never change a script that
// has been released; add another.
//
// Any number of processes may call Migrate at once: one does the work while the
// others wait.
func (db *DB) Migrate(ctx context.Context, sources ...fs.FS) error {
	ctx, cancel := context.WithTimeout(ctx, migrateTimeout)
	defer cancel()
	err := db.Exclusively(ctx, Migrating, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS schema_migrations (name TEXT PRIMARY KEY)`); err != nil {
			return fmt.Errorf("create the list of migrations: %w", err)
		}
		for _, source := range sources {
			if err := db.migrate(ctx, tx, source); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return db.Explain(err)
	}
	return nil
}

func (db *DB) migrate(ctx context.Context, tx *sql.Tx, source fs.FS) error {
	names, err := fs.Glob(source, "migrations/*.sql")
	if err != nil {
		return fmt.Errorf("list the migrations: %w", err)
	}
	for _, name := range names {
		if parts := strings.Split(name, "."); len(parts) == 3 && parts[1] != db.kind {
			continue
		}
		if err := apply(ctx, tx, source, name); err != nil {
			return fmt.Errorf("migration %s: %w", name, err)
		}
	}
	return nil
}

func apply(ctx context.Context, tx *sql.Tx, source fs.FS, name string) error {
	done, err := tx.ExecContext(ctx, `INSERT INTO schema_migrations (name) VALUES ($1) ON CONFLICT DO NOTHING`, name)
	if err != nil {
		return err
	}
	if added, err := done.RowsAffected(); err != nil || added == 0 {
		return err
	}
	script, err := fs.ReadFile(source, name)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, string(script))
	return err
}
