package ingress

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/faas"
)

func TestCalls(t *testing.T) {
	for _, c := range []struct {
		name, method, target, body string
		fields                     []string
		status                     int
		message                    string // what the function got
	}{
		{"path", "GET", "/profiles/42", "", nil, 200, `{"id":"42"}`},
		{"path is unescaped", "GET", "/profiles/a%2Fb%20%22", "", nil, 200, `{"id":"a/b \""}`},
		{"query, in order of names", "GET", "/profiles/42?ratio=0.5&name=a+b&count=-3&deep=true", "", nil, 200, `{"count":-3,"deep":true,"id":"42","name":"a b","ratio":0.5}`},
		{"arrays", "GET", "/profiles/42?tags=x&sizes=1&tags=y&sizes=2", "", nil, 200, `{"id":"42","sizes":[1,2],"tags":["x","y"]}`},
		{"HEAD", "HEAD", "/profiles/42", "", nil, 200, `{"id":"42"}`},
		{"body and path", "PUT", "/profiles/42", `{ "name": "Ada", "count": 1 }`, nil, 200, `{"count":1,"id":"42","name":"Ada"}`},
		{"body says the same as the path", "PUT", "/profiles/42", `{"id":"42","name":"Ada"}`, nil, 200, `{"id":"42","name":"Ada"}`},
		{"nothing to merge: untouched", "POST", "/profiles", `{ "name":"Ada",  "id":"1" }`, nil, 201, `{ "name":"Ada",  "id":"1" }`},
		{"no body", "POST", "/profiles", "", nil, 201, `{}`},
		{"204", "DELETE", "/profiles/42", "", []string{"Accept: text/html"}, 204, `{"id":"42"}`},
		{"by name", "POST", "/functions/plain", `{"id":"7"}`, []string{"Content-Type: application/json; charset=utf-8"}, 200, `{"id":"7"}`},
		{"+json", "POST", "/functions/plain", `{"id":"7"}`, []string{"Content-Type: application/vnd.x+json"}, 200, `{"id":"7"}`},
		{"curl -d", "POST", "/functions/plain", `{"id":"7"}`, []string{"Content-Type: application/x-www-form-urlencoded"}, 200, `{"id":"7"}`},
		{"Accept", "GET", "/profiles/42", "", []string{"Accept: text/html, application/*;q=0.1"}, 200, `{"id":"42"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBroker()
			r := do(New(Config{Broker: b}), c.method, c.target, c.body, c.fields...)
			if r.StatusCode != c.status {
				t.Fatalf("status %d, want %d: %s", r.StatusCode, c.status, text(t, r))
			}
			if got := string(b.lastCall(t).Body); got != c.message {
				t.Errorf("the function got %s, want %s", got, c.message)
			}
			got, want := text(t, r), c.message // the fake echoes
			if c.status == 204 || c.method == "HEAD" {
				want = ""
			}
			if got != want {
				t.Errorf("body %q, want %q", got, want)
			}
			if c.status != 204 && (r.Header.Get("Content-Type") != "application/json" || !strings.Contains(r.Header.Get("Server-Timing"), "run;dur=1.5")) {
				t.Errorf("header fields %v", r.Header)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		name, method, target, body string
		fields                     []string
		status                     int
		pointer                    string // of the first of errors[]; "-" for none
		header                     string // that must be there, "Name: value"
	}{
		{"unknown path", "GET", "/nothing", "", nil, 404, "-", ""},
		{"unknown function", "POST", "/functions/nothing", "{}", nil, 404, "-", ""},
		{"event function", "POST", "/functions/on-update", "{}", nil, 404, "-", ""},
		{"wrong method", "PATCH", "/profiles/42", "{}", nil, 405, "-", "Allow: GET, HEAD, PUT, DELETE, OPTIONS"},
		{"wrong method by name", "GET", "/functions/plain", "", nil, 405, "-", "Allow: POST, OPTIONS"},
		{"not yet there", "GET", "/docs", "", nil, 404, "-", ""},
		{"no worker", "GET", "/orphans/1", "", nil, 503, "-", "Proxy-Status: Rabbet; error=destination_unavailable"},
		{"no worker: come back", "GET", "/orphans/1", "", nil, 503, "-", "Retry-After: 1"},
		{"NUL", "GET", "/profiles/a%00b", "", nil, 400, "-", ""},
		{"path that is not UTF-8", "GET", "/profiles/%ff", "", nil, 422, "/id", ""},
		{"long URI", "GET", "/profiles/" + strings.Repeat("x", 9000), "", nil, 414, "-", ""},
		{"unknown query parameter", "GET", "/profiles/42?nope=1", "", nil, 422, "/nope", ""},
		{"query says what the path says", "GET", "/profiles/42?id=43", "", nil, 422, "/id", ""},
		{"twice", "GET", "/profiles/42?name=a&name=b", "", nil, 422, "/name", ""},
		{"no integer", "GET", "/profiles/42?count=1.5", "", nil, 422, "/count", ""},
		{"leading zero", "GET", "/profiles/42?count=007", "", nil, 422, "/count", ""},
		{"no number", "GET", "/profiles/42?ratio=NaN", "", nil, 422, "/ratio", ""},
		{"no number, though JSON", "GET", "/profiles/42?ratio=true", "", nil, 422, "/ratio", ""},
		{"no boolean", "GET", "/profiles/42?deep", "", nil, 422, "/deep", ""},
		{"no item", "GET", "/profiles/42?sizes=1&sizes=b", "", nil, 422, "/sizes", ""},
		{"object as parameter", "GET", "/profiles/42?where=x", "", nil, 422, "/where", ""},
		{"query escapes", "GET", "/profiles/42?name=%zz", "", nil, 400, "-", ""},
		{"body against path", "PUT", "/profiles/42", `{"id":"43"}`, nil, 422, "/id", ""},
		{"body against path, in capitals", "PUT", "/profiles/42", `{"ID":"43"}`, nil, 422, "/ID", ""},
		{"body against path, another type", "PUT", "/profiles/42", `{"id":42}`, nil, 422, "/id", ""},
		{"no JSON", "POST", "/functions/plain", `{"id":`, nil, 400, "-", ""},
		{"two values", "POST", "/functions/plain", `{} {}`, nil, 400, "-", ""},
		{"no object", "POST", "/functions/plain", `["id"]`, nil, 422, "", ""},
		{"no object to merge with", "PUT", "/profiles/42", `"x"`, nil, 422, "", ""},
		{"deep", "POST", "/functions/plain", strings.Repeat("[", 100_000), nil, 400, "-", ""},
		{"XML", "POST", "/functions/plain", `<id/>`, []string{"Content-Type: text/xml"}, 415, "-", ""},
		{"gzip", "POST", "/functions/plain", `{}`, []string{"Content-Type: application/json", "Content-Encoding: gzip"}, 415, "-", ""},
		{"gzip, said second", "POST", "/functions/plain", `{}`, []string{"Content-Encoding: identity", "Content-Encoding: gzip"}, 415, "-", ""},
		{"form of a browser", "POST", "/functions/plain", `{}`, []string{"Content-Type: application/x-www-form-urlencoded", "Origin: https://evil.example"}, 415, "-", ""},
		{"body of a GET", "GET", "/profiles/42", `{"name":"x"}`, nil, 400, "-", ""},
		{"large", "POST", "/functions/plain", `"` + strings.Repeat("x", 1<<20) + `"`, nil, 413, "-", "Connection: close"},
		{"Accept", "GET", "/profiles/42", "", []string{"Accept: text/html, */*;q=0"}, 406, "-", ""},
		{"Accept, the specific range decides", "GET", "/profiles/42", "", []string{"Accept: */*, application/json;q=0"}, 406, "-", ""},
		{"Request-Timeout in words", "GET", "/profiles/42", "", []string{"Request-Timeout: 2s"}, 400, "-", ""},
		{"Request-Timeout of none", "GET", "/profiles/42", "", []string{"Request-Timeout: 0"}, 400, "-", ""},
		{"Request-Timeout below none", "GET", "/profiles/42", "", []string{"Request-Timeout: -1"}, 400, "-", ""},
		{"Request-Timeout without end", "GET", "/profiles/42", "", []string{"Request-Timeout: Inf"}, 400, "-", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBroker()
			r := do(New(Config{Broker: b}), c.method, c.target, c.body, c.fields...)
			p := readProblem(t, r)
			if p.Status != c.status || p.Executed != contract.ExecutedNo || p.Attempt != 0 {
				t.Errorf("got %+v, want a %d, not executed", p, c.status)
			}
			if (c.pointer == "-") != (len(p.Errors) == 0) || len(p.Errors) > 0 && p.Errors[0].Pointer != c.pointer {
				t.Errorf("errors %v, want pointer %q", p.Errors, c.pointer)
			}
			if name, value, ok := strings.Cut(c.header, ": "); ok && r.Header.Get(name) != value {
				t.Errorf("%s: %q, want %q", name, r.Header.Get(name), value)
			}
			if n := b.called(); n != 0 {
				t.Errorf("%d calls were made, want none", n)
			}
		})
	}
}

// An answer is not many times as large as the request that it refuses.
func TestManyMistakes(t *testing.T) {
	r := do(New(Config{Broker: newBroker()}), "GET", "/profiles/42?"+strings.Repeat("a&", 4000), "")
	if p := readProblem(t, r); p.Status != 422 || len(p.Errors) != contract.MaxFieldErrors {
		t.Errorf("got a %d with %d mistakes, want a 422 with %d", p.Status, len(p.Errors), contract.MaxFieldErrors)
	}
}

// An empty body of unknown length counts as no body.
func TestEmptyBodyOfAGET(t *testing.T) {
	for body, want := range map[string]int{"": 200, " ": 400} {
		r := httptest.NewRequest("GET", "/profiles/42", io.MultiReader(strings.NewReader(body))) // its length is not known
		w := httptest.NewRecorder()
		New(Config{Broker: newBroker()}).ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("a chunked body of %d bytes: got %d %s, want %d", len(body), w.Code, w.Body, want)
		}
	}
}

func TestFailedCalls(t *testing.T) {
	const secret = "pq: password wrong"
	for _, c := range []struct {
		name      string
		err       error
		status    int
		executed  contract.Executed
		retryable bool // of a PUT, which may run twice
		header    string
	}{
		{"not found", faas.NotFound("no profile %q", "42"), 404, "yes", false, ""},
		{"invalid", faas.InvalidField("/email", "no address"), 422, "yes", false, ""},
		{"malformed", &contract.Error{Code: contract.CodeMalformed}, 400, "yes", false, ""},
		{"unauthorized", faas.Unauthorized("who?"), 401, "yes", false, "Www-Authenticate: Bearer"},
		{"forbidden", faas.Forbidden("no"), 403, "yes", false, ""},
		{"conflict", faas.Conflict("no"), 409, "yes", false, ""},
		{"gone", faas.Gone("no"), 410, "yes", false, ""},
		{"precondition", faas.PreconditionFailed("no"), 412, "yes", false, ""},
		{"throttled", faas.Throttled(1500*time.Millisecond, "no"), 429, "yes", true, "Retry-After: 2"},
		{"later", faas.RetryAfter(3*time.Second, errors.New(secret)), 503, "yes", true, "Retry-After: 3"},
		{"permanent", faas.Permanent("it is broken"), 500, "yes", false, ""},
		{"internal", errors.New(secret), 500, "yes", true, ""},
		{"panic", &contract.Error{Code: contract.CodePanic, Detail: secret, Stack: []byte(secret), Cause: errors.New(secret)}, 500, "yes", false, ""},
		{"a code of tomorrow", &contract.Error{Code: "new", Detail: secret}, 500, "yes", true, ""},
		{"unroutable", &contract.Error{Code: contract.CodeUnroutable, Executed: "no"}, 503, "no", true, "Proxy-Status: Rabbet; error=destination_unavailable"},
		{"refused", &contract.Error{Code: contract.CodeRefused, Executed: "no"}, 503, "no", true, "Retry-After: 1"},
		{"blocked", &contract.Error{Code: contract.CodeBlocked, Executed: "no"}, 503, "no", true, "Retry-After: 1"},
		{"unavailable", &contract.Error{Code: contract.CodeUnavailable, Executed: "no"}, 503, "no", true, "Retry-After: 1"},
		{"unconfirmed", &contract.Error{Code: contract.CodeUnconfirmed, Executed: "unknown"}, 504, "unknown", true, ""},
		{"expired in the queue", contract.Expired("no"), 504, "no", true, ""},
		{"expired while running", contract.Expired("unknown"), 504, "unknown", true, ""},
		{"lost", &contract.Error{Code: contract.CodeLost, Executed: "unknown", Cause: errors.New(secret)}, 502, "unknown", true, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBroker()
			b.call = func(context.Context, contract.Call) (contract.Reply, error) { return contract.Reply{}, c.err }
			h := New(Config{Broker: b})
			r := do(h, "PUT", "/profiles/42", "{}")
			p := readProblem(t, r)
			if p.Status != c.status || p.Executed != c.executed || p.Retryable != c.retryable || p.Function != "update" || p.Attempt != 1 {
				t.Errorf("got %+v, want a %d, executed %s, retryable %v", p, c.status, c.executed, c.retryable)
			}
			if strings.Contains(p.Detail, secret) {
				t.Errorf("detail %q tells internals", p.Detail)
			}
			if name, value, ok := strings.Cut(c.header, ": "); ok && r.Header.Get(name) != value {
				t.Errorf("%s: %q, want %q", name, r.Header.Get(name), value)
			}
			once := readProblem(t, do(h, "POST", "/profiles", "{}"))
			if want := c.retryable && (c.executed == "no" || c.status == 429); once.Retryable != want {
				t.Errorf("retryable %v for a function that must not run twice, want %v", once.Retryable, want)
			}
		})
	}
}

func TestFieldsOfTheFunctionReachTheClient(t *testing.T) {
	b := newBroker()
	b.call = func(context.Context, contract.Call) (contract.Reply, error) {
		return contract.Reply{}, faas.InvalidField("/email", "no address")
	}
	p := readProblem(t, do(New(Config{Broker: b}), "PUT", "/profiles/42", "{}"))
	if len(p.Errors) != 1 || p.Errors[0] != (contract.FieldError{Pointer: "/email", Detail: "no address"}) {
		t.Errorf("errors %v", p.Errors)
	}
}

func TestRequestCarriesItsContext(t *testing.T) {
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	b := newBroker()
	h := New(Config{Broker: b})
	before := time.Now()
	r := do(h, "GET", "/profiles/42", "", "X-Call-Id: my-id.1", "Request-Timeout: 0.25", "Traceparent: "+parent,
		"Tracestate: a=1", "Tracestate: b=2", "Baggage: k=v", "X-Death: 7", "Rabbet-Attempt: 9")
	got := b.lastCall(t)
	if got.ID != "my-id.1" || r.Header.Get("X-Request-Id") != "my-id.1" || got.Correlation != "my-id.1" {
		t.Errorf("id %q, echoed %q", got.ID, r.Header.Get("X-Request-Id"))
	}
	if want := (contract.Trace{Parent: parent, State: "a=1,b=2", Baggage: "k=v"}); got.Trace != want {
		t.Errorf("trace %+v, want %+v", got.Trace, want)
	}
	if d := got.Deadline.Sub(before); d < 250*time.Millisecond || d > 2*time.Second {
		t.Errorf("deadline %v after the request, want 250ms", d)
	}
	if got.Key != "get" || got.Function != "get" {
		t.Errorf("request %+v", got)
	}

	do(h, "GET", "/profiles/42", "", "X-Request-Id: not ok", "Request-Timeout: 999999999999999999999", "Traceparent: 00-nonsense", "Tracestate: a=1")
	got = b.lastCall(t)
	if got.ID == "not ok" || len(got.ID) != 26 || got.Trace != (contract.Trace{}) {
		t.Errorf("malformed id and trace were not replaced: %+v", got)
	}
	if d := time.Until(got.Deadline); d > 5*time.Second {
		t.Errorf("deadline in %v, want the function's 5s at the most", d)
	}
}

func TestClientThatLeft(t *testing.T) {
	b := newBroker()
	ctx, leave := context.WithCancel(t.Context())
	b.call = func(ctx context.Context, _ contract.Call) (contract.Reply, error) {
		leave()
		<-ctx.Done() // as a broker does
		return contract.Reply{}, &contract.Error{Code: contract.CodeCanceled, Executed: contract.ExecutedUnknown, Cause: ctx.Err()}
	}
	log, lines := observed()
	New(Config{Broker: b, Log: log}).ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, "GET", "/profiles/42", nil))
	if got := lines.All()[0].ContextMap()["status"]; got != int64(499) {
		t.Errorf("logged as %v, want 499", got)
	}
}

func TestLimitOfCallsAtOnce(t *testing.T) {
	b := newBroker()
	h := New(Config{Broker: b, MaxInFlight: 1})
	var inner *http.Response
	b.call = func(context.Context, contract.Call) (contract.Reply, error) {
		inner = do(h, "GET", "/profiles/42", "")
		return contract.Reply{Body: []byte("{}")}, nil
	}
	if r := do(h, "GET", "/profiles/42", ""); r.StatusCode != 200 {
		t.Errorf("the first call: %d, want 200", r.StatusCode)
	}
	if p := readProblem(t, inner); p.Status != 503 || p.Executed != contract.ExecutedNo || !p.Retryable || inner.Header.Get("Retry-After") == "" {
		t.Errorf("the call above the limit: %+v, want a 503 with Retry-After", p)
	}
	b.call = nil
	if r := do(h, "GET", "/profiles/42", ""); r.StatusCode != 200 {
		t.Errorf("after both: %d, want 200: the place was not given back", r.StatusCode)
	}
}

func TestPanicBehindTheIngress(t *testing.T) {
	b := newBroker()
	b.call = func(context.Context, contract.Call) (contract.Reply, error) { panic("secret") }
	p := readProblem(t, do(New(Config{Broker: b}), "GET", "/profiles/42", ""))
	if p.Status != 500 || strings.Contains(p.Detail, "secret") {
		t.Errorf("got %+v, want a 500 without internals", p)
	}
}

// The client's patience begins when its request is complete.
func TestPatienceDoesNotCoverTheBody(t *testing.T) {
	b := newBroker()
	server := start(t, New(Config{Broker: b}))
	body, client := io.Pipe()
	var sent time.Time
	go func() {
		io.WriteString(client, `{"id":`)
		time.Sleep(100 * time.Millisecond)
		sent = time.Now()
		io.WriteString(client, `"42"}`)
		client.Close()
	}()
	r, err := http.NewRequest("POST", server.URL+"/functions/plain", body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Request-Timeout", "1")
	response, err := server.Client().Do(r)
	if err != nil || response.StatusCode != 200 {
		t.Fatalf("%v, %v", response, err)
	}
	response.Body.Close()
	if deadline := b.lastCall(t).Deadline; deadline.Before(sent.Add(time.Second)) {
		t.Errorf("the deadline is %v after the body was sent, want a second", deadline.Sub(sent))
	}
}
