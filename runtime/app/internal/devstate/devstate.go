// Package devstate gives the workers that 'rabbet dev' starts, and the commands,
// what only the process of 'rabbet dev' has in its memory: cached results, and
// which events were handled. They reach it by calling functions that the process
// hosts.
package devstate

import (
	"context"

	"github.com/rabbet-fn/rabbet/runtime/app/internal/config"
	"github.com/rabbet-fn/rabbet/runtime/cache"
	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/faas"
	"github.com/rabbet-fn/rabbet/runtime/inbox/store"
)

// State is what the process of 'rabbet dev' keeps.
type State struct {
	Results   Results
	Directory *contract.Directory
	Inbox     store.Store // nil when the broker is not the embedded one
}

// Functions returns the functions by which other processes reach s.
func Functions(s *State) []contract.Function {
	var set faas.Set[State]
	faas.OnRequest(&set, "dev-drop-results", func(ctx context.Context, s *State, in dropResults) (struct{}, error) {
		return struct{}{}, s.Results.Invalidate(ctx, in.Tags...)
	}, faas.Idempotent())
	faas.OnRequest(&set, "dev-show-result", func(ctx context.Context, s *State, in showResult) (cache.Stored, error) {
		f, ok := s.Directory.Find(in.Function)
		if !ok {
			return cache.Stored{}, faas.NotFound("there is no function %q", in.Function)
		}
		stored, err := s.Results.Inspect(ctx, &f.Descriptor, contract.Call{Body: []byte(in.Message)})
		if err != nil {
			return cache.Stored{}, faas.Invalid("%v", err)
		}
		return stored, nil
	}, faas.ReadOnly())
	if s.Inbox != nil {
		faas.OnRequest(&set, "dev-inbox", func(ctx context.Context, s *State, in inboxStep) (store.Claim, error) {
			return in.do(ctx, s.Inbox)
		}, faas.Idempotent())
	}
	fns, err := set.With(s)
	if err != nil {
		panic(err) // the registrations above are wrong
	}
	return fns
}

// dropResults is the message that asks 'rabbet dev' to invalidate results.
type dropResults struct {
	Tags []string `json:"tags"`
}

func (dropResults) RoutingKey() string { return config.DevKeys + "results.drop" }

// showResult is the message that asks 'rabbet dev' what it has stored.
type showResult struct {
	Function string `json:"function"`
	Message  string `json:"message"`
}

func (showResult) RoutingKey() string { return config.DevKeys + "results.show" }
