package ingress

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/cloudevents"
)

func TestPublish(t *testing.T) {
	b := newBroker()
	h := New(Config{Broker: b})
	r := do(h, "POST", "/events/profile.updated", `{ "id":"42"}`, "X-Call-Id: e1", "Cc: other", "X-Death: 1")
	if got := text(t, r); r.StatusCode != 202 || strings.TrimSpace(got) != `{"id":"e1"}` {
		t.Fatalf("%d %s, want 202 with the id", r.StatusCode, got)
	}
	e := b.published()[0]
	if e.Key != "profile.updated" || e.ID != "e1" || string(e.Body) != `{ "id":"42"}` || e.ContentType != "application/json" || len(e.Headers) != 0 {
		t.Errorf("published %+v", e)
	}
	do(h, "POST", "/events/a", "\x00\xff", "Content-Type: application/octet-stream")
	if e := b.published()[1]; string(e.Body) != "\x00\xff" || e.ContentType != "application/octet-stream" {
		t.Errorf("bytes became %+v", e)
	}
	do(h, "POST", "/events/a", "{}", "X-Request-Id: r0", "X-Call-Id: e2")
	if e := b.published()[2]; e.ID != "e2" || e.Correlation != "r0" {
		t.Errorf("with both ids: %+v", e)
	}
	for range 2 { // of one request, which is the client's
		do(h, "POST", "/events/a", "{}", "X-Request-Id: r1")
	}
	if one, other := b.published()[3], b.published()[4]; one.ID == other.ID || one.ID == "r1" || one.Correlation != "r1" || other.Correlation != "r1" {
		t.Errorf("two events of one request: %+v and %+v, want two ids and one correlation", one, other)
	}
}

func TestPublishRefused(t *testing.T) {
	for _, c := range []struct {
		name, target, body, field string
		status                    int
	}{
		{"long key", "/events/" + strings.Repeat("k", 256), "{}", "", 400},
		{"pattern", "/events/a.*", "{}", "", 400},
		{"NUL in key", "/events/a%00", "{}", "", 400},
		{"no JSON", "/events/a", "{", "", 400},
		{"no UTF-8", "/events/a", "{\"a\":\"Z\xff\"}", "", 400},
		{"query", "/events/a?id=1", "{}", "", 422},
		{"large", "/events/a", strings.Repeat(" ", 1<<20) + "{}", "", 413},
		{"browser without a type", "/events/a", "{}", "Origin: https://evil.example", 415},
		{"long content type", "/events/a", "{}", "Content-Type: a/" + strings.Repeat("x", 300), 415},
		{"not a CloudEvent", "/events", "{}", "Content-Type: application/json", 415},
		{"Request-Timeout", "/events/a", "{}", "Request-Timeout: soon", 400},
		{"Deliver-In", "/events/a", "{}", "Deliver-In: soon", 400},
		{"Deliver-In in the past", "/events/a", "{}", "Deliver-In: -1", 400},
		{"Deliver-In too long", "/events/a", "{}", "Deliver-In: 2592001", 400},
		{"Deliver-In for ever", "/events/a", "{}", "Deliver-In: 99999999999999999999", 400},
		{"Deliver-At", "/events/a", "{}", "Deliver-At: noon", 400},
		{"Deliver-At too late", "/events/a", "{}", "Deliver-At: 2999-01-01T00:00:00Z", 400},
	} {
		b := newBroker()
		fields := []string{}
		if c.field != "" {
			fields = append(fields, c.field)
		}
		if p := readProblem(t, do(New(Config{Broker: b}), "POST", c.target, c.body, fields...)); p.Status != c.status || len(b.published()) > 0 {
			t.Errorf("%s: %+v after %d publishes, want %d after none", c.name, p, len(b.published()), c.status)
		}
	}
}

func TestPublishLater(t *testing.T) {
	const event = `{"specversion":"1.0","id":"1","source":"s","type":"t"}`
	tomorrow := time.Now().Add(24 * time.Hour).Truncate(time.Second)
	for _, c := range []struct {
		target, body, field string
		want                time.Time
	}{
		{"/events/a", "{}", "X: y", time.Time{}},
		{"/events/a", "{}", "Deliver-At: " + tomorrow.UTC().Format(time.RFC3339), tomorrow},
		{"/events/a", "{}", "Deliver-In: 86400.5", time.Now().Add(86400500 * time.Millisecond)},
		{"/events/a", "{}", "Deliver-At: " + strings.ToLower(tomorrow.UTC().Format(time.RFC3339)), tomorrow},
		{"/events", event, "Deliver-At: " + tomorrow.Format(time.RFC3339), tomorrow},
	} {
		b := newBroker()
		if r := do(New(Config{Broker: b}), "POST", c.target, c.body, c.field, "Content-Type: application/cloudevents+json"); r.StatusCode != 202 {
			t.Errorf("%s: %d", c.field, r.StatusCode)
			continue
		}
		got := b.published()[0].NotBefore
		if off := got.Sub(c.want); got.IsZero() != c.want.IsZero() || off < 0 || off > time.Minute {
			t.Errorf("%s: not before %v, want %v", c.field, got, c.want)
		}
	}
}

func TestFailedPublish(t *testing.T) {
	for _, c := range []struct {
		code      contract.Code
		status    int
		executed  contract.Executed
		retryable bool
	}{
		{contract.CodeUnroutable, 404, "no", false},
		{contract.CodeRefused, 503, "unknown", false}, // another queue may have taken it
		{contract.CodeBlocked, 503, "no", true},
		{contract.CodeUnavailable, 503, "no", true},
		{contract.CodeUnconfirmed, 504, "unknown", false},
		{contract.CodeInternal, 500, "unknown", false},
	} {
		b := newBroker()
		b.publish = func(context.Context, contract.Event) error {
			return &contract.Error{Code: c.code, Executed: c.executed}
		}
		r := do(New(Config{Broker: b}), "POST", "/events/a", "{}")
		p := readProblem(t, r)
		if p.Status != c.status || p.Executed != c.executed || p.Retryable != c.retryable || (c.status == 503) != (r.Header.Get("Retry-After") != "") {
			t.Errorf("%s: %+v, want a %d, executed %s, retryable %v", c.code, p, c.status, c.executed, c.retryable)
		}
	}
}

func TestCloudEventModes(t *testing.T) {
	const data = `{"id":"42"}`
	want := contract.Event{
		Key: "profile.updated", ID: "ce1", Type: "profile.updated", ContentType: "application/json",
		Time: time.Date(2026, 1, 2, 3, 4, 5, 600, time.UTC), Body: []byte(data),
		Headers: map[string]any{
			"cloudEvents_specversion": "1.0", "cloudEvents_id": "ce1", "cloudEvents_source": "/crm", "cloudEvents_type": "profile.updated",
			"cloudEvents_time": "2026-01-02T03:04:05.0000006Z", "cloudEvents_subject": "é", "cloudEvents_n": "7",
		},
	}
	const structured = `{"specversion":"1.0","id":"ce1","source":"/crm","type":"profile.updated","time":"2026-01-02T03:04:05.0000006Z","subject":"é","n":7,"data":` + data + `}`
	for name, c := range map[string]struct {
		body   string
		fields []string
	}{
		"binary": {data, []string{"Content-Type: application/json", "Ce-Specversion: 1.0", "Ce-Id: ce1", "Ce-Source: /crm", "Ce-Type: profile.updated",
			"Ce-Time: 2026-01-02T03:04:05.0000006Z", "Ce-Subject: %C3%A9", "Ce-N: 7"}},
		"binary, quoted": {data, []string{"Content-Type: application/json", `Ce-Specversion: "1.0"`, `Ce-Id: "c\e1"`, `Ce-Source: "/crm"`, `Ce-Type: "profile.updated"`,
			"Ce-Time: 2026-01-02T03:04:05.0000006Z", `Ce-Subject: "%C3%A9"`, "Ce-N: 7"}},
		"structured": {structured, []string{"Content-Type: application/cloudevents+json; charset=utf-8"}},
		"batch":      {"[" + structured + "]", []string{"Content-Type: application/cloudevents-batch+json"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBroker()
			r := do(New(Config{Broker: b}), "POST", "/events", c.body, append(c.fields, "X-Request-Id: r1")...)
			if r.StatusCode != 202 {
				t.Fatalf("%d: %s", r.StatusCode, text(t, r))
			}
			got := b.published()[0]
			if got.Correlation != "r1" {
				t.Errorf("correlation %q, want the request's id", got.Correlation)
			}
			got.Correlation = ""
			gotJSON, _ := json.Marshal(got)
			wantJSON, _ := json.Marshal(want)
			if string(gotJSON) != string(wantJSON) {
				t.Errorf("published\n%s, want\n%s", gotJSON, wantJSON)
			}
		})
	}
}

func TestCloudEventData(t *testing.T) {
	for _, c := range []struct{ more, body, contentType, key string }{
		{`,"data_base64":"AP8=","datacontenttype":"application/octet-stream"`, "\x00\xff", "application/octet-stream", "t"},
		{`,"data":"hi","datacontenttype":"text/plain"`, "hi", "text/plain", "t"},
		{`,"data":"hi"`, `"hi"`, "application/json", "t"},
		{``, `{}`, "application/json", "t"},
		{`,"data":[1],"routingkey":"other.key"`, `[1]`, "application/json", "other.key"},
	} {
		b := newBroker()
		r := do(New(Config{Broker: b}), "POST", "/events", `{"specversion":"1.0","id":"1","source":"s","type":"t"`+c.more+`}`, "Content-Type: application/cloudevents+json")
		if r.StatusCode != 202 {
			t.Errorf("%s: %d %s", c.more, r.StatusCode, text(t, r))
			continue
		}
		if e := b.published()[0]; string(e.Body) != c.body || e.ContentType != c.contentType || e.Key != c.key {
			t.Errorf("%s: published %+v", c.more, e)
		}
	}
}

func TestMalformedCloudEvents(t *testing.T) {
	for _, c := range []struct{ event, pointer string }{
		{`{"id":"1","source":"s","type":"t"}`, "/specversion"},
		{`{"specversion":"0.3","id":"1","source":"s","type":"t"}`, "/specversion"},
		{`{"specversion":"1.0","source":"s","type":"t"}`, "/id"},
		{`{"specversion":"1.0","id":"","source":"s","type":"t"}`, "/id"},
		{`{"specversion":"1.0","id":"1","source":"%zz","type":"t"}`, "/source"},
		{`{"specversion":"1.0","id":"1","source":"s"}`, "/type"},
		{`{"specversion":"1.0","id":"1","source":"s","type":"t","time":"noon"}`, "/time"},
		{`{"specversion":"1.0","id":"1","source":"s","type":"t","dataschema":"x"}`, "/dataschema"},
		{`{"specversion":"1.0","id":"1","source":"s","type":"t","subject":""}`, "/subject"},
		{`{"specversion":"1.0","id":"1","source":"s","type":"t","Bad":"x"}`, "/Bad"},
		{`{"specversion":"1.0","id":"1","source":"s","type":"t","x":{}}`, "/x"},
		{`{"specversion":"1.0","id":"1","source":"s","type":"t","x":"a\u0000"}`, "/x"},
		{`{"specversion":"1.0","id":"1","source":"s","type":"t","data":1,"data_base64":"AA=="}`, "/data_base64"},
		{`{"specversion":"1.0","id":"1","source":"s","type":"t","data_base64":"?"}`, "/data_base64"},
		{`{"specversion":"1.0","id":"1","source":"s","type":"t.#"}`, "/type"},
		{`{"specversion":"1.0","id":"1","source":"s","type":"` + strings.Repeat("t", 256) + `"}`, "/type"},
		{`{"specversion":"1.0","id":1,"source":"s","type":"t"}`, "/id"},
		{`{"specversion":"1.0","id":"1","source":"s","type":"t","datacontenttype":5}`, "/datacontenttype"},
		{`{"specversion":"1.0","id":"1","source":"s","type":"t","x":2147483648}`, "/x"},
		{`{"specversion":"1.0","id":"1","source":"s","type":"t","time":"9999-12-31T23:59:59-01:00"}`, "/time"},
		{"{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"s\",\"type\":\"t\",\"data\":\"\xff\"}", "/data"},
		{`[]`, ""},
		{`null`, ""},
	} {
		const good = `{"specversion":"1.0","id":"1","source":"s","type":"t"}`
		for at, body := range map[string]string{"": c.event, "/1": "[" + good + "," + c.event + "]"} {
			contentType := cloudevents.Type
			if at != "" {
				contentType = cloudevents.BatchType
			}
			b := newBroker()
			p := readProblem(t, do(New(Config{Broker: b}), "POST", "/events", body, "Content-Type: "+contentType))
			hit := slices.ContainsFunc(p.Errors, func(f contract.FieldError) bool { return f.Pointer == at+c.pointer })
			if p.Status != 400 || !hit || len(b.published()) > 0 {
				t.Errorf("%s: %+v, want a 400 that points at %q, nothing published", body, p, at+c.pointer)
			}
		}
	}
}

func TestBatchReportsEachEvent(t *testing.T) {
	b := newBroker()
	b.publish = func(_ context.Context, e contract.Event) error {
		if e.Key == "nobody" {
			return contract.ErrUnroutable
		}
		return nil
	}
	r := do(New(Config{Broker: b}), "POST", "/events",
		`[{"specversion":"1.0","id":"1","source":"s","type":"a"},{"specversion":"1.0","id":"2","source":"s","type":"nobody"},{"specversion":"1.0","id":"3","source":"s","type":"b"}]`,
		"Content-Type: application/cloudevents-batch+json")
	var report []eventStatus
	if err := json.Unmarshal([]byte(text(t, r)), &report); err != nil || r.StatusCode != http.StatusMultiStatus {
		t.Fatal(r.StatusCode, err)
	}
	for n, want := range []int{202, 404, 202} {
		if report[n].Status != want {
			t.Errorf("event %s: %d, want %d", report[n].ID, report[n].Status, want)
		}
	}
}
