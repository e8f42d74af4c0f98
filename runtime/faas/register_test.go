package faas

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

type deps struct{}

type get struct {
	ID string `json:"id"`
}

func (get) RoutingKey() string { return "thing.get" }

type put struct {
	ID string `json:"id"`
}

func (put) RoutingKey() string { return "thing.put" }

type keyless struct{}

func (keyless) RoutingKey() string { return "" }

type longKey struct{}

func (longKey) RoutingKey() string { return strings.Repeat("k", 256) }

type pattern struct{}

func (pattern) RoutingKey() string { return "thing.*" }

type unwritable struct {
	List []struct {
		C chan int `json:"c"`
	} `json:"list"`
}

func (unwritable) RoutingKey() string { return "thing.unwritable" }

type searched struct {
	Where map[string]string `json:"where,omitempty"`
	Areas []get             `json:"areas"`
}

func (searched) RoutingKey() string { return "thing.searched" }

type found struct {
	Words []string  `json:"words"`
	Sizes [2]int    `json:"sizes"`
	At    time.Time `json:"at"`
	Not   *searched `json:"not"`
	Areas []get     `json:"areas,omitempty"`
	Lang  string    `json:"lang" header:"Accept-Language"`
	Any   any       `json:"any"`
}

func (found) RoutingKey() string { return "thing.found" }

type veiled struct {
	What fmt.Stringer `json:"what"`
}

func (veiled) RoutingKey() string { return "thing.veiled" }

type twice struct {
	ID    string
	Other string `json:"ID"`
}

func (twice) RoutingKey() string { return "thing.twice" }

func onGet(context.Context, *deps, get) (get, error) { return get{}, nil }
func onPut(context.Context, *deps, put) (put, error) { return put{}, nil }
func onEvent(context.Context, *deps, get) error      { return nil }
func onRaw(context.Context, *deps, Event) error      { return nil }

func identity(name string) CachePolicy {
	return CachePolicy{TTL: time.Minute, Identity: []string{name}}
}

// mistake is what a set says of what cannot work in it.
func mistake(t *testing.T, register func(*Set[deps])) string {
	t.Helper()
	var s Set[deps]
	register(&s)
	fns, err := s.With(&deps{})
	if err == nil {
		t.Fatalf("got the functions %v, want a mistake", fns)
	}
	return err.Error()
}

func TestRegistrationsThatClashNameBothCulprits(t *testing.T) {
	for name, register := range map[string]func(*Set[deps]){
		"name": func(s *Set[deps]) {
			OnRequest(s, "one", onGet)
			OnEvent(s, "one", onEvent)
		},
		"request key": func(s *Set[deps]) {
			OnRequest(s, "one", onGet)
			OnRequest(s, "two", onGet)
		},
		"HTTP route": func(s *Set[deps]) {
			OnRequest(s, "one", onGet, HTTP("GET /things/{id}"))
			OnRequest(s, "two", onPut, HTTP("GET /things/{id}"))
		},
		"HTTP route of other words": func(s *Set[deps]) {
			OnRequest(s, "one", onGet, HTTP("GET /things/{id}"))
			OnRequest(s, "two", onPut, HTTP("GET /{id}/last"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			text := mistake(t, register)
			places := regexp.MustCompile(`register_test\.go:\d+`).FindAllString(text, -1)
			if len(places) != 2 || places[0] == places[1] || !strings.Contains(text, `"one"`) {
				t.Errorf("want both places in %q", text)
			}
		})
	}
}

func TestRegistrationsThatCannotWork(t *testing.T) {
	for name, c := range map[string]struct {
		register func(*Set[deps])
		says     string
	}{
		"upper case": {func(s *Set[deps]) { OnRequest(s, "Get", onGet) }, "kebab-case"},
		"underscore": {func(s *Set[deps]) { OnRequest(s, "get_it", onGet) }, "kebab-case"},
		"no name":    {func(s *Set[deps]) { OnRequest(s, "", onGet) }, "kebab-case"},
		"long name":  {func(s *Set[deps]) { OnRequest(s, strings.Repeat("a", 101), onGet) }, "100 bytes"},
		"no key of a request": {func(s *Set[deps]) {
			OnRequest(s, "f", func(context.Context, *deps, keyless) (get, error) { return get{}, nil })
		}, "no routing key: return one from RoutingKey"},
		"no key":           {func(s *Set[deps]) { OnEvent(s, "f", func(context.Context, *deps, keyless) error { return nil }) }, "no routing key"},
		"raw without keys": {func(s *Set[deps]) { OnEvent(s, "f", onRaw) }, "faas.Keys"},
		"long key":         {func(s *Set[deps]) { OnEvent(s, "f", func(context.Context, *deps, longKey) error { return nil }) }, "255 bytes"},
		"request on pattern": {func(s *Set[deps]) {
			OnRequest(s, "f", func(context.Context, *deps, pattern) (get, error) { return get{}, nil })
		}, "not a pattern"},
		"request with keys":  {func(s *Set[deps]) { OnRequest(s, "f", onGet, Keys("a")) }, "event functions"},
		"request with retry": {func(s *Set[deps]) { OnRequest(s, "f", onGet, Retry{Max: 2}) }, "event functions"},
		"event with route":   {func(s *Set[deps]) { OnEvent(s, "f", onEvent, HTTP("GET /f")) }, "request functions"},
		"event with cache":   {func(s *Set[deps]) { OnEvent(s, "f", onEvent, Cached(time.Minute)) }, "request functions"},
		"no concurrency":     {func(s *Set[deps]) { OnEvent(s, "f", onEvent, Concurrency(0)) }, "1 to 10000"},
		"nothing to run":     {func(s *Set[deps]) { OnRequest[deps, get, get](s, "f", nil) }, "function is nil"},
		"nothing to react":   {func(s *Set[deps]) { OnEvent[deps, get](s, "f", nil) }, "function is nil"},
		"half a word":        {func(s *Set[deps]) { OnEvent(s, "f", onEvent, Keys("order#")) }, "order.#"},
		"one key twice":      {func(s *Set[deps]) { OnEvent(s, "f", onEvent, Also(onEvent)) }, "there twice"},
		"status, no route":   {func(s *Set[deps]) { OnRequest(s, "f", onGet, Status(201)) }, "add faas.HTTP"},
		"204 and a reply":    {func(s *Set[deps]) { OnRequest(s, "f", onGet, HTTP("GET /f/{id}"), Status(204)) }, "return struct{}"},
		"no JSON in": {func(s *Set[deps]) {
			OnEvent(s, "f", func(context.Context, *deps, unwritable) error { return nil })
		}, "the message.list.c: JSON has no chan int"},
		"no JSON out": {func(s *Set[deps]) {
			OnRequest(s, "f", func(context.Context, *deps, get) (map[string]func(), error) { return nil, nil })
		}, "the reply: JSON has no func()"},
		"no way by query": {func(s *Set[deps]) {
			OnRequest(s, "f", func(context.Context, *deps, searched) (get, error) { return get{}, nil }, HTTP("GET /f"))
		}, `the field "areas" is required and no query can carry it`},
		"no way by path": {func(s *Set[deps]) {
			OnRequest(s, "f", func(context.Context, *deps, searched) (get, error) { return get{}, nil }, HTTP("POST /f/{where}"))
		}, `the field "where" is no text or number`},
		"no key out": {func(s *Set[deps]) {
			OnRequest(s, "f", func(context.Context, *deps, get) ([]map[float64]int, error) { return nil, nil })
		}, "the reply: encoding/json has no map with float64 as its key"},
		"no telling what": {func(s *Set[deps]) {
			OnEvent(s, "f", func(context.Context, *deps, veiled) error { return nil })
		}, "the message.what: encoding/json cannot tell which fmt.Stringer"},
		"one name twice": {func(s *Set[deps]) {
			OnRequest(s, "f", func(context.Context, *deps, twice) (get, error) { return get{}, nil })
		}, `two fields have the JSON name "ID"`},
		"tiny timeout":       {func(s *Set[deps]) { OnEvent(s, "f", onEvent, Timeout(1)) }, "millisecond"},
		"bad retry":          {func(s *Set[deps]) { OnEvent(s, "f", onEvent, Retry{Factor: 0.5}) }, "Factor"},
		"route w/o method":   {func(s *Set[deps]) { OnRequest(s, "f", onGet, HTTP("/f")) }, "a method and a path"},
		"broken route":       {func(s *Set[deps]) { OnRequest(s, "f", onGet, HTTP("GET /{")) }, "route"},
		"kept route":         {func(s *Set[deps]) { OnRequest(s, "f", onGet, HTTP("GET /events/x")) }, "keeps /events"},
		"unknown parameter":  {func(s *Set[deps]) { OnRequest(s, "f", onGet, HTTP("GET /f/{name}")) }, `no exported field with the JSON name "name"`},
		"status of failure":  {func(s *Set[deps]) { OnRequest(s, "f", onGet, HTTP("GET /f"), Status(404)) }, "200 to 299"},
		"event with session": {func(s *Set[deps]) { OnEvent(s, "f", onEvent, UsesSession()) }, "request functions"},
		"cached session":     {func(s *Set[deps]) { OnRequest(s, "f", onGet, UsesSession(), Cached(time.Minute)) }, "keep one of them"},
		"short cache":        {func(s *Set[deps]) { OnRequest(s, "f", onGet, Cached(time.Millisecond)) }, "a second or more"},
		"unknown tag field":  {func(s *Set[deps]) { OnRequest(s, "f", onGet, Cached(time.Minute, "f:{name}")) }, `no field "name"`},
		"unclosed tag":       {func(s *Set[deps]) { OnRequest(s, "f", onGet, Cached(time.Minute, "f:{id")) }, "{name}"},
		"cached for ever":    {func(s *Set[deps]) { OnRequest(s, "f", onGet, Cached(31*24*time.Hour)) }, "30 days"},
		"cached change":      {func(s *Set[deps]) { OnRequest(s, "f", onGet, Cached(time.Minute), HTTP("PUT /f")) }, "changes something"},
		"stale in the past":  {func(s *Set[deps]) { OnRequest(s, "f", onGet, CachePolicy{TTL: time.Minute, StaleIfError: -1}) }, "StaleIfError"},
		"request once":       {func(s *Set[deps]) { OnRequest(s, "f", onGet, Once("")) }, "event functions"},
		"once by no field":   {func(s *Set[deps]) { OnEvent(s, "f", onEvent, Once("always")) }, "names no field"},
		"once by a lost one": {func(s *Set[deps]) { OnEvent(s, "f", onEvent, Once("f:{name}")) }, `no field "name"`},
		"once, other message": {func(s *Set[deps]) {
			OnEvent(s, "f", onEvent, Once("f:{id}"), Also(func(context.Context, *deps, keyless) error { return nil }))
		}, `no field "id"`},
		"stale for ever": {func(s *Set[deps]) {
			OnRequest(s, "f", onGet, CachePolicy{TTL: 29 * 24 * time.Hour, StaleWhileRevalidate: 2 * 24 * time.Hour})
		}, "StaleWhileRevalidate"},
		"short negative": {func(s *Set[deps]) { OnRequest(s, "f", onGet, CachePolicy{TTL: time.Minute, Negative: 1}) }, "Negative"},
		"large results":  {func(s *Set[deps]) { OnRequest(s, "f", onGet, CachePolicy{TTL: time.Minute, MaxSize: 17 << 20}) }, "MaxSize"},
		"part of a second at the edge": {func(s *Set[deps]) {
			OnRequest(s, "f", onGet, HTTP("GET /f"), CachePolicy{TTL: time.Minute, Edge: 1500 * time.Millisecond})
		}, "whole seconds"},
		"longer at the edge": {func(s *Set[deps]) {
			OnRequest(s, "f", onGet, HTTP("GET /f"), CachePolicy{TTL: time.Second, Edge: 2 * time.Second})
		}, "no more than TTL"},
		"edge without GET": {func(s *Set[deps]) { OnRequest(s, "f", onGet, CachePolicy{TTL: time.Minute, Edge: time.Second}) }, "GET requests"},
		"edge and identity": {func(s *Set[deps]) {
			OnRequest(s, "f", onGet, HTTP("GET /f"), CachePolicy{TTL: time.Minute, Edge: time.Second, Identity: []string{"X-User"}})
		}, "keeps apart"},
		"public and identity": {func(s *Set[deps]) {
			OnRequest(s, "f", onGet, CachePolicy{TTL: time.Minute, Public: true, Identity: []string{"X-User"}})
		}, "keeps apart"},
		"identity of no name":      {func(s *Set[deps]) { OnRequest(s, "f", onGet, identity("cookie:")) }, "cookie:NAME"},
		"identity with a space":    {func(s *Set[deps]) { OnRequest(s, "f", onGet, identity("X User")) }, "cookie:NAME"},
		"identity of all cookies":  {func(s *Set[deps]) { OnRequest(s, "f", onGet, identity("cookie")) }, "cookie:NAME"},
		"identity of a connection": {func(s *Set[deps]) { OnRequest(s, "f", onGet, identity("keep-alive")) }, "who asks"},
		"pointer": {func(s *Set[deps]) {
			OnRequest(s, "f", func(context.Context, *deps, *get) (get, error) { return get{}, nil })
		}, "faas.get, with RoutingKey declared on it, instead of *faas.get"},
		"pointer, event": {func(s *Set[deps]) { OnEvent(s, "f", func(context.Context, *deps, *get) error { return nil }) }, "by value"},
		"any message":    {func(s *Set[deps]) { OnEvent(s, "f", func(context.Context, *deps, Message) error { return nil }) }, "instead of the interface faas.Message"},
		"foreign Also": {func(s *Set[deps]) {
			OnEvent(s, "f", onEvent, Also(func(context.Context, *struct{}, put) error { return nil }))
		}, "other dependencies"},
	} {
		t.Run(name, func(t *testing.T) {
			text := mistake(t, c.register)
			if !strings.Contains(text, c.says) || !regexp.MustCompile(`register_test\.go:\d+`).MatchString(text) {
				t.Errorf("want %q and the place in %q", c.says, text)
			}
		})
	}
}

func TestEveryMistakeIsTold(t *testing.T) {
	text := mistake(t, func(s *Set[deps]) {
		OnRequest(s, "Get", onGet)
		OnRequest(s, "get", onGet)
		OnEvent(s, "get", onEvent)
		OnEvent(s, "on", onEvent, Concurrency(0))
	})
	lines := strings.Split(text, "\n")
	if len(lines) != 3 || !strings.Contains(lines[0], "kebab") || !strings.Contains(lines[1], "one name") || !strings.Contains(lines[2], "Concurrency(0)") {
		t.Errorf("got %q, want a line for each of three mistakes", lines)
	}
}

func TestRegistrationsThatGoTogether(t *testing.T) {
	var s Set[deps]
	OnRequest(&s, "get", onGet, HTTP("GET /things/{id}"))
	OnRequest(&s, "put", onPut, HTTP("PUT /things/{id}"))
	OnEvent(&s, "also-on-the-request-key", onEvent)
	OnEvent(&s, "and-another", onEvent)
	fns, err := s.With(&deps{})
	if err != nil || len(fns) != 4 {
		t.Fatalf("got %d functions, %v", len(fns), err)
	}
}

func TestDefaults(t *testing.T) {
	var s Set[deps]
	OnRequest(&s, "get", onGet, HTTP("GET /things/{id}"))
	OnRequest(&s, "send", func(context.Context, *deps, put) (struct{}, error) { return struct{}{}, nil }, HTTP("POST /things"))
	OnEvent(&s, "on", onEvent)
	OnEvent(&s, "ordered", onEvent, Ordered(), Concurrency(9))
	fns, err := s.With(&deps{})
	if err != nil {
		t.Fatal(err)
	}
	by := map[string]contract.Descriptor{}
	for _, f := range fns {
		by[f.Name] = f.Descriptor
	}
	for _, c := range []struct {
		what      string
		got, want any
	}{
		{"concurrency of a request", by["get"].Concurrency, 128},
		{"concurrency of an event", by["on"].Concurrency, 16},
		{"concurrency when ordered", by["ordered"].Concurrency, 1},
		{"timeout", by["get"].Timeout, contract.DefaultTimeout},
		{"status", by["get"].Route.Status, 200},
		{"status without a reply", by["send"].Route.Status, 204},
		{"GET is idempotent", by["get"].Idempotent, true},
		{"GET only reads", by["get"].ReadOnly && by["get"].Redeliver, true},
		{"POST is not idempotent", by["send"].Idempotent, false},
		{"POST is not redelivered", by["send"].Redeliver || by["send"].ReadOnly, false},
		{"key", by["on"].Keys[0], "thing.get"},
		{"version differs", by["get"].Version != by["send"].Version, true},
	} {
		if c.got != c.want {
			t.Errorf("%s: got %v, want %v", c.what, c.got, c.want)
		}
	}
}

func TestWith(t *testing.T) {
	var s Set[deps]
	OnRequest(&s, "b", onGet)
	OnRequest(&s, "a", onPut)
	if fns, err := s.With(&deps{}); err != nil || fns[0].Name != "a" || fns[1].Name != "b" {
		t.Errorf("all: got %v, %v", fns, err)
	}
	if fns, err := s.With(&deps{}, "b"); err != nil || len(fns) != 1 || fns[0].Name != "b" {
		t.Errorf("one: got %v, %v", fns, err)
	}
	if _, err := s.With(&deps{}, "b", "c"); err == nil || !strings.Contains(err.Error(), `"c"`) {
		t.Errorf("one that is missing: got %v", err)
	}
	for name, file := range s.Sources() {
		if file != "register_test.go" {
			t.Errorf("%s comes from %s", name, file)
		}
	}
}

func TestAlso(t *testing.T) {
	var s Set[deps]
	var ran []string
	OnEvent(&s, "both", func(_ context.Context, _ *deps, in get) error {
		ran = append(ran, "get "+in.ID)
		return nil
	}, Also(func(_ context.Context, _ *deps, in put) error {
		ran = append(ran, "put "+in.ID)
		return nil
	}))
	fns, err := s.With(&deps{})
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"thing.put", "thing.get"} {
		if _, err := fns[0].Handle(t.Context(), &Event{Key: key, Body: []byte(`{"id":"1"}`)}); err != nil {
			t.Errorf("%s: %v", key, err)
		}
	}
	if got := strings.Join(ran, ", "); got != "put 1, get 1" {
		t.Errorf("got %s", got)
	}
	if _, err := fns[0].Handle(t.Context(), &Event{Key: "thing.else"}); AsError(err).Code != CodePermanent {
		t.Errorf("a key that no part knows: got %v, want permanent", err)
	}
}

// A query carries scalars and lists of them; what is optional need not be there.
func TestRouteWithoutABody(t *testing.T) {
	for _, method := range []string{"GET", "HEAD", "DELETE"} {
		var set Set[deps]
		OnRequest(&set, "find", func(context.Context, *deps, found) (get, error) { return get{}, nil }, HTTP(method+" /things"))
	}
}

type lookup struct {
	ID string `json:"id"`
}

func (lookup) RoutingKey() string { return "look.up" }

func TestRefusedInputHasNotRun(t *testing.T) {
	var set Set[struct{}]
	OnRequest(&set, "look-up", func(context.Context, *struct{}, lookup) (string, error) { return "", nil })
	fns, err := set.With(&struct{}{})
	if err != nil {
		t.Fatal(err)
	}
	for _, body := range []string{`{"surely-not-there":1}`, `{`} {
		_, err := fns[0].Run(t.Context(), &Event{Body: []byte(body)}, time.Time{})
		if e := AsError(err); e.Executed != ExecutedNo {
			t.Errorf("%s: got %v with executed %q, want no", body, e, e.Executed)
		}
	}
}
