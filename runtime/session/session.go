// Package session keeps what functions remember of a client from call to call,
// on Redis or in this process. Tokens, their hashes, lifetimes and the values
// in hand are the work of scs; what this package adds is that changes which
// are made at the same time are merged. It knows neither cookies nor functions.
//
// A session is one record under the hash of its token: nobody who reads the
// store can take a session over. A change reads the record, applies what one
// function changed and writes the record back only if nobody was faster;
// otherwise it starts again. Reading a session keeps it alive.
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
)

// Config says how long sessions live and how they use their store. The zero
// value is useful.
type Config struct {
	Namespace string        // systems with different ones share a store and no session; "rabbet"
	Idle      time.Duration // a session that is not used for so long ends; 1 h
	Lifetime  time.Duration // it ends so long after it began, or was renewed, however much it is used; 24 h
	Timeout   time.Duration // what the store may take to load or save one; 1 s
	Log       *zap.Logger   // nil: silence
}

// Sessions keeps sessions. It is safe for concurrent use.
type Sessions struct {
	timeout time.Duration
	records records
	scs     scs.SessionManager // each attempt copies it, with a store of its own
	log     *zap.Logger
}

var namespaces = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`)

// Open returns the sessions in the store at url: memory:// in this process, or
// Redis 6.2 or later as package redisurl reads it. It does not connect.
func Open(url string, cfg Config) (*Sessions, error) {
	cfg = Config{
		Namespace: cmp.Or(cfg.Namespace, "rabbet"),
		Idle:      cmp.Or(cfg.Idle, time.Hour), Lifetime: cmp.Or(cfg.Lifetime, 24*time.Hour),
		Timeout: cmp.Or(cfg.Timeout, time.Second), Log: cmp.Or(cfg.Log, zap.NewNop()),
	}
	switch {
	case !namespaces.MatchString(cfg.Namespace):
		return nil, fmt.Errorf("namespace %q: choose 1 to 64 letters, digits, dots, hyphens and underscores", cfg.Namespace)
	case cfg.Idle < time.Second || cfg.Lifetime < cfg.Idle:
		return nil, fmt.Errorf("sessions idle for %v and alive for %v: choose a second or more, and a lifetime that is no shorter", cfg.Idle, cfg.Lifetime)
	}
	records, err := openRecords(url, cfg)
	if err != nil {
		return nil, err
	}
	return &Sessions{
		timeout: cfg.Timeout, records: records, log: cfg.Log,
		// Not by scs.New, which starts a goroutine for a store that is not used here.
		scs: scs.SessionManager{IdleTimeout: cfg.Idle, Lifetime: cfg.Lifetime, Codec: codec{}, HashTokenInStore: true},
	}, nil
}

// Close frees the connections.
func (s *Sessions) Close() error { return s.records.close() }

// Load returns the values of the session with that token as a JSON object, and
// whether there is one. An error is the store's: nothing is known then.
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

// Save makes the change to the session with that token, which was found when
// the function that made the change was called; "" for none. It returns the
// token that the client has from then on, and until when at the most: the same
// token, another one, or "" for no session.
//
// A session that has ended meanwhile, by a logout or a renewal, is not brought
// back, and the change to it is dropped: what a login protects is out of reach
// for calls that were made before it. Only a change that itself renews or
// destroys the session goes on, with nothing but the values that it sets.
//
// The error is an *contract.Error if the session would be too large, else the
// store's: then the change may have been made or not.
func (s *Sessions) Save(ctx context.Context, token string, change contract.SessionChange) (next string, until time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	for {
		next, until, err = s.attempt().merge(ctx, token, change)
		if !errors.Is(err, errOvertaken) {
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
