package session

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/faas"
	"github.com/rabbet-fn/rabbet/runtime/ingress"
	"github.com/rabbet-fn/rabbet/runtime/memory"
)

type none struct{}

type login struct {
	Name string `json:"name"`
}

func (login) RoutingKey() string { return "login" }

type logout struct{}

func (logout) RoutingKey() string { return "logout" }

type look struct{}

func (look) RoutingKey() string { return "look" }

type put struct {
	Item string `json:"item"`
}

func (put) RoutingKey() string { return "put" }

// shop is what a product does with sessions: it knows who is logged in, and
// what lies in the cart. A put of two of a kind waits until both are running.
func shop(t *testing.T) []contract.Function {
	t.Helper()
	var set faas.Set[none]
	faas.OnRequest(&set, "login", func(ctx context.Context, _ *none, in login) (struct{}, error) {
		session := faas.Session(ctx)
		session.Renew()
		return struct{}{}, session.Set("user", in.Name)
	}, faas.HTTP("POST /login/{name}"), faas.UsesSession())
	faas.OnRequest(&set, "logout", func(ctx context.Context, _ *none, _ logout) (struct{}, error) {
		faas.Session(ctx).Destroy()
		return struct{}{}, nil
	}, faas.HTTP("POST /logout"), faas.UsesSession())
	faas.OnRequest(&set, "look", func(ctx context.Context, _ *none, _ look) (string, error) {
		user, item := "nobody", false
		session := faas.Session(ctx)
		if _, err := session.Get("user", &user); err != nil {
			return "", err
		}
		for _, name := range []string{"tea", "milk"} {
			if _, err := session.Get(name, &item); err != nil {
				return "", err
			}
			if item {
				user, item = user+" "+name, false
			}
		}
		return user, nil
	}, faas.HTTP("GET /look"), faas.UsesSession())
	both := make(chan struct{})
	faas.OnRequest(&set, "put", func(ctx context.Context, _ *none, in put) (struct{}, error) {
		select {
		case both <- struct{}{}:
		case <-both:
		case <-ctx.Done():
			return struct{}{}, ctx.Err()
		}
		return struct{}{}, faas.Session(ctx).Set(in.Item, true)
	}, faas.HTTP("PUT /cart/{item}"), faas.UsesSession())
	fns, err := set.With(&none{})
	if err != nil {
		t.Fatal(err)
	}
	return fns
}

// client is a browser that meets two ingresses in turn, as behind a load
// balancer that knows nothing of sessions.
type client struct {
	t        *testing.T
	handlers [2]http.Handler
	turn     int
	jar      http.CookieJar
}

var site = &url.URL{Scheme: "https", Host: "shop.example", Path: "/"}

func newClient(t *testing.T, sessions ...*Sessions) *client {
	t.Helper()
	broker := memory.New(memory.Config{})
	t.Cleanup(func() { broker.Close() })
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- broker.Serve(ctx, shop(t)) }()
	t.Cleanup(func() {
		stop()
		<-served
	})
	for {
		changed := broker.Directory().Changed()
		if f, _ := broker.Directory().Find("put"); len(f.Workers) > 0 {
			break
		}
		<-changed
	}
	c := &client{t: t}
	for i := range c.handlers {
		c.handlers[i] = ingress.New(ingress.Config{Broker: broker, Sessions: sessions[i%len(sessions)]})
	}
	c.forget()
	return c
}

// forget throws the cookies away.
func (c *client) forget() {
	jar, err := cookiejar.New(nil)
	if err != nil {
		c.t.Fatal(err)
	}
	c.jar = jar
}

// token is what the jar would send.
func (c *client) token() string {
	for _, cookie := range c.jar.Cookies(site) {
		return cookie.Value
	}
	return ""
}

// do sends a request to the ingress whose turn it is.
func (c *client) do(method, path string) *http.Response {
	c.turn++
	return c.send(c.turn%2, method, path)
}

func (c *client) send(ingress int, method, path string) *http.Response {
	r := httptest.NewRequest(method, "https://shop.example"+path, nil)
	for _, cookie := range c.jar.Cookies(site) {
		r.AddCookie(cookie)
	}
	w := httptest.NewRecorder()
	c.handlers[ingress].ServeHTTP(w, r)
	c.jar.SetCookies(site, w.Result().Cookies())
	return w.Result()
}

// sees checks what both ingresses know of the client.
func (c *client) sees(want string) {
	c.t.Helper()
	for range c.handlers {
		r := c.do("GET", "/look")
		body, _ := io.ReadAll(r.Body)
		if got := string(body); r.StatusCode != 200 || got != fmt.Sprintf("%q", want) {
			c.t.Errorf("%d %s, want %q", r.StatusCode, got, want)
		}
		if r.Header["Set-Cookie"] != nil {
			c.t.Errorf("looking set the cookie %q", r.Header["Set-Cookie"])
		}
	}
}

func (c *client) must(method, path string) *http.Response {
	c.t.Helper()
	r := c.do(method, path)
	if r.StatusCode != 204 {
		body, _ := io.ReadAll(r.Body)
		c.t.Fatalf("%s %s: %d %s", method, path, r.StatusCode, body)
	}
	return r
}

// putBoth puts two items into the cart at the same moment, over both ingresses.
func (c *client) putBoth() {
	c.t.Helper()
	var calls sync.WaitGroup
	for i, item := range []string{"tea", "milk"} {
		calls.Go(func() {
			if r := c.send(i, "PUT", "/cart/"+item); r.StatusCode != 204 {
				c.t.Errorf("put %s: %d", item, r.StatusCode)
			}
		})
	}
	calls.Wait()
}

// as is c with another token.
func (c *client) as(token string) *client {
	other := *c
	other.forget()
	other.jar.SetCookies(site, []*http.Cookie{{Name: "__Host-rabbet-session", Value: token, Secure: true}})
	return &other
}

func TestTwoIngressesServeOneClient(t *testing.T) {
	stores(t, func(t *testing.T, s, other *Sessions) {
		c := newClient(t, s, other)
		c.sees("nobody")
		if c.token() != "" {
			t.Error("a client that did nothing has a session")
		}
		r := c.must("POST", "/login/guest")
		if cookie := r.Header.Get("Set-Cookie"); !strings.Contains(cookie, "HttpOnly; Secure; SameSite=Lax") || r.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("Set-Cookie: %s, Cache-Control: %s", cookie, r.Header.Get("Cache-Control"))
		}
		c.sees("guest")
		planted := c.token()

		c.putBoth()
		c.sees("guest tea milk")

		c.must("POST", "/login/ada") // the cart goes on, the token does not
		if c.token() == planted {
			t.Error("the token is the same after the login")
		}
		c.sees("ada tea milk")
		c.as(planted).sees("nobody")

		loggedIn := c.token()
		if r := c.must("POST", "/logout"); r.Header.Get("Set-Cookie") == "" || c.token() != "" {
			t.Errorf("after the logout the client has the token %q", c.token())
		}
		c.sees("nobody")
		c.as(loggedIn).sees("nobody")
	})
}

func TestRedisIsGone(t *testing.T) {
	p := newProxy(t, redisAddress(t), false)
	c := newClient(t, newSessions(t, openRedis(t, p.url()), "test-"+rand.Text()))
	c.must("POST", "/login/ada")
	token := c.token()
	p.cut()
	for _, request := range []string{"GET /look", "POST /login/eve", "POST /logout"} {
		method, path, _ := strings.Cut(request, " ")
		r := c.do(method, path)
		body, _ := io.ReadAll(r.Body)
		if r.StatusCode != 503 || r.Header.Get("Retry-After") == "" || !strings.Contains(string(body), `"executed":"no"`) || r.Header["Set-Cookie"] != nil {
			t.Errorf("%s without Redis: %d, %v, %s; want a 503 that did not run, and the cookie as it is", request, r.StatusCode, r.Header, body)
		}
	}
	p.mend()
	c.sees("ada")
	if c.token() != token {
		t.Error("the client lost its token")
	}
}
