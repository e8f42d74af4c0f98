// Package databasetest makes databases for tests, SQLite files and databases on a
// PostgreSQL server, and removes them afterwards. It creates no table and knows
// nothing of package database.
package databasetest

import (
	"crypto/rand"
	"database/sql"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver
)

// Each runs test once for each kind of database, with the URL of a new one.
func Each(t *testing.T, test func(t *testing.T, url string)) {
	t.Run("sqlite", func(t *testing.T) { test(t, SQLite(t)) })
	t.Run("postgres", func(t *testing.T) { test(t, Postgres(t)) })
}

// SQLite returns the URL of a database in a file of the test's own, with an unusual
// name.
func SQLite(t *testing.T) string {
	return "sqlite://" + filepath.Join(t.TempDir(), "a folder", "100% odd#name.db")
}

// Postgres creates a database on the server at RABBET_TEST_POSTGRES_URL, drops it at
// the end of the test, and returns its URL. With -short the test is skipped.
func Postgres(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("needs PostgreSQL")
	}
	server := os.Getenv("RABBET_TEST_POSTGRES_URL")
	if server == "" {
		t.Fatal("set RABBET_TEST_POSTGRES_URL, or run scripts/test, which starts one")
	}
	db, err := sql.Open("pgx", server)
	if err != nil {
		t.Fatal(err)
	}
	name := "test_" + strings.ToLower(rand.Text())
	if _, err := db.Exec("CREATE DATABASE " + name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := db.Exec("DROP DATABASE " + name + " WITH (FORCE)"); err != nil {
			t.Error(err)
		}
		db.Close()
	})
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/" + name
	return u.String()
}
