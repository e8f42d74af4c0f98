package ingress

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap/zaptest/observer"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/faas"
)

// fakeSessions has one session, "secret", and says of a change what next is.
type fakeSessions struct {
	down    bool  // nothing can be loaded
	saveErr error // nothing can be saved
	next    string
	saved   []contract.SessionChange
	token   string // that the last change was for
}

func (s *fakeSessions) Load(_ context.Context, token string) ([]byte, bool, error) {
	if s.down {
		return nil, false, errors.New("connection refused")
	}
	if token != "secret" {
		return []byte(`{}`), false, nil
	}
	return []byte(`{"user":"ada"}`), true, nil
}

func (s *fakeSessions) Save(ctx context.Context, token string, change contract.SessionChange) (string, time.Time, error) {
	if ctx.Err() != nil {
		return "", time.Time{}, ctx.Err()
	}
	s.saved, s.token = append(s.saved, change), token
	return s.next, time.Now().Add(time.Hour + 500*time.Millisecond), s.saveErr
}

// inSession is an ingress with one function that uses the session, GET and
// POST /visit/{id}; it answers with change.
func inSession(s *fakeSessions, change string, configure ...func(*Config)) (*fakeBroker, *Ingress) {
	b := newBroker()
	get, post := request("visit", "GET /visit/{id}"), request("change", "POST /visit/{id}")
	get.Session, post.Session = true, true
	get.Cache = &contract.CachePolicy{TTL: time.Minute} // of a foreign worker: ours refuse it
	b.announce("w2", get, post)
	b.call = func(context.Context, contract.Call) (contract.Reply, error) {
		reply := contract.Reply{Body: []byte(`{}`)}
		if change != "" {
			reply.Session = []byte(change)
		}
		return reply, nil
	}
	cfg := Config{Broker: b, Sessions: s, Results: &fakeResults{}}
	for _, c := range configure {
		c(&cfg)
	}
	return b, New(cfg)
}

const secret = "Cookie: other=1; __Host-rabbet-session=secret"

func TestSessionReachesTheFunction(t *testing.T) {
	b, h := inSession(&fakeSessions{}, "")
	for fields, want := range map[string]string{
		secret: `{"user":"ada"}`, "Cookie: __Host-rabbet-session=guessed": `{}`, "Accept: */*": `{}`, "Cookie: session=secret": `{}`,
	} {
		r := do(h, "GET", "/visit/1", "", fields)
		if got := string(b.lastCall(t).Session); r.StatusCode != 200 || got != want {
			t.Errorf("%s: %d, the session %s, want %s", fields, r.StatusCode, got, want)
		}
		if r.Header.Get("Cache-Control") != "no-store" || r.Header.Get("Cache-Status") != "" || r.Header["Set-Cookie"] != nil {
			t.Errorf("%s: %v, want no-store and neither the cache nor a cookie: nothing changed", fields, r.Header)
		}
	}
	do(h, "GET", "/profiles/42", "", secret)
	if got := b.lastCall(t).Session; got != nil {
		t.Errorf("a function that uses no session got %s", got)
	}
}

func TestSessionCookie(t *testing.T) {
	secure := func(*Config) {}
	insecure := func(c *Config) { c.Cookie.Insecure = true }
	named := func(c *Config) { c.Cookie.Name = "sid" }
	for name, c := range map[string]struct {
		configure func(*Config)
		cookie    string // in the request
		change    string
		next      string
		want      string
	}{
		"first":         {secure, "", `{"set":{"a":1}}`, "new", "__Host-rabbet-session=new; Path=/; Max-Age=3600; HttpOnly; Secure; SameSite=Lax"},
		"insecure":      {insecure, "", `{"set":{"a":1}}`, "new", "rabbet-session=new; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax"},
		"named":         {named, "", `{"set":{"a":1}}`, "new", "sid=new; Path=/; Max-Age=3600; HttpOnly; Secure; SameSite=Lax"},
		"same token":    {secure, secret, `{"set":{"a":1}}`, "secret", ""},
		"renewed":       {secure, secret, `{"renew":true}`, "new", "__Host-rabbet-session=new; Path=/; Max-Age=3600; HttpOnly; Secure; SameSite=Lax"},
		"destroyed":     {secure, secret, `{"destroy":true}`, "", "__Host-rabbet-session=; Path=/; Max-Age=0; HttpOnly; Secure; SameSite=Lax"},
		"stale, logout": {secure, "Cookie: __Host-rabbet-session=old", `{"destroy":true}`, "", "__Host-rabbet-session=; Path=/; Max-Age=0; HttpOnly; Secure; SameSite=Lax"},
		"never had one": {secure, "", `{"destroy":true}`, "", ""},
		"none to begin": {secure, "Cookie: __Host-rabbet-session=old", `{"renew":true}`, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := &fakeSessions{next: c.next}
			_, h := inSession(s, c.change, c.configure)
			var fields []string
			if c.cookie != "" {
				fields = []string{c.cookie}
			}
			r := do(h, "POST", "/visit/1", "", fields...)
			if got := r.Header.Get("Set-Cookie"); r.StatusCode != 200 || got != c.want {
				t.Errorf("%d with Set-Cookie %q, want %q", r.StatusCode, got, c.want)
			}
			if r.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("Cache-Control %q, want no-store", r.Header.Get("Cache-Control"))
			}
			want := ""
			if c.cookie == secret {
				want = "secret"
			}
			if len(s.saved) != 1 || s.token != want {
				t.Errorf("%d changes, the last for %q; want one for %q: what was not found is not changed", len(s.saved), s.token, want)
			}
		})
	}
}

func TestSessionsDown(t *testing.T) {
	b, h := inSession(&fakeSessions{down: true}, "")
	r := do(h, "GET", "/visit/1", "", secret)
	p := readProblem(t, r)
	if p.Status != 503 || p.Executed != contract.ExecutedNo || !p.Retryable || p.Attempt != 0 || r.Header.Get("Retry-After") == "" || b.called() != 0 {
		t.Errorf("%+v, %v after %d calls, want a 503 before any", p, r.Header, b.called())
	}
	if r.Header["Set-Cookie"] != nil {
		t.Errorf("Set-Cookie %q: the client was logged out", r.Header["Set-Cookie"])
	}
	if r := do(h, "GET", "/profiles/42", "", secret); r.StatusCode != 200 {
		t.Errorf("a function that uses no session: %d", r.StatusCode)
	}
}

func TestSessionThatIsNotKept(t *testing.T) {
	for name, c := range map[string]struct {
		err       error
		change    string
		method    string
		status    int
		retryable bool
		detail    string
	}{
		"store":         {errors.New("connection reset"), `{"renew":true}`, "POST", 500, false, "may be lost"},
		"store, safe":   {errors.New("connection reset"), `{"renew":true}`, "GET", 500, true, "may be lost"},
		"too large":     {faas.Permanent("the session would have 20000 bytes"), `{"renew":true}`, "POST", 500, false, "20000"},
		"not our reply": {nil, `rubbish`, "POST", 502, false, "cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			_, h := inSession(&fakeSessions{saveErr: c.err, next: "new"}, c.change)
			r := do(h, c.method, "/visit/1", "", secret)
			p := readProblem(t, r)
			if p.Status != c.status || p.Executed != contract.ExecutedYes || p.Attempt != 1 || p.Retryable != c.retryable || !strings.Contains(p.Detail, c.detail) {
				t.Errorf("%+v", p)
			}
			if r.Header["Set-Cookie"] != nil {
				t.Errorf("Set-Cookie %q of a session that was not kept", r.Header["Set-Cookie"])
			}
		})
	}
}

func TestSessionOfAFailedCallStaysAsItIs(t *testing.T) {
	s := &fakeSessions{}
	b, h := inSession(s, "")
	b.call = func(context.Context, contract.Call) (contract.Reply, error) {
		return contract.Reply{Session: []byte(`{"destroy":true}`)}, faas.NotFound("no")
	}
	r := do(h, "GET", "/visit/1", "", secret)
	if r.StatusCode != 404 || len(s.saved) != 0 || r.Header["Set-Cookie"] != nil {
		t.Errorf("%d, %v, saved %v", r.StatusCode, r.Header, s.saved)
	}
}

// The client that left has its session changed all the same: the function ran.
func TestSessionIsKeptForAClientThatLeft(t *testing.T) {
	s := &fakeSessions{next: "new"}
	b, h := inSession(s, `{"destroy":true}`)
	ctx, leave := context.WithCancel(t.Context())
	reply := b.call
	b.call = func(ctx context.Context, r contract.Call) (contract.Reply, error) {
		leave()
		return reply(ctx, r)
	}
	r, err := http.NewRequestWithContext(ctx, "GET", "/visit/1", nil)
	if err != nil {
		t.Fatal(err)
	}
	h.ServeHTTP(&sink{header: http.Header{}}, r)
	if len(s.saved) != 1 || !s.saved[0].Destroy {
		t.Errorf("saved %+v, want the logout", s.saved)
	}
}

func TestIngressWithoutSessionsRefuses(t *testing.T) {
	b, h := inSession(nil, "", func(c *Config) { c.Sessions = nil })
	if p := readProblem(t, do(h, "GET", "/visit/1", "")); p.Status != 503 || p.Executed != contract.ExecutedNo || b.called() != 0 {
		t.Errorf("%+v", p)
	}
}

func TestNoTokenInTheLog(t *testing.T) {
	for _, s := range []*fakeSessions{{next: "fresh-token"}, {down: true}, {saveErr: errors.New("gone")}} {
		log, lines := observed()
		_, h := inSession(s, `{"renew":true}`, func(c *Config) { c.Log = log })
		do(h, "GET", "/visit/1", "", secret)
		if lines.Len() == 0 {
			t.Fatal("nothing was logged: the test would find no token in it")
		}
		for _, line := range lines.All() {
			if text := lineText(line); strings.Contains(text, "secret") || strings.Contains(text, "fresh-token") {
				t.Errorf("a token is in the log: %s", text)
			}
		}
	}
}

func lineText(line observer.LoggedEntry) string {
	var b strings.Builder
	b.WriteString(line.Message)
	for _, field := range line.Context {
		b.WriteString(" " + field.Key + "=" + field.String)
		if err, ok := field.Interface.(error); ok {
			b.WriteString(err.Error())
		}
	}
	return b.String()
}

func TestOpenAPIOfAFunctionWithSession(t *testing.T) {
	_, h := inSession(&fakeSessions{}, "", func(c *Config) { c.Cookie.Insecure = true })
	var doc struct {
		Paths map[string]struct {
			Get struct{ Security []map[string][]string }
		}
		Components struct {
			SecuritySchemes map[string]struct{ Type, In, Name string }
		}
	}
	if err := json.Unmarshal([]byte(text(t, do(h, "GET", "/openapi.json", ""))), &doc); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(doc.Components.SecuritySchemes); got != "map[session:{apiKey cookie rabbet-session}]" {
		t.Errorf("security schemes: %s", got)
	}
	if got := fmt.Sprint(doc.Paths["/visit/{id}"].Get.Security); got != "[map[session:[]] map[]]" {
		t.Errorf("with a session: %s", got)
	}
	if got := doc.Paths["/profiles/{id}"].Get.Security; got != nil {
		t.Errorf("without one: %v", got)
	}
}
