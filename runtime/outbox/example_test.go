package outbox_test

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"

	"github.com/rabbet-fn/rabbet/runtime/database"
	"github.com/rabbet-fn/rabbet/runtime/outbox"
)

type orderPlaced struct {
	ID string `json:"id"`
}

func (orderPlaced) RoutingKey() string { return "order.placed" }

// An event is stored in the transaction of the change that it is about, and published
// after the commit. A worker publishes with outbox.PublishTo(host.Broker).
func Example() {
	dir, err := os.MkdirTemp("", "")
	check(err)
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()

	db, err := database.Open("sqlite://" + filepath.Join(dir, "shop.db"))
	check(err)
	defer db.Close()
	check(db.Migrate(ctx, outbox.Migrations))
	box := outbox.New(db)

	record, err := outbox.NewRecord(ctx, orderPlaced{ID: "42"})
	check(err)
	check(db.Transaction(ctx, func(tx *sql.Tx) error {
		// Change the order here.
		return box.Add(ctx, tx, "order:42", record)
	}))
	box.Wake()

	box.Relay(ctx, outbox.Relay{Publish: func(_ context.Context, r outbox.Record) error {
		fmt.Println("published", r.Key)
		cancel()
		return nil
	}})
	// Output: published order.placed
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
