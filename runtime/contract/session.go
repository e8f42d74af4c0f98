package contract

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"
)

// MaxSession is the largest size of the values of a session, in bytes, as one JSON
// object.
const MaxSession = 16 << 10

type sessionKey struct{}

// WithSession returns a copy of ctx that carries s.
func WithSession(ctx context.Context, s *ClientSession) context.Context {
	return context.WithValue(ctx, sessionKey{}, s)
}

// SessionOf returns the session that ctx carries, if any.
func SessionOf(ctx context.Context) (s *ClientSession, found bool) {
	s, found = ctx.Value(sessionKey{}).(*ClientSession)
	return s, found
}

// ClientSession is the session of a client as one run of a function sees it, see
// faas.Session. It is safe for concurrent use.
type ClientSession struct {
	absent bool // the call has no session

	mu     sync.Mutex
	before map[string]json.RawMessage // as it came with the call; nil after Destroy
	values map[string]json.RawMessage // as it is now
	change SessionChange
}

// SessionChange is the change that a function made to a session. It travels as JSON.
type SessionChange struct {
	Set     map[string]json.RawMessage `json:"set,omitempty"`
	Delete  []string                   `json:"delete,omitempty"`
	Renew   bool                       `json:"renew,omitempty"`   // replace its token
	Destroy bool                       `json:"destroy,omitempty"` // end it; with Set, begin a new one
}

// OpenSession returns a session with these values, a JSON object. A session from nil,
// for a call without one, is empty and cannot be changed.
func OpenSession(values []byte) (*ClientSession, error) {
	s := &ClientSession{absent: values == nil}
	if !s.absent {
		if err := json.Unmarshal(values, &s.before); err != nil {
			return nil, &Error{Code: CodeMalformed, Detail: "the session that came with the call is not a JSON object", Cause: err, Executed: ExecutedNo}
		}
	}
	s.values = copied(s.before)
	return s, nil
}

// Get decodes the value with this name into value, as json.Unmarshal does, and
// reports whether there is one. It fails if the value has another type.
func (s *ClientSession) Get(name string, value any) (found bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	raw, found := s.values[name]
	if !found {
		return false, nil
	}
	if err := json.Unmarshal(raw, value); err != nil {
		return true, fmt.Errorf("session value %q: %w", name, err)
	}
	return true, nil
}

// Set stores a value under a name, as JSON. The first value begins the session of
// the client. Set fails without effect if the value cannot be encoded, if the
// session would exceed MaxSession, or if the call has no session.
func (s *ClientSession) Set(name string, value any) error {
	raw, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("session value %q: %w", name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.absent {
		return Errorf(CodePermanent, "session value %q: the session cannot be changed: only a call over HTTP comes with one", name)
	}
	next := copied(s.values)
	next[name] = raw
	if err := CheckSession(next); err != nil {
		return err
	}
	s.values = next
	if s.change.Set == nil {
		s.change.Set = map[string]json.RawMessage{}
	}
	s.change.Set[name] = raw
	s.change.Delete = slices.DeleteFunc(s.change.Delete, func(deleted string) bool { return deleted == name })
	return nil
}

// Delete removes the value with this name, if there is one.
func (s *ClientSession) Delete(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, found := s.values[name]; !found {
		return
	}
	delete(s.values, name)
	delete(s.change.Set, name)
	if _, stored := s.before[name]; stored {
		s.change.Delete = append(s.change.Delete, name)
	}
}

// Renew gives the session a new token and a new lifetime, and invalidates the
// present token. Call it whenever the rights of the client change, above all at
// login: otherwise an attacker who planted the token before, or knows it, is logged
// in as well (session fixation).
func (s *ClientSession) Renew() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.change.Renew = !s.absent
}

// Destroy ends the session and deletes its values, as at logout. Set begins a new
// session afterwards, with another token.
func (s *ClientSession) Destroy() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before, s.values = nil, map[string]json.RawMessage{}
	s.change = SessionChange{Destroy: !s.absent}
}

// Change returns the changes made so far.
func (s *ClientSession) Change() SessionChange {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.change
	c.Set, c.Delete = maps.Clone(c.Set), slices.Clone(c.Delete)
	return c
}

// encodeChange returns Change as JSON; nil without changes.
func (s *ClientSession) encodeChange() ([]byte, error) {
	c := s.Change()
	if len(c.Set) == 0 && len(c.Delete) == 0 && !c.Renew && !c.Destroy {
		return nil, nil
	}
	return json.Marshal(c)
}

// CheckSession fails if values exceed MaxSession bytes as JSON.
func CheckSession(values map[string]json.RawMessage) error {
	b, err := json.Marshal(values)
	if err != nil {
		return fmt.Errorf("encode the session: %w", err)
	}
	if len(b) > MaxSession {
		return Errorf(CodePermanent, "the session would have %d bytes: it holds %d at the most; keep what is large elsewhere and its id here", len(b), MaxSession)
	}
	return nil
}

// copied returns a copy that is never nil.
func copied(values map[string]json.RawMessage) map[string]json.RawMessage {
	c := make(map[string]json.RawMessage, len(values)+1)
	maps.Copy(c, values)
	return c
}
