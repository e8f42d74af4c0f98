package store

import (
	"strings"
	"testing"
)

func TestSchemes(t *testing.T) {
	opened := ""
	schemes := Schemes{"a": func(url string, _ Options) (Store, error) { opened = url; return nil, nil }, "b": nil}
	if _, err := schemes.Open("a://host", Options{}); err != nil || opened != "a://host" {
		t.Errorf("got %v with %q opened, want a://host", err, opened)
	}
	for url, want := range map[string]string{"host": "no scheme", "c://me:secret@host": `scheme "c": choose one of a, b`} {
		_, err := schemes.Open(url, Options{})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("Open(%q): got %v, want it to say %q and no password", url, err, want)
		}
	}
}
