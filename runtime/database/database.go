// Package database opens the SQL databases that products keep their data in, SQLite
// and PostgreSQL, brings their schema up to date, and hides what differs between
// them. It knows no table but its own list of migrations.
package database

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
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

const (
	// lockWait is how long a write waits for other processes that write to the
	// same SQLite file. It is well below the usual timeout of a request.
	lockWait = 2 * time.Second
	// lockPoll is how often it tries. SQLite itself would try less and less often,
	// and never find the file free between the writes of a busy process.
	lockPoll = 5 * time.Millisecond
)

// ErrUnavailable says that the database is locked, unreachable or starting: the
// same statement will work later.
var ErrUnavailable = errors.New("unavailable")

// A DB is a SQL database. It is safe for concurrent use. Read with the methods of
// sql.DB, and write with Transaction.
type DB struct {
	*sql.DB
	writer *sql.DB // for transactions; for SQLite a single connection, so that writers of this process wait for each other
	name   string  // for messages: without user and password
	kind   string  // "sqlite" or "postgres", as in the names of migrations
	lock   string  // statement that waits for other transactions with the same purpose ($1); "" if transactions exclude each other anyway
	now    string
}

// Now returns a SQL expression for the database's time in Unix milliseconds. It
// has the same value throughout a statement.
func (db *DB) Now() string { return db.now }

// A Purpose is what transactions that exclude each other are for.
type Purpose int

// The purposes.
const (
	Migrating Purpose = iota
	ClaimingFromOutbox
)

// Exclusively runs fn in a transaction. No other process runs one for the same
// purpose at the same time.
func (db *DB) Exclusively(ctx context.Context, purpose Purpose, fn func(*sql.Tx) error) error {
	return db.Transaction(ctx, func(tx *sql.Tx) error {
		if db.lock != "" {
			if _, err := tx.ExecContext(ctx, db.lock, purpose); err != nil {
				return fmt.Errorf("wait for other processes: %w", err)
			}
		}
		return fn(tx)
	})
}

// Open returns the database at rawURL. It does not connect yet.
//
//	sqlite://path/to/file.db                      made when it is missing
//	postgres://user:password@host:5432/name?sslmode=require
//
// Errors never show the password.
func Open(rawURL string) (*DB, error) {
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
func openSQLite(path string) (*DB, error) {
	if path == "" || strings.HasPrefix(path, ":memory:") || strings.Contains(path, "?") {
		return nil, fmt.Errorf("sqlite://%s: name a file and nothing else, as in sqlite://data/profiles.db", path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, fmt.Errorf("sqlite://%s: make its folder: %w", path, err)
	}
	connect := func(timeout time.Duration) (*sql.DB, error) {
		options := url.Values{
			"_pragma": {fmt.Sprintf("busy_timeout(%d)", timeout.Milliseconds()), "journal_mode(WAL)", "synchronous(NORMAL)", "foreign_keys(1)"},
			// A transaction that begins as a reader and becomes a writer cannot wait for the lock; this one can.
			"_txlock": {"immediate"},
		}
		dsn := url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: options.Encode()}
		return sql.Open("sqlite", dsn.String())
	}
	db, err := connect(lockWait)
	if err != nil {
		return nil, fmt.Errorf("sqlite://%s: %w", path, err)
	}
	writer, err := connect(lockPoll)
	if err != nil {
		return nil, fmt.Errorf("sqlite://%s: %w", path, err)
	}
	writer.SetMaxOpenConns(1)
	return &DB{
		DB: db, writer: writer, kind: "sqlite", name: "SQLite file " + path,
		now: `CAST(unixepoch('subsec') * 1000 AS INTEGER)`,
	}, nil
}

func openPostgres(rawURL string) (*DB, error) {
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
	return &DB{
		DB: db, writer: db, kind: "postgres",
		name: fmt.Sprintf("PostgreSQL database %q at %s:%d", config.Database, config.Host, config.Port),
		lock: `SELECT pg_advisory_xact_lock(7020726162626574 + $1)`, // any numbers that nothing else uses
		now:  `CAST(extract(epoch FROM statement_timestamp()) * 1000 AS BIGINT)`,
	}, nil
}

// Explain returns err with what to do about it. It marks err as ErrUnavailable if the
// same statement will work later.
func (db *DB) Explain(err error) error {
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

// refused reports whether err says that there is no connection to the server,
// or none any more.
func refused(err error) bool {
	_, connecting := errors.AsType[*pgconn.ConnectError](err)
	_, network := errors.AsType[*net.OpError](err)
	lost := errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, pgconn.ErrConnClosed)
	return connecting || network || lost || errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone)
}

// Close frees the connections.
func (db *DB) Close() error { return errors.Join(db.writer.Close(), db.DB.Close()) }

// begin begins a transaction. It waits while others write to a SQLite file.
func (db *DB) begin(ctx context.Context) (*sql.Tx, error) {
	for deadline := time.Now().Add(lockWait); ; {
		tx, err := db.writer.BeginTx(ctx, nil)
		if e, ok := errors.AsType[*sqlite.Error](err); !ok || e.Code()&0xff != sqlite3.SQLITE_BUSY || !time.Now().Before(deadline) {
			return tx, err
		}
	}
}

// Transaction runs fn in a transaction, and commits it if fn returns nil.
func (db *DB) Transaction(ctx context.Context, fn func(*sql.Tx) error) error {
	tx, err := db.begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after a commit it has nothing to do, otherwise fn's error counts
	if err := fn(tx); err != nil {
		return err
	}
	return tx.Commit()
}
