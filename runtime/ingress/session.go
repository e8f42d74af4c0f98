package ingress

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// Sessions keeps what functions remember of a client from call to call, where
// every ingress finds it.
type Sessions interface {
	// Load returns the values of the session with that token as a JSON object,
	// and whether there is one. It fails when that cannot be known now.
	Load(ctx context.Context, token string) (values []byte, found bool, err error)
	// Save makes the change to the session with that token, "" for none, and
	// returns the token that the client has from then on, and until when; ""
	// for no session. An *contract.Error is for the client; any other says that
	// the change may have been made or not.
	Save(ctx context.Context, token string, change contract.SessionChange) (next string, until time.Time, err error)
}

// Cookie says how a client keeps the token of its session. It is always
// HttpOnly, SameSite=Lax and for the whole host.
type Cookie struct {
	// Name is "__Host-rabbet-session": with this prefix a browser takes the
	// cookie from this very host only, and over TLS (RFC 6265bis, section
	// 4.1.3). With Insecure, which that excludes, it is "rabbet-session".
	Name string
	// Insecure lets the cookie travel without TLS. It is for development:
	// Safari takes no Secure cookie from http://localhost.
	Insecure bool
}

func (c Cookie) withDefaults() Cookie {
	switch {
	case c.Name == "" && c.Insecure:
		c.Name = "rabbet-session"
	case c.Name == "":
		c.Name = "__Host-rabbet-session"
	}
	return c
}

// callInSession calls f with the session of the client, and keeps what f
// changed in it.
func (x *exchange) callInSession(f *function, status int, request contract.Call) {
	sessions := x.ingress.cfg.Sessions
	if sessions == nil {
		x.fail(refuse(http.StatusServiceUnavailable, "the function needs its client's session, and this ingress keeps none"))
		return
	}
	token := x.sessionToken()
	ctx, cancel := context.WithDeadline(x.context(), request.Deadline)
	values, found, err := sessions.Load(ctx, token)
	cancel()
	if err != nil {
		x.fail(sessionUnknown(err))
		return
	}
	request.Session = values
	began := time.Now()
	x.sent = true
	reply, err := x.ingress.cfg.Broker.Call(x.context(), request)
	if err != nil {
		x.fail(problemOf(err, f.Idempotent))
		return
	}
	if reply.Session != nil {
		if !found {
			token = ""
		}
		// The function has run, and its client may be gone: the change counts all the same.
		if p := x.keepSession(context.WithoutCancel(x.context()), token, reply.Session); p != nil {
			p.Retryable = f.Idempotent
			x.fail(p)
			return
		}
	}
	x.timing(time.Since(began), reply.Run)
	x.reply(status, reply.Body)
}

// sessionToken is what the client sent; "" for none.
func (x *exchange) sessionToken() string {
	c, err := x.request.Cookie(x.ingress.cfg.Cookie.Name)
	if err != nil {
		return ""
	}
	return c.Value
}

// keepSession makes the change, and sets the client's cookie if its token is
// another one from now on.
func (x *exchange) keepSession(ctx context.Context, token string, encoded []byte) *problem {
	var change contract.SessionChange
	if err := json.Unmarshal(encoded, &change); err != nil {
		return problemOf(&contract.Error{Code: contract.CodeLost, Detail: "what the function did to the session cannot be read", Cause: err}, false)
	}
	next, until, err := x.ingress.cfg.Sessions.Save(ctx, token, change)
	if err != nil {
		return sessionNotKept(err)
	}
	switch {
	case next != "" && next != token:
		x.setSession(next, time.Until(until))
	case next == "" && change.Destroy && x.sessionToken() != "":
		x.setSession("", 0)
	}
	return nil
}

// setSession sets the client's cookie, for a time; none removes it. There is
// no need to set it again whenever the session is used: the store knows when
// a session that is not used ends.
func (x *exchange) setSession(token string, lives time.Duration) {
	cookie := x.ingress.cfg.Cookie
	c := http.Cookie{
		Name: cookie.Name, Value: token, Path: "/", MaxAge: int(lives / time.Second),
		Secure: !cookie.Insecure, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	}
	if c.MaxAge <= 0 {
		c.MaxAge = -1 // written as 0
	}
	x.set("Set-Cookie", c.String())
}

// sessionUnknown is the problem of a call whose session could not be loaded.
// To go on with an empty one would log the client out.
func sessionUnknown(err error) *problem {
	p := refuse(http.StatusServiceUnavailable, "the client's session cannot be loaded at present")
	p.Retryable, p.after, p.cause = true, time.Second, err
	return p
}

// sessionNotKept is the problem of a call that ran, and whose session could
// not be saved.
func sessionNotKept(err error) *problem {
	if own, ok := errors.AsType[*contract.Error](err); ok {
		return problemOf(own, false)
	}
	p := refuse(http.StatusInternalServerError, "the function has run, but what it changed in the session may be lost")
	p.Executed, p.cause = contract.ExecutedYes, err
	return p
}
