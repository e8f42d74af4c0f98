package ingress

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/problem"
)

// Sessions keeps what functions remember of a client from call to call, where
// every ingress finds it.
type Sessions interface {
	// Load returns the values of the session with that token as a JSON object,
	// and whether there is one. It fails if that cannot be determined now.
	Load(ctx context.Context, token string) (values []byte, found bool, err error)
	// Save makes the change to the session with that token, "" for none. It
	// returns the token of the client from then on, and until when that lasts;
	// "" for no session. An *contract.Error is for the client; any other error says
	// that the change may have been made or not.
	Save(ctx context.Context, token string, change contract.SessionChange) (next string, until time.Time, err error)
}

// callInSession makes the call with the client's session, and stores what the
// function changed in it.
func (i *Ingress) callInSession(ctx context.Context, c *call) (result, *problem.Problem) {
	if i.cfg.Sessions == nil {
		return result{}, problem.New(http.StatusServiceUnavailable, "the function needs its client's session, and this ingress keeps none")
	}
	token := i.cfg.Cookie.tokenOf(c.httpRequest)
	loading, cancel := context.WithDeadline(ctx, c.request.Deadline)
	values, found, err := i.cfg.Sessions.Load(loading, token)
	cancel()
	if err != nil {
		return result{}, sessionNotLoaded(err)
	}
	request := c.request
	request.Session = values
	began := time.Now()
	reply, err := i.cfg.Broker.Call(ctx, request)
	if err != nil {
		return result{}, c.problemOf(err)
	}
	res := result{body: reply.Body, run: reply.Run}
	if reply.Session != nil {
		if !found {
			token = ""
		}
		// The function has run. The change counts even if the client has left.
		var p *problem.Problem
		if res.cookie, p = i.saveSession(context.WithoutCancel(ctx), c, token, reply.Session); p != nil {
			p.Attempt, p.Retryable = 1, c.function.Idempotent
			return result{}, p
		}
	}
	res.took = time.Since(began)
	return res, nil
}

// saveSession makes the change to the session with that token. It returns the
// Set-Cookie field that tells the client its new token, if it has one; "" if not.
// A session that is merely used needs none: the store knows when it ends.
func (i *Ingress) saveSession(ctx context.Context, c *call, token string, encoded []byte) (cookie string, p *problem.Problem) {
	var change contract.SessionChange
	if err := json.Unmarshal(encoded, &change); err != nil {
		return "", problem.FromError(&contract.Error{Code: contract.CodeLost, Detail: "what the function changed in the session cannot be read", Cause: err}, false)
	}
	next, until, err := i.cfg.Sessions.Save(ctx, token, change)
	if err != nil {
		return "", sessionNotSaved(err)
	}
	switch {
	case next != "" && next != token:
		return i.cfg.Cookie.set(next, time.Until(until)), nil
	case next == "" && change.Destroy && i.cfg.Cookie.tokenOf(c.httpRequest) != "":
		return i.cfg.Cookie.set("", 0), nil
	}
	return "", nil
}

// sessionNotLoaded returns the problem of a call whose session could not be
// loaded. To continue with an empty session would log the client out.
func sessionNotLoaded(err error) *problem.Problem {
	p := problem.New(http.StatusServiceUnavailable, "the client's session cannot be loaded at present")
	p.Retryable, p.RetryAfter, p.Cause = true, time.Second, err
	return p
}

// sessionNotSaved returns the problem of a call that ran, and whose session could
// not be saved.
func sessionNotSaved(err error) *problem.Problem {
	if own, ok := errors.AsType[*contract.Error](err); ok {
		return problem.FromError(own, false)
	}
	p := problem.New(http.StatusInternalServerError, "the function has run, but what it changed in the session may be lost")
	p.Executed, p.Cause = contract.ExecutedYes, err
	return p
}
