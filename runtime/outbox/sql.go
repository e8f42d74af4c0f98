package outbox

import (
	"cmp"
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/database"
)

// Add stores records in tx. Those of one subject are published in the order in which
// their transactions are committed, if the transactions exclude each other: change a
// row of the subject in tx before Add.
func (o *Outbox) Add(ctx context.Context, tx *sql.Tx, subject string, records ...Record) error {
	for _, r := range records {
		_, err := tx.ExecContext(ctx, `INSERT INTO outbox (id, subject, routing_key, event) VALUES ($1, $2, $3, $4)`,
			r.ID, subject, r.Key, string(r.Event))
		if err != nil {
			return fmt.Errorf("store %s for publishing: %w", r.Key, err)
		}
	}
	return nil
}

// claimable is the condition for a record to be claimed: it is due, and no earlier
// record of its subject waits or is claimed by another relay.
const claimable = `NOT parked AND due <= NOW AND NOT EXISTS (
	SELECT 1 FROM outbox earlier
	WHERE earlier.subject = record.subject AND earlier.number < record.number AND NOT earlier.parked AND earlier.due > NOW)`

// claim claims up to size records under a lease, the oldest first. It finds them
// without a lock, since that takes time when many cannot be claimed.
func (o *Outbox) claim(ctx context.Context, size int, lease time.Duration) (*batch, error) {
	found, err := o.find(ctx, size)
	if err != nil || len(found) == 0 {
		return &batch{}, err
	}
	found = append(found, make([]any, size-len(found))...) // nulls, so that the statement is always the same
	return o.take(ctx, found, lease)
}

// take claims those of the records that can still be claimed. Claims are made one after
// the other, so that each sees the claims of the others.
func (o *Outbox) take(ctx context.Context, found []any, lease time.Duration) (*batch, error) {
	b := &batch{owner: rand.Text()}
	var places strings.Builder
	for n := range found {
		fmt.Fprintf(&places, ", $%d", n+3)
	}
	statement := o.sql(`UPDATE outbox AS record SET owner = $1, due = NOW + $2
		WHERE number IN (` + places.String()[2:] + `) AND ` + claimable + `
		RETURNING number, id, subject, routing_key, event, attempts`)
	err := o.db.Exclusively(ctx, database.ClaimingFromOutbox, func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(ctx, statement, append([]any{b.owner, lease.Milliseconds()}, found...)...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var c claimed
			if err := rows.Scan(&c.number, &c.ID, &c.subject, &c.Key, &c.Event, &c.attempts); err != nil {
				return err
			}
			b.records = append(b.records, &c)
		}
		return rows.Err()
	})
	slices.SortFunc(b.records, func(x, y *claimed) int { return cmp.Compare(x.number, y.number) })
	return b, err
}

// find returns the numbers of up to size records that can be claimed.
func (o *Outbox) find(ctx context.Context, size int) (numbers []any, err error) {
	rows, err := o.db.QueryContext(ctx, o.sql(`SELECT number FROM outbox AS record WHERE `+claimable+` ORDER BY number LIMIT $1`), size)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var number int64
		if err := rows.Scan(&number); err != nil {
			return nil, err
		}
		numbers = append(numbers, number)
	}
	return numbers, rows.Err()
}

// sql replaces NOW by the expression for the database's time.
func (o *Outbox) sql(statement string) string {
	return strings.ReplaceAll(statement, "NOW", o.db.Now())
}

// settle deletes what b has published, and releases the rest.
func (o *Outbox) settle(ctx context.Context, b *batch) error {
	return o.db.Transaction(ctx, func(tx *sql.Tx) error {
		for _, c := range b.records {
			if c.outcome == published {
				continue
			}
			var pause time.Duration
			message := ""
			if c.err != nil {
				message = c.err.Error()
			}
			if c.outcome == failed {
				pause = backoff(c.attempts-1, 500*time.Millisecond, time.Minute)
			}
			_, err := tx.ExecContext(ctx, o.sql(`
				UPDATE outbox SET owner = '', due = NOW + $1, attempts = $2, error = $3, parked = $4
				WHERE number = $5 AND owner = $6`),
				pause.Milliseconds(), c.attempts, message, c.outcome == parked, c.number, b.owner)
			if err != nil {
				return err
			}
		}
		_, err := tx.ExecContext(ctx, `DELETE FROM outbox WHERE owner = $1 AND number BETWEEN $2 AND $3`,
			b.owner, b.records[0].number, b.records[len(b.records)-1].number)
		return err
	})
}
