package stores

import (
	"context"
	"errors"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/rabbet-fn/rabbet/events"
	"github.com/rabbet-fn/rabbet/runtime/database/databasetest"
	"github.com/rabbet-fn/rabbet/runtime/outbox"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func mustOpen(t *testing.T, url string) *Profiles {
	t.Helper()
	p, err := Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func TestProfiles(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, at string) {
		p := mustOpen(t, at)
		if _, err := p.ByID(t.Context(), "9"); !errors.Is(err, ErrNotFound) {
			t.Errorf("a profile that was not saved: got %v, want ErrNotFound", err)
		}
		for _, want := range []events.Profile{
			{ID: "9", Name: "Ada", Email: "ada@example.com"},
			{ID: "9", Name: "Ada Lovelace", Email: "ada@example.org"},
			{ID: "'; DROP TABLE profiles; --", Name: `"Bobby" ünïcode 🙂`, Email: "b@example.com"},
		} {
			if err := p.Save(t.Context(), want); err != nil {
				t.Fatal(err)
			}
			if got, err := p.ByID(t.Context(), want.ID); err != nil || got != want {
				t.Errorf("got %+v, %v; want %+v", got, err, want)
			}
		}
		p.Close()
		again := mustOpen(t, at)
		if got, err := again.ByID(t.Context(), "9"); err != nil || got.Name != "Ada Lovelace" {
			t.Errorf("after opening it again: got %+v, %v", got, err)
		}
		if err := again.Ping(t.Context()); err != nil {
			t.Errorf("Ping: %v", err)
		}
	})
}

func TestSeedKeepsWhatIsThere(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, at string) {
		p := mustOpen(t, at)
		mine := events.Profile{ID: "42", Name: "Mine", Email: "mine@example.com"}
		if err := p.Save(t.Context(), mine); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := p.Seed(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := p.ByID(t.Context(), "42"); err != nil || got != mine {
			t.Errorf("got %+v, %v; want %+v", got, err, mine)
		}
		if got, err := p.ByID(t.Context(), "1"); err != nil || got != samples[0] {
			t.Errorf("got %+v, %v; want %+v", got, err, samples[0])
		}
	})
}

func TestSaveIsAllOrNothing(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, url string) {
		p := mustOpen(t, url)
		if _, err := p.db.Exec(`ALTER TABLE outbox RENAME TO elsewhere`); err != nil {
			t.Fatal(err)
		}
		err := p.Save(t.Context(), events.Profile{ID: "1", Name: "n", Email: "e"}, outbox.Record{ID: "a"})
		if err == nil {
			t.Fatal("got nil without an outbox")
		}
		if _, err := p.ByID(t.Context(), "1"); !errors.Is(err, ErrNotFound) {
			t.Errorf("the profile without its event: got %v, want ErrNotFound", err)
		}
	})
}

func TestLockedDatabase(t *testing.T) {
	at := databasetest.SQLite(t)
	p, other := mustOpen(t, at), mustOpen(t, at)
	tx, err := other.db.BeginTx(t.Context(), nil) // immediate: it has the lock from here on
	if err != nil {
		t.Fatal(err)
	}
	err = p.Save(t.Context(), events.Profile{ID: "1"})
	if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "another process") {
		t.Errorf("while it is locked: got %v, want ErrUnavailable and why", err)
	}
	if _, err := p.ByID(t.Context(), "1"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a read beside a writer: got %v, want ErrNotFound", err)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if err := p.Save(t.Context(), events.Profile{ID: "1"}); err != nil {
		t.Errorf("after the lock is gone: %v", err)
	}
}

func TestCanceledContext(t *testing.T) {
	p := mustOpen(t, databasetest.SQLite(t))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Save(ctx, events.Profile{ID: "1"}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}
