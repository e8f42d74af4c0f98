package devstate

import (
	"context"
	"fmt"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/app/internal/config"
	"github.com/rabbet-fn/rabbet/runtime/faas"
	"github.com/rabbet-fn/rabbet/runtime/inbox/store"
)

// RemoteInbox is the inbox of the 'rabbet dev' that bus reaches: events that were
// handled before the functions were reloaded are known there.
func RemoteInbox(bus faas.Bus) store.Store { return remoteInbox{bus} }

type remoteInbox struct{ bus faas.Bus }

// DataLossRisk is unknown: 'rabbet dev' is for development.
func (remoteInbox) DataLossRisk(context.Context) string { return "" }

func (remoteInbox) Close() error { return nil }

func (r remoteInbox) Claim(ctx context.Context, key, token string, lease time.Duration) (store.Claim, error) {
	return r.do(ctx, inboxStep{stepClaim, key, token, lease})
}

func (r remoteInbox) Complete(ctx context.Context, key string, keep time.Duration) error {
	_, err := r.do(ctx, inboxStep{Step: stepComplete, Key: key, For: keep})
	return err
}

func (r remoteInbox) Release(ctx context.Context, key, token string) error {
	_, err := r.do(ctx, inboxStep{Step: stepRelease, Key: key, Token: token})
	return err
}

func (r remoteInbox) do(ctx context.Context, step inboxStep) (store.Claim, error) {
	claim, err := faas.Call[store.Claim](ctx, r.bus, step)
	if err != nil {
		return claim, fmt.Errorf("%s at 'rabbet dev': %w", step.Step, err)
	}
	return claim, nil
}

// inboxStep is the message that asks 'rabbet dev' to do one step with its inbox.
type inboxStep struct {
	Step  string        `json:"step"`
	Key   string        `json:"key"`
	Token string        `json:"token,omitempty"`
	For   time.Duration `json:"for,omitempty"`
}

func (inboxStep) RoutingKey() string { return config.DevKeys + "inbox" }

// The steps.
const (
	stepClaim    = "claim"
	stepComplete = "complete"
	stepRelease  = "release"
)

// do carries out in on store.
func (in inboxStep) do(ctx context.Context, keys store.Store) (store.Claim, error) {
	switch in.Step {
	case stepClaim:
		return keys.Claim(ctx, in.Key, in.Token, in.For)
	case stepComplete:
		return store.Claim{}, keys.Complete(ctx, in.Key, in.For)
	case stepRelease:
		return store.Claim{}, keys.Release(ctx, in.Key, in.Token)
	}
	return store.Claim{}, faas.Invalid("there is no step %q", in.Step)
}
