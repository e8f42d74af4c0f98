package faas

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

func function(handle Handler) *contract.Function {
	return &contract.Function{Descriptor: contract.Descriptor{Name: "f", Timeout: time.Minute}, Handle: handle}
}

// runWithSession runs fn as a function that uses its client's session, which
// has these values, and returns what becomes of it.
func runWithSession(t *testing.T, values []byte, fn func(*ClientSession) error) (change string, err error) {
	t.Helper()
	f := function(func(ctx context.Context, _ *Event) ([]byte, error) { return []byte("{}"), fn(Session(ctx)) })
	f.Session = true
	reply, err := f.Run(t.Context(), &Event{Session: values}, time.Time{})
	return string(reply.Session), err
}

func mustSet(t *testing.T, s *ClientSession, name string, value any) {
	t.Helper()
	if err := s.Set(name, value); err != nil {
		t.Errorf("set %s: %v", name, err)
	}
}

func TestSessionChangesOnly(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(*ClientSession)
		want string
	}{
		"nothing":                  {func(*ClientSession) {}, ``},
		"what is not there goes":   {func(s *ClientSession) { s.Delete("other") }, ``},
		"set":                      {func(s *ClientSession) { mustSet(t, s, "cart", []int{1, 2}) }, `{"set":{"cart":[1,2]}}`},
		"set again":                {func(s *ClientSession) { mustSet(t, s, "n", 1); mustSet(t, s, "n", 2) }, `{"set":{"n":2}}`},
		"delete":                   {func(s *ClientSession) { s.Delete("user") }, `{"delete":["user"]}`},
		"delete twice":             {func(s *ClientSession) { s.Delete("user"); s.Delete("user") }, `{"delete":["user"]}`},
		"delete, then set":         {func(s *ClientSession) { s.Delete("user"); mustSet(t, s, "user", "eve") }, `{"set":{"user":"eve"}}`},
		"set, then delete":         {func(s *ClientSession) { mustSet(t, s, "user", "eve"); s.Delete("user") }, `{"delete":["user"]}`},
		"set and delete a new one": {func(s *ClientSession) { mustSet(t, s, "new", 1); s.Delete("new") }, ``},
		"renew":                    {func(s *ClientSession) { s.Renew() }, `{"renew":true}`},
		"destroy":                  {func(s *ClientSession) { mustSet(t, s, "a", 1); s.Renew(); s.Destroy() }, `{"destroy":true}`},
		"set after destroy":        {func(s *ClientSession) { s.Destroy(); mustSet(t, s, "notice", "bye") }, `{"set":{"notice":"bye"},"destroy":true}`},
		"delete after destroy":     {func(s *ClientSession) { s.Destroy(); mustSet(t, s, "user", 1); s.Delete("user") }, `{"destroy":true}`},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := runWithSession(t, []byte(`{"user":"ada"}`), func(s *ClientSession) error { c.do(s); return nil })
			if err != nil || got != c.want {
				t.Errorf("got %s, %v; want %s", got, err, c.want)
			}
		})
	}
}

func TestSessionIsReadAsItIsNow(t *testing.T) {
	s := NewSession(map[string]any{"user": "ada", "cart": map[string]int{"tea": 2}})
	var user string
	if found, err := s.Get("user", &user); !found || err != nil || user != "ada" {
		t.Errorf("user: got %q, %v, %v", user, found, err)
	}
	var cart map[string]int
	if found, err := s.Get("cart", &cart); !found || err != nil || cart["tea"] != 2 {
		t.Errorf("cart: got %v, %v, %v", cart, found, err)
	}
	if found, err := s.Get("user", &cart); !found || err == nil || !strings.Contains(err.Error(), `"user"`) {
		t.Errorf("a value of another type: got %v, %v; want an error that names it", found, err)
	}
	if found, err := s.Get("absent", &user); found || err != nil || user != "ada" {
		t.Errorf("an absent value: got %q, %v, %v", user, found, err)
	}
	mustSet(t, s, "user", "eve")
	if _, _ = s.Get("user", &user); user != "eve" {
		t.Errorf("after set: got %q", user)
	}
	s.Destroy()
	if found, _ := s.Get("user", &user); found {
		t.Error("a value outlived the session")
	}
}

func TestSessionOfAFailedRunStaysAsItIs(t *testing.T) {
	got, err := runWithSession(t, []byte(`{}`), func(s *ClientSession) error {
		mustSet(t, s, "user", "ada")
		s.Renew()
		return NotFound("no")
	})
	if got != "" || !errors.Is(err, ErrNotFound) {
		t.Errorf("got %s, %v; want no change", got, err)
	}
}

func TestSessionIsBounded(t *testing.T) {
	s := NewSession(nil)
	mustSet(t, s, "a", strings.Repeat("x", contract.MaxSession-len(`{"a":"","b":1}`)))
	mustSet(t, s, "b", 1)
	err := s.Set("b", 10)
	if err == nil || !strings.Contains(err.Error(), "16385 bytes") {
		t.Errorf("one byte too many: got %v, want an error that says how many", err)
	}
	var b int
	if _, _ = s.Get("b", &b); b != 1 || string(s.Change().Set["b"]) != "1" {
		t.Errorf("after a refused set: got %d, want what was there", b)
	}
	if s.Set("f", func() {}) == nil {
		t.Error("a value that JSON cannot encode: got no error")
	}
}

// A function can be called without HTTP, and then nobody keeps its session.
func TestRunWithoutASession(t *testing.T) {
	got, err := runWithSession(t, nil, func(s *ClientSession) error {
		if found, err := s.Get("user", new(string)); found || err != nil {
			t.Errorf("get: got %v, %v", found, err)
		}
		s.Delete("user")
		s.Renew()
		s.Destroy()
		return s.Set("user", "ada")
	})
	if got != "" || err == nil || !strings.Contains(err.Error(), "over HTTP") {
		t.Errorf("got %s, %v; want set to say why it cannot", got, err)
	}
}

func TestSessionThatCannotBeReadRefusesTheRun(t *testing.T) {
	_, err := runWithSession(t, []byte(`[]`), func(*ClientSession) error { t.Error("it ran"); return nil })
	if e := AsError(err); e.Code != contract.CodeMalformed || e.Executed != ExecutedNo {
		t.Errorf("got %v with executed %q", e, e.Executed)
	}
}

func TestSessionIsForWhoUsesIt(t *testing.T) {
	f := function(func(ctx context.Context, _ *Event) ([]byte, error) { Session(ctx); return nil, nil })
	_, err := f.Run(t.Context(), &Event{Session: []byte(`{}`)}, time.Time{})
	if e := AsError(err); e.Code != contract.CodePanic || !strings.Contains(e.Error(), "faas.UsesSession") {
		t.Errorf("got %v, want a panic that says what to do", err)
	}
	var set Set[deps]
	OnRequest(&set, "one", onGet, UsesSession())
	fns, err := set.With(&deps{})
	if err != nil || !fns[0].Session {
		t.Errorf("got %v, %v; want a descriptor that says it", fns, err)
	}
	text, err := json.Marshal(fns[0].Descriptor)
	if err != nil || !strings.Contains(string(text), `"session":true`) {
		t.Errorf("announced as %s, %v", text, err)
	}
}
