package main

import (
	"database/sql"
	"net/url"
	"strings"
	"testing"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// freshPostgres makes a database of the test's own, drops it at its end, and
// returns its URL.
func freshPostgres(t *testing.T) string {
	t.Helper()
	server := service(t, "RABBET_TEST_POSTGRES_URL")
	db, err := sql.Open("pgx", server)
	if err != nil {
		t.Fatal(err)
	}
	name := "test_" + strings.ToLower(contract.NewID())
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
