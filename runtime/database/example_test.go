package database_test

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"testing/fstest"

	"github.com/rabbet-fn/rabbet/runtime/database"
)

// A product embeds its migrations with go:embed. This one has a single script.
func ExampleDB_Migrate() {
	migrations := fstest.MapFS{"migrations/0001_orders.sql": {Data: []byte(`CREATE TABLE orders (id TEXT PRIMARY KEY)`)}}
	dir, err := os.MkdirTemp("", "")
	check(err)
	defer os.RemoveAll(dir)
	ctx := context.Background()

	db, err := database.Open("sqlite://" + filepath.Join(dir, "shop.db"))
	check(err)
	defer db.Close()
	for range 2 { // each process does it when it starts; the second time there is nothing to do
		check(db.Migrate(ctx, migrations))
	}
	check(db.Transaction(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO orders (id) VALUES ($1)`, "42")
		return err
	}))
	var n int
	check(db.QueryRowContext(ctx, `SELECT count(*) FROM orders`).Scan(&n))
	fmt.Println(n, "order")
	// Output: 1 order
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
