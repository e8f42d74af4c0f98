package stores

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// lockWait is how long SQLite waits for another process that writes. It stays
// well below a request's usual patience.
const lockWait = 2 * time.Second

// database is a SQL database and what differs between the makes of it.
type database struct {
	*sql.DB
	name string // for messages: without user and password
	lock string // statement that lets one process at a time go on until its transaction ends; "" where a transaction does that anyway
}

// open returns the database at rawURL, which no one has talked to yet.
func open(rawURL string) (*database, error) {
	scheme, rest, _ := strings.Cut(rawURL, "://")
	switch scheme {
	case "sqlite":
		return openSQLite(rest)
	case "postgres", "postgresql":
		return openPostgres(rawURL)
	case "":
		return nil, errors.New("the database URL is empty: write sqlite://path/to/file.db or postgres://user:password@host:5432/name")
	}
	if !strings.Contains(rawURL, "://") {
		return nil, errors.New("the database URL has no scheme: write sqlite://path/to/file.db or postgres://user:password@host:5432/name")
	}
	return nil, fmt.Errorf("database URL with scheme %q: choose sqlite:// or postgres://", scheme)
}

// openSQLite opens the file at path, made with its folder when it is missing.
func openSQLite(path string) (*database, error) {
	if path == "" || strings.HasPrefix(path, ":memory:") || strings.Contains(path, "?") {
		return nil, fmt.Errorf("sqlite://%s: name a file and nothing else, as in sqlite://data/profiles.db", path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, fmt.Errorf("sqlite://%s: make its folder: %w", path, err)
	}
	options := url.Values{
		"_pragma": {fmt.Sprintf("busy_timeout(%d)", lockWait.Milliseconds()), "journal_mode(WAL)", "synchronous(NORMAL)", "foreign_keys(1)"},
		// A transaction that begins as a reader and becomes a writer cannot wait for the lock; this one can.
		"_txlock": {"immediate"},
	}
	dsn := url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: options.Encode()}
	db, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		return nil, fmt.Errorf("sqlite://%s: %w", path, err)
	}
	return &database{DB: db, name: "SQLite file " + path}, nil
}

func openPostgres(rawURL string) (*database, error) {
	config, err := pgx.ParseConfig(rawURL)
	if err != nil {
		// The parser's message may quote the URL, and the URL may hold the password.
		return nil, errors.New("the PostgreSQL URL cannot be read: write postgres://user:password@host:5432/name?sslmode=require, with %XX for special characters in the password")
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = 5 * time.Second
	}
	db := stdlib.OpenDB(*config)
	db.SetMaxOpenConns(16)
	db.SetMaxIdleConns(16)
	db.SetConnMaxIdleTime(5 * time.Minute)
	return &database{
		DB:   db,
		name: fmt.Sprintf("PostgreSQL database %q at %s:%d", config.Database, config.Host, config.Port),
		lock: `SELECT pg_advisory_xact_lock(7020726162626574)`, // any number that nothing else uses
	}, nil
}

// explain says what to do about err, and marks it ErrUnavailable if time will mend it.
func (db *database) explain(err error) error {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		switch e.Code() & 0xff { // the rest of an extended code tells variants apart
		case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
			return fmt.Errorf("%s: another process has kept it locked for %v (%w): %w", db.name, lockWait, ErrUnavailable, err)
		case sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM:
			return fmt.Errorf("%s: check that this user may write the file and its folder: %w", db.name, err)
		case sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT:
			return fmt.Errorf("%s: move it away or name another file: %w", db.name, err)
		}
		return fmt.Errorf("%s: %w", db.name, err)
	}
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch e.Code[:min(2, len(e.Code))] {
		case "28":
			return fmt.Errorf("%s: check user and password in the URL: %w", db.name, err)
		case "3D":
			return fmt.Errorf("%s: create it first (createdb), or correct its name: %w", db.name, err)
		case "08", "53", "57": // connection, resources, operator: starting or stopping
			return fmt.Errorf("%s (%w): %w", db.name, ErrUnavailable, err)
		}
		return fmt.Errorf("%s: %w", db.name, err)
	}
	if refused(err) {
		return fmt.Errorf("%s is out of reach (%w): check host and port, and that the server runs: %w", db.name, ErrUnavailable, err)
	}
	return fmt.Errorf("%s: %w", db.name, err)
}

// refused reports whether err says that there is no connection to the server.
func refused(err error) bool {
	_, connecting := errors.AsType[*pgconn.ConnectError](err)
	_, network := errors.AsType[*net.OpError](err)
	return connecting || network || errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone)
}

// transaction runs fn in one transaction, which is kept if fn returns nil.
func (db *database) transaction(ctx context.Context, fn func(*sql.Tx) error) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after a commit it has nothing to do, otherwise fn's error counts
	if err := fn(tx); err != nil {
		return err
	}
	return tx.Commit()
}
