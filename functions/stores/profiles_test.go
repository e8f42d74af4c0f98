package stores

import (
	"context"
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

	"github.com/rabbet-fn/rabbet/events"
	"github.com/rabbet-fn/rabbet/runtime/database/databasetest"
	"github.com/rabbet-fn/rabbet/runtime/outbox"
)

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

// A connection that breaks, at whatever moment, is nothing that the same call in
// a moment would not mend.
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
				profile := events.Profile{ID: fmt.Sprint(i), Name: "n", Email: "e"}
				err := p.Save(t.Context(), profile)
				if err == nil {
					_, err = p.ByID(t.Context(), profile.ID)
				}
				if err == nil {
					if worked.Add(1)%20 == 0 {
						way.breakAll()
					}
					continue
				}
				if lost.Add(1); !errors.Is(err, ErrUnavailable) {
					t.Errorf("got %v, want ErrUnavailable", err)
				}
			}
		})
	}
	all.Wait()
}

// breakable is a way to a server whose connections can be broken.
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
				p, err := Open(t.Context(), at)
				if err != nil {
					t.Error(err)
					return
				}
				defer p.Close()
				for j := range 10 {
					if err := p.Save(t.Context(), events.Profile{ID: fmt.Sprint(i, "-", j), Name: "n", Email: "e"}); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		var rows int
		if err := mustOpen(t, at).db.QueryRow(`SELECT count(*) FROM profiles`).Scan(&rows); err != nil || rows != 80 {
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

func TestOpenRefuses(t *testing.T) {
	noDatabase := filepath.Join(t.TempDir(), "no.db")
	if err := os.WriteFile(noDatabase, []byte(strings.Repeat("this is a text, not a database. ", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ url, want string }{
		{"", "sqlite://path"},
		{"profiles.db", "has no scheme"},
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
		p, err := Open(t.Context(), tt.url)
		if err == nil {
			p.Close()
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
	if _, err := Open(t.Context(), u.String()); err == nil || !strings.Contains(err.Error(), "create it first") {
		t.Errorf("got %v, want it to say what to do", err)
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
