package session

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/session/memory"
	"github.com/rabbet-fn/rabbet/runtime/session/store"
)

func TestSessionLife(t *testing.T) {
	stores(t, func(t *testing.T, s, other *Sessions) {
		wantValues(t, s, "", "")
		wantValues(t, s, "guessed", "")
		token := save(t, s, "", setting("cart", `[1,2]`))
		wantValues(t, other, token, `{"cart":[1,2]}`)

		if next := save(t, other, token, contract.SessionChange{Set: setting("user", `"ada"`).Set, Delete: []string{"cart"}}); next != token {
			t.Errorf("a change gave it the token %s, want the same", next)
		}
		wantValues(t, s, token, `{"user":"ada"}`)

		renewed := save(t, s, token, with(renew, setting("role", `"admin"`)))
		if renewed == token || renewed == "" {
			t.Errorf("renewed: the token is %q, want another one", renewed)
		}
		wantValues(t, other, token, "")
		wantValues(t, other, renewed, `{"role":"admin","user":"ada"}`)

		if next := save(t, other, renewed, destroy); next != "" {
			t.Errorf("destroyed: got the token %s", next)
		}
		wantValues(t, s, renewed, "")
	})
}

func TestSessionBeginsWithAValue(t *testing.T) {
	stores(t, func(t *testing.T, s, _ *Sessions) {
		for _, change := range []contract.SessionChange{renew, destroy, {Delete: []string{"a"}}} {
			if next := save(t, s, "", change); next != "" {
				t.Errorf("%+v began a session", change)
			}
		}
		token := save(t, s, "", setting("a", `1`))
		after := save(t, s, token, with(destroy, setting("notice", `"bye"`)))
		if after == token {
			t.Error("what was set after the end went on under the old token")
		}
		wantValues(t, s, token, "")
		wantValues(t, s, after, `{"notice":"bye"}`)
		save(t, s, after, contract.SessionChange{Delete: []string{"notice"}})
		wantValues(t, s, after, `{}`)
	})
}

// Of calls that run at the same moment, over two ingresses, none undoes
// another, and however many renew it, one session is left.
func TestConcurrentChangesAllSurvive(t *testing.T) {
	stores(t, func(t *testing.T, s, other *Sessions) {
		token := save(t, s, "", setting("begun", `true`))
		var want strings.Builder
		want.WriteString(`{"begun":true`)
		var calls sync.WaitGroup
		start := make(chan struct{})
		const n = 24
		for i := range n {
			fmt.Fprintf(&want, `,"key-%02d":%d`, i, i)
			calls.Go(func() {
				<-start
				save(t, []*Sessions{s, other}[i%2], token, setting(fmt.Sprintf("key-%02d", i), fmt.Sprint(i)))
			})
		}
		close(start)
		calls.Wait()
		wantValues(t, s, token, want.String()+"}")
	})
}

func TestConcurrentRenewalsLeaveOneSession(t *testing.T) {
	stores(t, func(t *testing.T, s, other *Sessions) {
		records := recordKeys(s, other)
		token := save(t, s, "", setting("user", `"guest"`))
		tokens := make(chan string, 16)
		var calls sync.WaitGroup
		for i := range cap(tokens) {
			calls.Go(func() { tokens <- save(t, []*Sessions{s, other}[i%2], token, renew) })
		}
		calls.Wait()
		close(tokens)
		alive := map[string]bool{}
		for next := range tokens {
			if _, found, _ := s.Load(t.Context(), next); found {
				alive[next] = true
			}
		}
		if len(alive) != 1 {
			t.Errorf("%d sessions came of one, want 1", len(alive))
		}
		wantValues(t, s, token, "")
		if n := len(records.keys); n != 1 {
			t.Errorf("%d records are left, want 1: no client has the tokens of the others", n)
		}
	})
}

// interposed is a store that calls then before the first write to a record.
type interposed struct {
	store.Store
	once sync.Once
	then func()
}

func (i *interposed) Swap(ctx context.Context, key string, old, value []byte, ttl time.Duration) (bool, error) {
	i.once.Do(i.then)
	return i.Store.Swap(ctx, key, old, value, ttl)
}

func (i *interposed) DeleteIf(ctx context.Context, key string, old []byte) (bool, error) {
	i.once.Do(i.then)
	return i.Store.DeleteIf(ctx, key, old)
}

// What one call does to a session while another is about to write.
func TestOvertaken(t *testing.T) {
	set := setting("mine", `1`)
	for name, c := range map[string]struct {
		change, other contract.SessionChange
		old, next     string // what the sessions with the old and the new token hold; "" for none
	}{
		"set, set":         {set, setting("theirs", `2`), `{"before":0,"mine":1,"theirs":2}`, ""},
		"set, same key":    {set, setting("mine", `2`), `{"before":0,"mine":1}`, ""},
		"set, renewed":     {set, renew, ``, ``}, // the login is out of its reach
		"set, destroyed":   {set, destroy, ``, ``},
		"renew, set":       {with(renew, set), setting("theirs", `2`), ``, `{"before":0,"mine":1,"theirs":2}`},
		"renew, renewed":   {with(renew, set), renew, ``, `{"mine":1}`}, // the login holds, with what it set
		"renew, destroyed": {with(renew, set), destroy, ``, `{"mine":1}`},
		"end, set":         {with(destroy, set), setting("theirs", `2`), ``, `{"mine":1}`},
	} {
		t.Run(name, func(t *testing.T) {
			stores(t, func(t *testing.T, s, other *Sessions) {
				token := save(t, s, "", setting("before", `0`))
				overtaken := *s
				overtaken.store = &interposed{Store: s.store, then: func() { save(t, other, token, c.other) }}
				next := save(t, &overtaken, token, c.change)
				wantValues(t, s, token, c.old)
				if c.next == "" && next != token {
					t.Errorf("got the token %q, want the one that was there: the client's cookie must stay", next)
				}
				if c.next != "" {
					wantValues(t, s, next, c.next)
				}
			})
		})
	}
}

func TestSessionIsBounded(t *testing.T) {
	stores(t, func(t *testing.T, s, _ *Sessions) {
		half := `"` + strings.Repeat("x", contract.MaxSession/2) + `"`
		token := save(t, s, "", setting("a", half))
		_, _, err := s.Save(t.Context(), token, setting("b", half))
		if e, ok := errors.AsType[*contract.Error](err); !ok || !strings.Contains(e.Detail, "16384") {
			t.Errorf("got %v, want an error that says the bound", err)
		}
		wantValues(t, s, token, `{"a":`+half+`}`)
	})
}

func TestSessionsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSessions(t, &memory.Store{}, "test", func(c *Config) { c.Idle, c.Lifetime = time.Hour, 3*time.Hour })
		begin := func() string { return save(t, s, "", setting("a", `1`)) }

		unused := begin()
		time.Sleep(time.Hour)
		wantValues(t, s, unused, "")

		used := begin()
		for range 5 {
			time.Sleep(35 * time.Minute)
			wantValues(t, s, used, `{"a":1}`)
		}
		next, until, err := s.Save(t.Context(), used, renew)
		if left := time.Until(until); err != nil || left != 3*time.Hour {
			t.Errorf("renewed: it has %v left, %v; want a whole lifetime", left, err)
		}
		for range 5 {
			time.Sleep(35 * time.Minute)
			wantValues(t, s, next, `{"a":1}`)
		}
		time.Sleep(10 * time.Minute) // used or not
		wantValues(t, s, next, "")
	})
}

func TestNewSaysWhatToMend(t *testing.T) {
	for name, c := range map[string]struct {
		cfg  Config
		want string
	}{
		"namespace": {Config{Namespace: "a b"}, "letters"},
		"lifetime":  {Config{Idle: time.Hour, Lifetime: time.Minute}, "no shorter"},
		"idle":      {Config{Idle: time.Millisecond}, "a second or more"},
	} {
		if _, err := New(&memory.Store{}, c.cfg); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q in it", name, err, c.want)
		}
	}
}
