package stores

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"
	"strings"
)

// migrations are applied in the order of their names, each once; one whose name
// ends in .sqlite.sql or .postgres.sql to that make of database only. A file
// that has been released never changes; a later one makes the correction.
//
//go:embed migrations/*.sql
var migrations embed.FS

// migrate brings the schema up to date. Any number of processes may do so at
// once: the first does the work while the others wait.
func (db *database) migrate(ctx context.Context) error {
	names, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		return fmt.Errorf("list the migrations: %w", err)
	}
	return db.exclusively(ctx, lockMigrate, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS schema_migrations (name TEXT PRIMARY KEY)`); err != nil {
			return fmt.Errorf("create the list of migrations: %w", err)
		}
		for _, name := range names {
			if parts := strings.Split(name, "."); len(parts) == 3 && parts[1] != db.kind {
				continue
			}
			if err := apply(ctx, tx, name); err != nil {
				return fmt.Errorf("migration %s: %w", name, err)
			}
		}
		return nil
	})
}

func apply(ctx context.Context, tx *sql.Tx, name string) error {
	done, err := tx.ExecContext(ctx, `INSERT INTO schema_migrations (name) VALUES ($1) ON CONFLICT DO NOTHING`, name)
	if err != nil {
		return err
	}
	if fresh, err := done.RowsAffected(); err != nil || fresh == 0 {
		return err
	}
	script, err := migrations.ReadFile(name)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, string(script))
	return err
}
