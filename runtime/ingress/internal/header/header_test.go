package header

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
		if got := IsTraceParent(value); got != want {
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
		if got := Accepts(http.Header{"Accept": {value}}, "application", "json"); got != want {
			t.Errorf("Accept: %s: %v, want %v", value, got, want)
		}
	}
	if !Accepts(http.Header{}, "application", "json") {
		t.Error("without Accept every type is accepted")
	}
}

func TestUnquote(t *testing.T) {
	for value, want := range map[string]string{
		``: ``, `a`: `a`, `"a"`: `a`, `""`: ``, `"`: `"`, `"a`: `"a`, `a"b"`: `a"b"`, `"a\"b\\c"`: `a"b\c`, `"a\"`: `a\`,
	} {
		if got := Unquote(value); got != want {
			t.Errorf("%s: %s, want %s", value, got, want)
		}
	}
}
