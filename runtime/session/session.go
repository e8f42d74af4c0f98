// Package session stores what functions remember of an HTTP client between its calls.
// The library scs handles tokens, their hashes and lifetimes; this package merges
// changes that are made at the same time. It knows neither cookies nor functions.
//
// A session is one record under the hash of its token, so that a reader of the store
// cannot take over a session. A change reads the record, applies what one function
// has changed, and writes the record only if it was not changed meanwhile; otherwise
// it starts again. Reading a session extends its idle time.
package session

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/alexedwards/scs/v2"
	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/session/store"
)

// Config configures Sessions. Zero values mean the default in the comment.
type Config struct {
	Namespace string        // prefix of all keys, so that several systems can share a store; "rabbet"
	Idle      time.Duration // a session ends after this time without use, at least 1 s; 1 h
	Lifetime  time.Duration // a session ends this long after it began or was renewed, at least Idle; 24 h
	Timeout   time.Duration // of loading or saving a session; 1 s
	Log       *zap.Logger   // no logs
}

// Sessions loads and saves sessions. It is safe for concurrent use.
type Sessions struct {
	timeout time.Duration
	store   store.Store
	prefix  string             // of keys
	scs     scs.SessionManager // each attempt copies it, with a store of its own
	log     *zap.Logger
}

var namespaces = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`)

// New returns the sessions in s. Close closes s.
func New(s store.Store, cfg Config) (*Sessions, error) {
	cfg = Config{
		Namespace: cmp.Or(cfg.Namespace, "rabbet"),
		Idle:      cmp.Or(cfg.Idle, time.Hour), Lifetime: cmp.Or(cfg.Lifetime, 24*time.Hour),
		Timeout: cmp.Or(cfg.Timeout, time.Second), Log: cmp.Or(cfg.Log, zap.NewNop()),
	}
	switch {
	case !namespaces.MatchString(cfg.Namespace):
		return nil, fmt.Errorf("namespace %q: choose 1 to 64 letters, digits, dots, hyphens and underscores", cfg.Namespace)
	case cfg.Idle < time.Second || cfg.Lifetime < cfg.Idle:
		return nil, fmt.Errorf("sessions with an idle time of %v and a lifetime of %v: choose an idle time of a second or more, and a lifetime that is no shorter", cfg.Idle, cfg.Lifetime)
	}
	return &Sessions{
		timeout: cfg.Timeout, store: s, prefix: cfg.Namespace + ":session:", log: cfg.Log,
		// Not by scs.New, which starts a goroutine for a store that is not used here.
		scs: scs.SessionManager{IdleTimeout: cfg.Idle, Lifetime: cfg.Lifetime, Codec: codec{}, HashTokenInStore: true},
	}, nil
}

// Close closes the store.
func (s *Sessions) Close() error { return s.store.Close() }

// Load returns the values of the session with that token as a JSON object, and
// whether there is one. An error is an error of the store.
func (s *Sessions) Load(ctx context.Context, token string) (values []byte, found bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	a := s.attempt()
	session, found, err := a.load(ctx, token)
	if err != nil {
		return nil, false, fmt.Errorf("load a session: %w", err)
	}
	kept := map[string]any{}
	for _, name := range a.scs.Keys(session) {
		kept[name] = a.scs.Get(session, name)
	}
	values, err = json.Marshal(kept)
	return values, found, err
}

// Save applies the change to the session with that token, which was found when the
// function that made the change was called; "" for none. It returns the token of the
// client from now on, and when it expires at the latest: the same token, another one,
// or "" for no session.
//
// A session that has ended meanwhile, by a logout or a renewal, is not restored, and
// the change is dropped: calls from before a login must not reach what the login
// protects. A change that itself renews or destroys the session is applied, with only
// the values that it sets.
//
// The error is a *contract.Error if the session would be too large, otherwise an
// error of the store, after which the change may or may not be stored.
func (s *Sessions) Save(ctx context.Context, token string, change contract.SessionChange) (next string, until time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	for {
		next, until, err = s.attempt().merge(ctx, token, change)
		if !errors.Is(err, errConflict) {
			break
		}
		if ctx.Err() != nil {
			err = ctx.Err()
			break
		}
	}
	if err != nil {
		return "", time.Time{}, fmt.Errorf("save a session: %w", err)
	}
	return next, until, nil
}
