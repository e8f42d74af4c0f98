package ingress

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/zap/zaptest/observer"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

func TestRoutesFollowTheDirectory(t *testing.T) {
	b := newBroker()
	h := New(Config{Broker: b})
	if r := do(h, "GET", "/new/1", ""); r.StatusCode != 404 {
		t.Fatalf("before: %d", r.StatusCode)
	}
	b.announce("w2", request("new", "GET /new/{id}"))
	if r := do(h, "GET", "/new/1", ""); r.StatusCode != 200 {
		t.Errorf("with a worker: %d, want 200", r.StatusCode)
	}
	b.announce("w2")
	if r := do(h, "GET", "/new/1", ""); r.StatusCode != 503 {
		t.Errorf("without a worker: %d, want 503", r.StatusCode)
	}
	b.announce("w3", request("new", "GET /newer/{id}"))
	if r := do(h, "GET", "/new/1", ""); r.StatusCode != 404 {
		t.Errorf("at the old route: %d, want 404", r.StatusCode)
	}
	if r := do(h, "GET", "/newer/1", ""); r.StatusCode != 200 {
		t.Errorf("at the new route: %d, want 200", r.StatusCode)
	}
}

func TestClashingRoutes(t *testing.T) {
	log, lines := observed()
	b := &fakeBroker{}
	h := New(Config{Broker: b, Log: log})
	b.announce("w1", request("zebra", "GET /x/{id}"))
	do(h, "GET", "/x/1", "")
	b.announce("w2",
		request("ant", "GET /x/{name}"),           // the same
		request("bee", "GET /{id}/y"),             // neither is the more specific
		request("cat", "GET /livez"),              // ours
		request("dog", "GET /functions/{id}"),     // below ours
		request("eel", "GET /{id"),                // no pattern
		request("fox", "BREW /pot"),               // no method
		request("gnu", "GET example.com/profile")) // a host
	b.announce("w3", request("hen", "GET /hen/{id}"))
	for range 2 {
		if do(h, "GET", "/x/1", ""); b.lastCall(t).Function != "zebra" {
			t.Errorf("/x/1 went to %s, want zebra, which had the route first", b.lastCall(t).Function)
		}
		if r := do(h, "GET", "/hen/1", ""); r.StatusCode != 200 {
			t.Errorf("/hen/1: %d, want 200", r.StatusCode)
		}
		if r := do(h, "GET", "/livez", ""); r.StatusCode != 200 {
			t.Errorf("/livez: %d, want 200", r.StatusCode)
		}
		b.announce("w4", request("ibis", "GET /ibis/{id}")) // another generation
	}
	if r := do(h, "POST", "/functions/ant", "{}"); r.StatusCode != 200 {
		t.Errorf("by name: %d, want 200", r.StatusCode)
	}
	complaints := lines.FilterMessageSnippet("route is not served")
	if n := complaints.Len(); n != 7 {
		t.Errorf("%d complaints, want 7, each once", n)
	}
	if !slices.ContainsFunc(complaints.All(), func(e observer.LoggedEntry) bool {
		return e.ContextMap()["function"] == "ant" && e.ContextMap()["error"] == "it clashes with GET /x/{id} of zebra, which was there first"
	}) {
		t.Errorf("nothing says what the route of ant clashes with: %v", complaints.All())
	}
	b.announce("w1")
	b.announce("w5", request("zebra", ""))
	if do(h, "GET", "/x/1", ""); b.lastCall(t).Function != "ant" {
		t.Errorf("/x/1 went to %s, want ant, now that zebra gave it up", b.lastCall(t).Function)
	}
}

// A function that got another name keeps its route: the old one is known, but no
// worker hosts it.
func TestRenamedFunctionKeepsItsRoute(t *testing.T) {
	log, lines := observed()
	b := &fakeBroker{}
	h := New(Config{Broker: b, Log: log})
	for _, name := range []string{"greet", "hello", "anew"} {
		b.announce("w-"+name, request(name, "GET /greetings/{id}"))
		do(h, "GET", "/greetings/1", "")
		for _, old := range []string{"greet", "hello"} {
			if old != name {
				b.announce("w-" + old)
			}
		}
		if do(h, "GET", "/greetings/1", ""); b.lastCall(t).Function != name {
			t.Errorf("after the change to %s the route leads to %s", name, b.lastCall(t).Function)
		}
		if do(h, "POST", "/functions/"+name, "{}"); b.lastCall(t).Function != name {
			t.Errorf("%s cannot be called by its name", name)
		}
	}
	if n := lines.FilterMessageSnippet("route is not served").Len(); n != 2 {
		t.Errorf("%d complaints, want 2: while the old and the new one were both there", n)
	}
}

func TestHiddenFunctions(t *testing.T) {
	h := New(Config{Broker: newBroker(), Hidden: func(d *contract.Descriptor) bool { return d.Name == "get" }})
	for target, want := range map[string]int{"GET /profiles/42": 405, "POST /functions/get": 404, "POST /functions/plain": 200} {
		method, path, _ := strings.Cut(target, " ")
		if r := do(h, method, path, ""); r.StatusCode != want {
			t.Errorf("%s: %d, want %d", target, r.StatusCode, want)
		}
	}
	if doc := text(t, do(h, "GET", "/openapi.json", "")); strings.Contains(doc, `"operationId":"get"`) || !strings.Contains(doc, `"operationId":"plain"`) {
		t.Errorf("the document has what is hidden: %s", doc)
	}
}

func TestOptionsAndRest(t *testing.T) {
	b := newBroker()
	d := request("files", "GET /files/{id...}")
	b.announce("w2", d, request("home", "GET /{$}"))
	h := New(Config{Broker: b})
	if r := do(h, "OPTIONS", "/profiles/1", ""); r.StatusCode != 204 || r.Header.Get("Allow") != "GET, HEAD, PUT, DELETE, OPTIONS" {
		t.Errorf("OPTIONS: %d, Allow: %s", r.StatusCode, r.Header.Get("Allow"))
	}
	do(h, "GET", "/files/a/b", "")
	if got := string(b.lastCall(t).Body); got != `{"id":"a/b"}` {
		t.Errorf("message %s", got)
	}
	do(h, "GET", "/", "")
	if got := b.lastCall(t); got.Function != "home" || string(got.Body) != "{}" {
		t.Errorf("home: %+v", got)
	}
}

func TestDirectoryChangesWhileRequestsRun(t *testing.T) {
	b := newBroker()
	h := New(Config{Broker: b})
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for range 300 {
				if r := do(h, "GET", "/profiles/42", ""); r.StatusCode != 200 {
					t.Errorf("status %d, want 200", r.StatusCode)
				}
			}
		})
	}
	for n := range 100 {
		b.announce("w2", request("other", "GET /other/{id}"), request("v"+strings.Repeat("x", n), "GET /v/{id}"))
		b.announce("w2")
	}
	clients.Wait()
}

func TestOpenAPI(t *testing.T) {
	b := newBroker()
	h := New(Config{Broker: b})
	r := do(h, "GET", "/openapi.json", "")
	var doc struct {
		OpenAPI string
		Paths   map[string]map[string]struct {
			OperationID string
			Parameters  []struct {
				Name, In string
				Required bool
			}
			RequestBody *struct {
				Content map[string]struct {
					Schema struct {
						Required   []string
						Properties map[string]any
					}
				}
			}
			Responses map[string]any
		}
	}
	if err := json.Unmarshal([]byte(text(t, r)), &doc); err != nil || r.StatusCode != http.StatusOK {
		t.Fatal(r.StatusCode, err)
	}
	if doc.OpenAPI != "3.1.0" || len(doc.Paths) != 4 {
		t.Errorf("version %s, paths %v", doc.OpenAPI, doc.Paths)
	}
	get := doc.Paths["/profiles/{id}"]["get"]
	if get.OperationID != "get" || len(get.Parameters) != 7 || get.Parameters[0].Name != "id" || get.Parameters[0].In != "path" || !get.Parameters[0].Required || get.Parameters[1].In != "query" || get.RequestBody != nil {
		t.Errorf("get: %+v", get)
	}
	put := doc.Paths["/profiles/{id}"]["put"]
	if len(put.Parameters) != 1 || put.RequestBody == nil || len(put.RequestBody.Content["application/json"].Schema.Properties) != 7 {
		t.Errorf("put: %+v", put)
	}
	if _, ok := doc.Paths["/profiles/{id}"]["delete"].Responses["204"]; !ok {
		t.Error("delete: no 204")
	}
	if doc.Paths["/functions/plain"]["post"].OperationID != "plain" {
		t.Error("a function without a route does not stand under its name")
	}

	b.announce("w2", contract.Descriptor{Name: "any", Kind: contract.KindRequest, Keys: []string{"any"}})
	if got := text(t, do(h, "GET", "/openapi.json", "")); !strings.Contains(got, "/functions/any") {
		t.Error("the document did not follow the directory")
	}
}

func TestOpenAPIOfACachedFunctionWithHeaderFields(t *testing.T) {
	_, h := cached(&fakeResults{})
	var doc struct {
		Paths map[string]struct {
			Get struct {
				Parameters []struct{ Name, In string }
				Responses  map[string]struct{ Headers map[string]any }
			}
		}
	}
	if err := json.Unmarshal([]byte(text(t, do(h, "GET", "/openapi.json", ""))), &doc); err != nil {
		t.Fatal(err)
	}
	get := doc.Paths["/localized/{id}"].Get
	if got := fmt.Sprint(get.Parameters); got != "[{id path} {Accept-Language header} {X-Limit header} {pin query}]" {
		t.Errorf("parameters %s", got)
	}
	if get.Responses["304"].Headers["ETag"] == nil || get.Responses["200"].Headers["Cache-Status"] == nil {
		t.Errorf("responses %v", get.Responses)
	}
	if plain := doc.Paths["/profiles/{id}"].Get.Responses; len(plain["304"].Headers) > 0 || len(plain["200"].Headers) > 0 {
		t.Errorf("responses of a function that is not cached: %v", plain)
	}
}

// OpenAPI tells paths apart by more than the names of their parameters, and has
// no rest of a path. Each function stands in the document all the same.
func TestOpenAPIOfRoutesThatLookAlike(t *testing.T) {
	b := &fakeBroker{}
	byRest := request("by-rest", "GET /things/{name...}")
	byRest.Route.Status = http.StatusAccepted
	b.announce("w1", byRest, request("get", "GET /things/{id}"), request("put", "PUT /things/{name}"),
		request("all", "GET /all/"), request("root", "GET /all/{$}"), request("deep", "GET /things/{id}/{name}"), request("plain", ""))
	h := New(Config{Broker: b})
	var doc struct {
		Paths map[string]map[string]struct {
			OperationID string
			Parameters  []struct{ Name, In string }
			Responses   map[string]any
		}
	}
	if err := json.Unmarshal([]byte(text(t, do(h, "GET", "/openapi.json", ""))), &doc); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for path, operations := range doc.Paths {
		for method, o := range operations {
			line := method + " " + path
			for _, p := range o.Parameters {
				if p.In == "path" {
					line += " " + p.Name
				}
			}
			for status := range o.Responses {
				if status != "default" {
					line += " " + status
				}
			}
			got[o.OperationID] = line
		}
	}
	if want := map[string]string{
		"by-rest": "post /functions/by-rest 202", "get": "get /things/{id} id 200", "put": "put /things/{id} id 200",
		"all": "post /functions/all 200", "root": "get /all/ 200", "deep": "get /things/{id}/{name} id name 200", "plain": "post /functions/plain 200",
	}; !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// Responses that say nothing about caching are not stored, redirects included.
func TestNothingIsKeptUnlessSaid(t *testing.T) {
	h := New(Config{Broker: newBroker()})
	for _, c := range []struct {
		method, target string
		status         int
	}{
		{"GET", "/profiles/../profiles/42", 307}, {"GET", "/livez", 200}, {"HEAD", "/livez", 200}, {"HEAD", "/events", 200},
		{"GET", "/nothing", 404}, {"OPTIONS", "/profiles/42", 204}, {"GET", "/profiles/42", 200}, {"POST", "/events/a.b", 202},
	} {
		r := do(h, c.method, c.target, "", "Accept: */*")
		if r.StatusCode != c.status || r.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s %s: %d, Cache-Control: %q; want %d, no-store", c.method, c.target, r.StatusCode, r.Header.Get("Cache-Control"), c.status)
		}
	}
}
