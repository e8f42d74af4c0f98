package main

import (
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/faas"
	"github.com/rabbet-fn/rabbet/runtime/inbox"
)

// guardOnce lets those of fns that say faas.Once succeed once per key, as far
// as the Redis that c names remembers, or else fallback. close frees it.
func guardOnce(ctx context.Context, c *config, fallback inbox.Store, fns []contract.Function, log *zap.Logger) (_ []contract.Function, close func() error, err error) {
	store, close := fallback, func() error { return nil }
	if c.StateURL != "" {
		shared, err := inbox.OpenRedis(c.StateURL)
		if err != nil {
			return nil, nil, unusable("STATE_URL", c.StateURL, "%v", err)
		}
		if why := shared.Forgetful(ctx); why != "" {
			log.Warn("events may be handled twice: the Redis at "+envPrefix+"STATE_URL forgets", zap.String("why", why))
		}
		store, close = shared, shared.Close
	}
	if store != nil {
		return inbox.New(store, inbox.Config{Namespace: c.Namespace, Keep: c.OnceFor, Log: log}).Guard(fns), close, nil
	}
	for _, f := range fns {
		if f.Once != nil {
			return nil, nil, unusable("STATE_URL", "", "the function %q handles each event once and needs a place to remember: set it to redis://host:6379/0", f.Name)
		}
	}
	return fns, close, nil
}

// inboxStep is the message by which a worker that uses the broker of `rabbet
// dev` asks for its inbox: what a reloaded function has handled is known there.
type inboxStep struct {
	Step  string        `json:"step"`
	Key   string        `json:"key"`
	Token string        `json:"token,omitempty"`
	For   time.Duration `json:"for,omitempty"`
}

func (inboxStep) RoutingKey() string { return devKeys + "inbox" }

// The steps.
const (
	stepClaim    = "claim"
	stepComplete = "complete"
	stepRelease  = "release"
)

// takeStep is what `rabbet dev` does with one.
func takeStep(ctx context.Context, store inbox.Store, in inboxStep) (inbox.Claim, error) {
	switch in.Step {
	case stepClaim:
		return store.Claim(ctx, in.Key, in.Token, in.For)
	case stepComplete:
		return inbox.Claim{}, store.Complete(ctx, in.Key, in.For)
	case stepRelease:
		return inbox.Claim{}, store.Release(ctx, in.Key, in.Token)
	}
	return inbox.Claim{}, faas.Invalid("there is no step %q", in.Step)
}

// remoteInbox is the inbox of the `rabbet dev` behind bus.
type remoteInbox struct{ bus faas.Bus }

func (r remoteInbox) Claim(ctx context.Context, key, token string, lease time.Duration) (inbox.Claim, error) {
	return r.take(ctx, inboxStep{stepClaim, key, token, lease})
}

func (r remoteInbox) Complete(ctx context.Context, key string, keep time.Duration) error {
	_, err := r.take(ctx, inboxStep{Step: stepComplete, Key: key, For: keep})
	return err
}

func (r remoteInbox) Release(ctx context.Context, key, token string) error {
	_, err := r.take(ctx, inboxStep{Step: stepRelease, Key: key, Token: token})
	return err
}

func (r remoteInbox) take(ctx context.Context, step inboxStep) (inbox.Claim, error) {
	claim, err := faas.Call[inbox.Claim](ctx, r.bus, step)
	if err != nil {
		return claim, fmt.Errorf("%s at 'rabbet dev': %w", step.Step, err)
	}
	return claim, nil
}
