package outbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"go.uber.org/goleak"

	"github.com/rabbet-fn/rabbet/runtime/database"
	"github.com/rabbet-fn/rabbet/runtime/database/databasetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// store is a database with an outbox and nothing else, in one process.
type store struct {
	db *database.DB
	*Outbox
}

func mustOpen(t *testing.T, url string) *store {
	t.Helper()
	db, err := database.Open(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	if err := db.Migrate(t.Context(), Migrations, subjects); err != nil {
		t.Fatal(err)
	}
	return &store{db, New(db)}
}

// subjects is a table whose rows the transactions of this test change, as those of a
// product would.
var subjects = fstest.MapFS{"migrations/0001_subjects.sql": {Data: []byte(`CREATE TABLE subjects (id TEXT PRIMARY KEY, saves INTEGER NOT NULL)`)}}

// relaying runs a relay of s until the test ends or stop is called.
func relaying(t *testing.T, s *store, r Relay) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); s.Relay(ctx, r) }()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

// save changes a subject and stores records about it whose ids are given.
func save(t *testing.T, s *store, subject string, ids ...string) {
	t.Helper()
	var records []Record
	for _, id := range ids {
		records = append(records, Record{ID: id, Key: "profile.updated", Event: []byte(`{"n":"` + id + `"}`)})
	}
	err := ErrUnavailable
	for errors.Is(err, ErrUnavailable) { // SQLite's file is locked by others
		err = s.db.Transaction(t.Context(), func(tx *sql.Tx) error {
			_, err := tx.ExecContext(t.Context(), `INSERT INTO subjects (id, saves) VALUES ($1, 1)
				ON CONFLICT (id) DO UPDATE SET saves = subjects.saves + 1`, subject)
			if err != nil {
				return err
			}
			return s.Add(t.Context(), tx, "profile:"+subject, records...)
		})
		if err != nil {
			err = s.db.Explain(err)
		}
	}
	if err != nil {
		t.Error(err)
	}
	if len(records) > 0 {
		s.Wake()
	}
}

// limit is how long a test waits for an event before it fails.
const limit = time.Minute

func receive[T any](t *testing.T, what string, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(limit):
		t.Fatalf("waited in vain for %s", what)
		panic("unreachable")
	}
}

// into publishes to ch.
func into(ch chan<- Record) func(context.Context, Record) error {
	return func(_ context.Context, r Record) error { ch <- r; return nil }
}

// rows counts what is in the outbox.
func rows(t *testing.T, p *store) (n int) {
	t.Helper()
	if err := p.db.QueryRowContext(t.Context(), `SELECT count(*) FROM outbox`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// Records are published at once, complete, and then deleted.
func TestOutbox(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, url string) {
		p, got := mustOpen(t, url), make(chan Record, 10)
		save(t, p, "1", "before the relay")
		stop := relaying(t, p, Relay{Publish: into(got), Poll: time.Hour})
		if r := receive(t, "what was there before the relay", got); r.ID != "before the relay" || r.Key != "profile.updated" || string(r.Event) != `{"n":"before the relay"}` {
			t.Errorf("got %+v", r)
		}
		save(t, p, "1", "a", "b") // Wake, since the relay polls only once an hour
		save(t, p, "1", "c")
		save(t, p, "1")
		for _, want := range []string{"a", "b", "c"} {
			if r := receive(t, "what was saved", got); r.ID != want {
				t.Errorf("got %s, want %s", r.ID, want)
			}
		}
		eventually(t, "the table is empty", func() bool { return rows(t, p) == 0 })
		stop()
		if len(got) > 0 {
			t.Errorf("got %+v as well", <-got)
		}
	})
}

// Relays of several processes share the work: each record once, those of a
// profile in order.
func TestRelaysAtOnce(t *testing.T) {
	const relays, writers, each = 3, 5, 40
	databasetest.Each(t, func(t *testing.T, url string) {
		got := make(chan Record, 2*writers*each)
		var stops []func()
		for range relays {
			// Quicker than they are woken, so that all of them have something to do.
			stops = append(stops, relaying(t, mustOpen(t, url), Relay{Publish: into(got), Batch: 7, Poll: time.Millisecond, Lease: time.Minute, Report: func(err error) {
				if !errors.Is(err, ErrUnavailable) { // SQLite's lock may be held by another for long
					t.Error(err)
				}
			}}))
		}
		var all sync.WaitGroup
		for w := range writers {
			p := mustOpen(t, url)
			all.Go(func() {
				for n := range each {
					profile := fmt.Sprint((w + n) % writers) // every writer writes every profile
					save(t, p, profile, fmt.Sprintf("%s/%d/%04d", profile, w, n))
				}
			})
		}
		all.Wait()
		seen := map[string]bool{}
		last := map[string]string{} // by profile and writer
		for range writers * each {
			r := receive(t, "a record", got)
			if seen[r.ID] {
				t.Errorf("%s came twice", r.ID)
			}
			seen[r.ID] = true
			line := r.ID[:strings.LastIndex(r.ID, "/")]
			if r.ID < last[line] {
				t.Errorf("%s came after %s", r.ID, last[line])
			}
			last[line] = r.ID
		}
		for _, stop := range stops {
			stop()
		}
		if len(got) > 0 {
			t.Errorf("%d came twice", len(got))
		}
	})
}

// Two relays that find the same records do not both get them.
func TestClaimsSeeEachOther(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, url string) {
		p := mustOpen(t, url)
		save(t, p, "1", "a", "b")
		o := p.Outbox
		first, err := o.find(t.Context(), 1)
		if err != nil || len(first) != 1 {
			t.Fatalf("find: got %v, %v; want one", first, err)
		}
		both, err := o.find(t.Context(), 2)
		if err != nil || len(both) != 2 {
			t.Fatalf("find: got %v, %v; want two", both, err)
		}
		for _, c := range []struct {
			found []any
			want  int
		}{{first, 1}, {both, 0}, {first, 0}} {
			if b, err := o.take(t.Context(), c.found, time.Minute); err != nil || len(b.records) != c.want {
				t.Errorf("take %v: got %d records, %v; want %d", c.found, len(b.records), err, c.want)
			}
		}
	})
}

// A record that cannot be published is parked, one that fails waits with those
// of its profile, however many they are, and all others go on.
func TestPoison(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, url string) {
		p, got := mustOpen(t, url), make(chan Record, 100)
		var mended atomic.Bool
		reports := make(chan error, 1000)
		save(t, p, "1", "broken", "after broken")
		save(t, p, "2", "failing")
		for n := range 10 {
			save(t, p, "2", fmt.Sprint("after failing ", n))
		}
		save(t, p, "3", "good")
		relaying(t, p, Relay{Batch: 3, Poll: 10 * time.Millisecond, Report: func(err error) { reports <- err }, Publish: func(ctx context.Context, r Record) error {
			switch {
			case r.ID == "broken":
				return fmt.Errorf("too large: %w", ErrRejected)
			case r.ID == "failing" && !mended.Load():
				return errors.New("no queue")
			}
			return into(got)(ctx, r)
		}})
		ids := []string{receive(t, "a record", got).ID, receive(t, "a record", got).ID}
		slices.Sort(ids)
		if want := []string{"after broken", "good"}; !slices.Equal(ids, want) {
			t.Errorf("got %q, want %q", ids, want)
		}
		save(t, p, "3", "later")
		if r := receive(t, "what came later", got); r.ID != "later" {
			t.Errorf("got %s, want later", r.ID)
		}
		for said := ""; !strings.Contains(said, `"failing", attempt 2`); {
			said = receive(t, "a report of the second attempt", reports).Error()
		}
		mended.Store(true)
		for _, want := range []string{"failing", "after failing 0", "after failing 1"} {
			if r := receive(t, "what had waited", got); r.ID != want {
				t.Errorf("got %s, want %s", r.ID, want)
			}
		}
		for range 8 {
			receive(t, "what had waited", got)
		}
		eventually(t, "only the parked one is left", func() bool { return rows(t, p) == 1 })
		var id, problem string
		if err := p.db.QueryRow(`SELECT id, error FROM outbox WHERE parked`).Scan(&id, &problem); err != nil || id != "broken" || !strings.Contains(problem, "too large") {
			t.Errorf("parked: got %q with %q, %v", id, problem, err)
		}
		// What the documentation says to do once it can be published.
		if _, err := p.db.Exec(`UPDATE outbox SET parked = FALSE, event = '{}', id = 'mended' WHERE id = 'broken'`); err != nil {
			t.Fatal(err)
		}
		if r := receive(t, "the mended one", got); r.ID != "mended" {
			t.Errorf("got %s, want mended", r.ID)
		}
	})
}

// While nothing can be published, records wait; no attempt is counted.
func TestNothingCanBePublished(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, url string) {
		p, got, down := mustOpen(t, url), make(chan Record, 100), atomic.Bool{}
		down.Store(true)
		reports := make(chan error, 1000)
		for n := range 20 {
			save(t, p, fmt.Sprint(n%7), fmt.Sprint(n))
		}
		relaying(t, p, Relay{Poll: 10 * time.Millisecond, Report: func(err error) { reports <- err }, Publish: func(ctx context.Context, r Record) error {
			if down.Load() {
				return fmt.Errorf("no connection: %w", ErrUnavailable)
			}
			return into(got)(ctx, r)
		}})
		for range 3 {
			if err := receive(t, "a report", reports); !errors.Is(err, ErrUnavailable) {
				t.Errorf("got %v, want ErrUnavailable", err)
			}
		}
		var attempts int
		if err := p.db.QueryRow(`SELECT sum(attempts) FROM outbox`).Scan(&attempts); err != nil || attempts != 0 || rows(t, p) != 20 {
			t.Errorf("got %d attempts, %v; want none, and everything still there", attempts, err)
		}
		down.Store(false)
		for range 20 {
			receive(t, "what had waited", got)
		}
		eventually(t, "the table is empty", func() bool { return rows(t, p) == 0 })
	})
}

// What a dead relay had claimed is published by another after the lease.
func TestDeadRelay(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, url string) {
		dead, p, got := mustOpen(t, url), mustOpen(t, url), make(chan Record, 10)
		save(t, p, "1", "a", "b")
		began := time.Now()
		held, err := dead.claim(t.Context(), 1, 2*time.Second)
		if err != nil || len(held.records) != 1 || held.records[0].ID != "a" {
			t.Fatalf("claim: got %+v, %v; want a", held, err)
		}
		save(t, p, "1", "c")
		save(t, p, "2", "of another profile")
		relaying(t, p, Relay{Publish: into(got), Poll: 10 * time.Millisecond})
		var order []string
		for range 4 {
			r := receive(t, "a record", got)
			if r.ID == "of another profile" {
				continue
			}
			order = append(order, r.ID)
			if waited := time.Since(began); waited < 1990*time.Millisecond {
				t.Errorf("%s came after %v, want the lease of 2s respected", r.ID, waited)
			}
		}
		if want := []string{"a", "b", "c"}; !slices.Equal(order, want) {
			t.Errorf("got %q, want %q", order, want)
		}
		// If the first relay was only slow, what it does now changes nothing.
		held.records[0].outcome = published
		save(t, p, "3", "d")
		if err := dead.settle(t.Context(), held); err != nil {
			t.Error(err)
		}
		if r := receive(t, "a record", got); r.ID != "d" {
			t.Errorf("got %s, want d", r.ID)
		}
	})
}

// What was stored before a relay is told to stop goes out.
func TestRelayStops(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, url string) {
		p, got := mustOpen(t, url), make(chan Record, 1000)
		stop := relaying(t, p, Relay{Publish: into(got), Batch: 10, Poll: time.Hour})
		for n := range 55 {
			save(t, p, fmt.Sprint(n), fmt.Sprint(n))
		}
		stop()
		if len(got) != 55 || rows(t, p) != 0 {
			t.Errorf("%d of 55 went out, %d are left", len(got), rows(t, p))
		}
	})
}

// A broker that does not confirm a record does not delay the stop for long.
func TestRelayStopsWithoutAConfirmation(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, url string) {
		p, got, stuck := mustOpen(t, url), make(chan Record, 1), make(chan bool, 1)
		save(t, p, "1", "a")
		save(t, p, "2", "b")
		stop := relaying(t, p, Relay{Lease: time.Minute, Publish: func(ctx context.Context, r Record) error {
			select {
			case got <- r:
				return nil
			default:
			}
			stuck <- true
			<-ctx.Done()
			return ctx.Err()
		}})
		receive(t, "the one that finds no room", stuck)
		began := time.Now()
		stop()
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("the relay stopped after %v, want %v", took, stopTimeout)
		}
		if n := rows(t, p); n != 1 {
			t.Errorf("%d records are left, want the one that was not confirmed", n)
		}
	})
}
