package database_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"

	"go.uber.org/goleak"

	"github.com/rabbet-fn/rabbet/runtime/database"
	"github.com/rabbet-fn/rabbet/runtime/database/databasetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// store is a database with one table, as a product has it.
type store struct{ db *database.DB }

var errNoRow = errors.New("no row")

func open(ctx context.Context, url string) (*store, error) {
	db, err := database.Open(url)
	if err != nil {
		return nil, err
	}
	table := fstest.MapFS{"migrations/0001_things.sql": {Data: []byte(`CREATE TABLE things (id TEXT PRIMARY KEY, saves INTEGER NOT NULL)`)}}
	if err := db.Migrate(ctx, table); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &store{db}, nil
}

func mustOpen(t *testing.T, url string) *store {
	t.Helper()
	s, err := open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.db.Close() })
	return s
}

func (s *store) save(ctx context.Context, id string) error {
	err := s.db.Transaction(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO things (id, saves) VALUES ($1, 1)
			ON CONFLICT (id) DO UPDATE SET saves = things.saves + 1`, id)
		return err
	})
	if err != nil {
		return s.db.Explain(err)
	}
	return nil
}

func (s *store) find(ctx context.Context, id string) error {
	var saves int
	err := s.db.QueryRowContext(ctx, `SELECT saves FROM things WHERE id = $1`, id).Scan(&saves)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return errNoRow
	case err != nil:
		return s.db.Explain(err)
	}
	return nil
}

// After a connection breaks, at any moment, the same call succeeds later: the error is
// ErrUnavailable.
func TestBrokenConnections(t *testing.T) {
	u, err := url.Parse(databasetest.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	way := newBreakable(t, u.Host)
	u.Host = way.address()
	p := mustOpen(t, u.String())
	var worked, lost atomic.Int64
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for lost.Load() < 50 {
				id := fmt.Sprint(i)
				err := p.save(t.Context(), id)
				if err == nil {
					err = p.find(t.Context(), id)
				}
				if err == nil {
					if worked.Add(1)%20 == 0 {
						way.breakAll()
					}
					continue
				}
				if lost.Add(1); !errors.Is(err, database.ErrUnavailable) {
					t.Errorf("got %v, want ErrUnavailable", err)
				}
			}
		})
	}
	all.Wait()
}

// breakable forwards connections to a server, and can break them.
type breakable struct {
	listener net.Listener
	mu       sync.Mutex
	conns    []net.Conn
}

func newBreakable(t *testing.T, to string) *breakable {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &breakable{listener: listener}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", to)
			if err != nil {
				client.Close()
				continue
			}
			b.mu.Lock()
			b.conns = append(b.conns, client, server)
			b.mu.Unlock()
			running.Go(func() { io.Copy(server, client); server.Close() })
			running.Go(func() { io.Copy(client, server); client.Close() })
		}
	})
	t.Cleanup(func() { listener.Close(); b.breakAll(); running.Wait() })
	return b
}

func (b *breakable) address() string { return b.listener.Addr().String() }

func (b *breakable) breakAll() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.conns {
		c.Close()
	}
	b.conns = nil
}

// Each Open has connections of its own, as separate processes have.
func TestOpenAtOnce(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, at string) {
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				p, err := open(t.Context(), at)
				if err != nil {
					t.Error(err)
					return
				}
				defer p.db.Close()
				for j := range 10 {
					if err := p.save(t.Context(), fmt.Sprint(i, "-", j)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		var rows int
		if err := mustOpen(t, at).db.QueryRow(`SELECT count(*) FROM things`).Scan(&rows); err != nil || rows != 80 {
			t.Errorf("got %d rows, %v; want 80", rows, err)
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
	err = p.save(t.Context(), "1")
	if !errors.Is(err, database.ErrUnavailable) || !strings.Contains(err.Error(), "another process") {
		t.Errorf("while it is locked: got %v, want ErrUnavailable and why", err)
	}
	if err := p.find(t.Context(), "1"); !errors.Is(err, errNoRow) {
		t.Errorf("a read beside a writer: got %v, want no row", err)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if err := p.save(t.Context(), "1"); err != nil {
		t.Errorf("after the lock is gone: %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	noDatabase := filepath.Join(t.TempDir(), "no.db")
	if err := os.WriteFile(noDatabase, []byte(strings.Repeat("this is a text, not a database. ", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ url, want string }{
		{"", "sqlite://path"},
		{"things.db", "has no scheme"},
		{"mysql://root:secret@localhost/x", `scheme "mysql"`},
		{"sqlite://", "name a file"},
		{"sqlite://:memory:", "name a file"},
		{"sqlite://x.db?mode=ro", "name a file"},
		{"sqlite:///dev/null/x.db", "make its folder"},
		{"sqlite://" + noDatabase, "move it away"},
		{"sqlite://" + t.TempDir(), "check that this user may write"},
		{"postgres://me:secret@localhost:port/x", "cannot be read"},
		{"postgres://me:se%zzcret@localhost/x", "cannot be read"},
		{"postgres://me:secret@127.0.0.1:1/x?sslmode=disable", "check host and port"},
	} {
		p, err := open(t.Context(), tt.url)
		if err == nil {
			p.db.Close()
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Open(%q): got %v, want it to say %q", tt.url, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("Open(%q) shows the password: %v", tt.url, err)
		}
	}
}

func TestPostgresWithoutDatabase(t *testing.T) {
	u, err := url.Parse(databasetest.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/there_is_none"
	if _, err := open(t.Context(), u.String()); err == nil || !strings.Contains(err.Error(), "create it first") {
		t.Errorf("got %v, want it to say what to do", err)
	}
}

func TestCanceledContext(t *testing.T) {
	p := mustOpen(t, databasetest.SQLite(t))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.save(ctx, "1"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}
