package session

import (
	"context"
	"errors"
	"time"

	"github.com/alexedwards/scs/v2"
	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/session/store"
)

// errConflict says that the session was changed after an attempt has read it. The next
// attempt starts from the new state.
var errConflict = errors.New("the session changed meanwhile")

// attempt reads a session, or tries to change it once. It uses scs with a store that
// remembers what was read, so that nothing else is overwritten.
type attempt struct {
	scs   scs.SessionManager
	store *attemptStore
	log   *zap.Logger
}

func (s *Sessions) attempt() *attempt {
	a := &attempt{scs: s.scs, store: &attemptStore{store: s.store, prefix: s.prefix, idle: s.scs.IdleTimeout}, log: s.log}
	a.scs.Store = a.store
	return a
}

// load returns ctx with the session of token for scs, and whether it exists. If not,
// the session is a new one.
func (a *attempt) load(ctx context.Context, token string) (session context.Context, found bool, err error) {
	session, err = a.scs.Load(ctx, token)
	switch {
	case errors.Is(err, errInvalidRecord): // an error would lock out the client until the record expires
		a.log.Error("cannot decode a session: its client starts a new one", zap.Error(err))
	case err != nil:
		return nil, false, err
	case a.scs.Token(session) != "" && time.Now().Before(a.scs.Deadline(session)):
		return session, true, nil
	}
	session, err = a.scs.Load(ctx, "")
	return session, false, err
}

// merge applies the change, or returns errConflict; see Sessions.Save.
func (a *attempt) merge(ctx context.Context, token string, change contract.SessionChange) (next string, until time.Time, err error) {
	session, found, err := a.load(ctx, token)
	if err != nil {
		return "", time.Time{}, err
	}
	renewed := change.Renew && found && !change.Destroy
	switch {
	case renewed:
		// scs.RenewToken would delete the old session before the new one is stored.
		if session, err = a.copy(ctx, session); err != nil {
			return "", time.Time{}, err
		}
	case change.Destroy && found:
		if err := a.scs.Destroy(session); err != nil {
			return "", time.Time{}, err
		}
	case !found && token != "" && !change.Renew && !change.Destroy:
		a.log.Info("dropped a change: the session ended while the function ran")
		return token, time.Time{}, nil
	}
	for name, value := range change.Set {
		a.scs.Put(session, name, value)
	}
	for _, name := range change.Delete {
		a.scs.Remove(session, name)
	}
	if len(a.scs.Keys(session)) == 0 && (!found || change.Destroy) {
		return "", time.Time{}, nil // there are no values to store
	}
	if next, _, err = a.scs.Commit(session); err != nil {
		return "", time.Time{}, err
	}
	if renewed {
		err = a.store.replaceRead(ctx)
	}
	return next, a.scs.Deadline(session), err
}

// copy returns a new session with the values of another.
func (a *attempt) copy(ctx, from context.Context) (context.Context, error) {
	to, err := a.scs.Load(ctx, "")
	if err != nil {
		return nil, err
	}
	for _, name := range a.scs.Keys(from) {
		a.scs.Put(to, name, a.scs.Get(from, name))
	}
	return to, nil
}

// attemptStore is the store of scs during one attempt. Its keys are hashes of tokens.
type attemptStore struct {
	scs.Store // nil: scs uses the methods with a ctx
	store     store.Store
	prefix    string        // of keys
	idle      time.Duration // a record that is read expires after this

	readKey, writtenKey string
	read                []byte // nil: there was no record
}

var _ scs.CtxStore = (*attemptStore)(nil)

// FindCtx reads a record and remembers it.
func (s *attemptStore) FindCtx(ctx context.Context, key string) ([]byte, bool, error) {
	b, err := s.store.Find(ctx, s.prefix+key, s.idle)
	s.readKey, s.read = key, b
	return b, b != nil, err
}

// CommitCtx writes a record if it has not changed since it was read.
func (s *attemptStore) CommitCtx(ctx context.Context, key string, b []byte, expiry time.Time) error {
	var old []byte
	if key == s.readKey {
		old = s.read
	}
	swapped, err := s.store.Swap(ctx, s.prefix+key, old, b, time.Until(expiry))
	if err == nil && !swapped {
		err = errConflict
	}
	s.writtenKey = key
	return err
}

// DeleteCtx deletes a record, even if it was changed.
func (s *attemptStore) DeleteCtx(ctx context.Context, key string) error {
	return s.store.Delete(ctx, s.prefix+key)
}

// replaceRead deletes the record that was read, because the one that was written
// replaces it. If the former was changed meanwhile, the latter is deleted instead.
func (s *attemptStore) replaceRead(ctx context.Context) error {
	deleted, err := s.store.DeleteIf(ctx, s.prefix+s.readKey, s.read)
	if err != nil || deleted {
		return err
	}
	if err := s.store.Delete(ctx, s.prefix+s.writtenKey); err != nil {
		return err
	}
	return errConflict
}
