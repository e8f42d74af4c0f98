package faas

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// ClientSession is the session of one client, as Session returns it: named
// values that a function gets, sets and deletes. It is safe for concurrent use.
type ClientSession = contract.ClientSession

// Session returns the session of the HTTP client that called the function: values
// that the client's calls share, whichever ingress and worker serve them. It panics
// in a function that is not registered with UsesSession.
//
// Changes take effect if the function succeeds, and not at all if it fails. Only
// changed values are stored: functions that run at the same time for one client and
// change different values do not undo each other's changes.
//
// A call that did not come over HTTP has no session; Call does not pass one on. In
// such a run the session is empty and cannot be changed.
func Session(ctx context.Context) *ClientSession {
	s, ok := contract.SessionOf(ctx)
	if !ok {
		panic("faas.Session: there is none: register the function with faas.UsesSession(); a test puts one into ctx with faas.WithSession")
	}
	return s
}

// WithSession returns ctx with s in it, for the test of a function that uses its
// client's session.
func WithSession(ctx context.Context, s *ClientSession) context.Context {
	return contract.WithSession(ctx, s)
}

// NewSession returns a session with these values, for the test of a function.
// It panics on a value that JSON cannot encode.
func NewSession(values map[string]any) *ClientSession {
	b, err := json.Marshal(values)
	if err != nil {
		panic(fmt.Sprintf("faas.NewSession: %v", err))
	}
	s, err := contract.OpenSession(b)
	if err != nil { // never: a map makes an object
		panic(err)
	}
	return s
}
