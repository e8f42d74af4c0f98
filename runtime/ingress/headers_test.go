package ingress

import (
	"net/http"
	"strings"
	"testing"
)

func TestTraceparent(t *testing.T) {
	const good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for value, want := range map[string]bool{
		good:                               true,
		"cc" + good[2:]:                    true,
		"ff" + good[2:]:                    false,
		good + "-more":                     false,
		"01" + good[2:] + "-more":          true,
		"01" + good[2:] + "-mo\x01e":       false,
		"01" + good[2:] + "more":           false,
		strings.ToUpper(good):              false,
		strings.Replace(good, "-", "_", 1): false,
		"00-00000000000000000000000000000000-b7ad6b7169203331-01": false,
		"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01": false,
		"": false,
	} {
		if got := wellFormedParent(value); got != want {
			t.Errorf("%q: well formed %v, want %v", value, got, want)
		}
	}
}

func TestAccepts(t *testing.T) {
	for value, want := range map[string]bool{
		"":                               true,
		"*/*":                            true,
		"application/json":               true,
		"APPLICATION/JSON;q=0.1":         true,
		"application/*":                  true,
		"text/html":                      false,
		"text/html, */*;q=0.1":           true,
		"*/*;q=0":                        false,
		"application/json;q=0, */*":      false,
		"application/json;q=0.000":       false,
		"application/*;q=0, */*":         false,
		"application/json, */*;q=0":      true,
		"rubbish;;, application/json":    true,
		"application/problem+json":       false,
		`text/html;a="x, */*"`:           false,
		`text/html;a="\",", */*;q=0.5`:   true,
		"text/html,application/xml;q=.9": false,
	} {
		if got := accepts(http.Header{"Accept": {value}}, "application", "json"); got != want {
			t.Errorf("Accept: %s: %v, want %v", value, got, want)
		}
	}
	if !accepts(http.Header{}, "application", "json") {
		t.Error("without Accept anything goes")
	}
}

// What says nothing about caching is kept by nobody, a redirect neither.
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

func TestUnquoted(t *testing.T) {
	for value, want := range map[string]string{
		``: ``, `a`: `a`, `"a"`: `a`, `""`: ``, `"`: `"`, `"a`: `"a`, `a"b"`: `a"b"`, `"a\"b\\c"`: `a"b\c`, `"a\"`: `a\`,
	} {
		if got := unquoted(value); got != want {
			t.Errorf("%s: %s, want %s", value, got, want)
		}
	}
}
