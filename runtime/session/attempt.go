package session

import (
	"context"
	"errors"
	"time"

	"github.com/alexedwards/scs/v2"
	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// errOvertaken says that somebody else changed the session between the reading
// and the writing of an attempt: the next one starts from what is there then.
var errOvertaken = errors.New("the session changed meanwhile")

// attempt is one look at a session, or one try to change it: scs over a store
// that remembers what was read, so that nothing else is overwritten.
type attempt struct {
	scs   scs.SessionManager
	store *attemptStore
	log   *zap.Logger
}

func (s *Sessions) attempt() *attempt {
	a := &attempt{scs: s.scs, store: &attemptStore{records: s.records}, log: s.log}
	a.scs.Store = a.store
	return a
}

// load returns ctx with the session of token for scs in it, and whether there
// is one; a fresh one otherwise.
func (a *attempt) load(ctx context.Context, token string) (session context.Context, found bool, err error) {
	session, err = a.scs.Load(ctx, token)
	switch {
	case errors.Is(err, errUnreadable): // to fail would lock its client out until the record is gone
		a.log.Error("a session cannot be read: its client begins another one", zap.Error(err))
	case err != nil:
		return nil, false, err
	case a.scs.Token(session) != "" && time.Now().Before(a.scs.Deadline(session)):
		return session, true, nil
	}
	session, err = a.scs.Load(ctx, "")
	return session, false, err
}

// merge makes the change, or returns errOvertaken. See Sessions.Save.
func (a *attempt) merge(ctx context.Context, token string, change contract.SessionChange) (next string, until time.Time, err error) {
	session, found, err := a.load(ctx, token)
	if err != nil {
		return "", time.Time{}, err
	}
	renewed := change.Renew && found && !change.Destroy
	switch {
	case renewed:
		// Not by scs.RenewToken: it ends the old session before there is a new one.
		if session, err = a.copy(ctx, session); err != nil {
			return "", time.Time{}, err
		}
	case change.Destroy && found:
		if err := a.scs.Destroy(session); err != nil {
			return "", time.Time{}, err
		}
	case !found && token != "" && !change.Renew && !change.Destroy:
		a.log.Info("a session ended while a function changed it: the change is dropped")
		return token, time.Time{}, nil
	}
	for name, value := range change.Set {
		a.scs.Put(session, name, value)
	}
	for _, name := range change.Delete {
		a.scs.Remove(session, name)
	}
	if len(a.scs.Keys(session)) == 0 && (!found || change.Destroy) {
		return "", time.Time{}, nil // there is nothing to begin one for
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

// attemptStore is the store that scs sees during one attempt. Keys are hashes
// of tokens.
type attemptStore struct {
	scs.Store // nil: scs prefers the methods with a ctx, below
	records   records

	readKey, writtenKey string
	read                []byte // nil: there was nothing
}

var _ scs.CtxStore = (*attemptStore)(nil)

// FindCtx reads a record and remembers it.
func (s *attemptStore) FindCtx(ctx context.Context, key string) ([]byte, bool, error) {
	b, err := s.records.find(ctx, key)
	s.readKey, s.read = key, b
	return b, b != nil, err
}

// CommitCtx writes a record if it still is as it was read.
func (s *attemptStore) CommitCtx(ctx context.Context, key string, b []byte, expiry time.Time) error {
	var old []byte
	if key == s.readKey {
		old = s.read
	}
	swapped, err := s.records.swap(ctx, key, old, b, time.Until(expiry))
	if err == nil && !swapped {
		err = errOvertaken
	}
	s.writtenKey = key
	return err
}

// DeleteCtx removes a record, whatever it is now.
func (s *attemptStore) DeleteCtx(ctx context.Context, key string) error {
	return s.records.remove(ctx, key)
}

// replaceRead removes the record that was read, if it still is what it was:
// the one that was written takes its place. If it is not, the one that was
// written goes again.
func (s *attemptStore) replaceRead(ctx context.Context) error {
	replaced, err := s.records.removeIf(ctx, s.readKey, s.read)
	if err != nil || replaced {
		return err
	}
	if err := s.records.remove(ctx, s.writtenKey); err != nil {
		return err
	}
	return errOvertaken
}
