package contract

import (
	"strings"
	"testing"
	"time"
)

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		pattern, key string
		want         bool
	}{
		{"a", "a", true},
		{"a", "b", false},
		{"a", "a.b", false},
		{"a.b", "a", false},
		{"*", "a", true},
		{"*", "a.b", false},
		{"a.*", "a", false},
		{"a.*", "a.b", true},
		{"a.*", "a.b.c", false},
		{"*.b", "a.b", true},
		{"#", "a", true},
		{"#", "a.b.c", true},
		{"a.#", "a", true},
		{"a.#", "a.b.c", true},
		{"a.#", "b", false},
		{"#.c", "c", true},
		{"#.c", "a.b.c", true},
		{"#.c", "a.c.b", false},
		{"a.#.c", "a.c", true},
		{"a.#.c", "a.b.b.c", true},
		{"a.#.c", "a.b.b", false},
		{"a.#.b.#.c", "a.x.b.y.b.c", true},
		{"#.#", "a", true},
		{"#.*", "a", true},
		{"*.#", "a.b", true},
		{"*.*", "a..", false},
		{"a.*.b", "a..b", true},
		{"a*", "ab", false}, // "*" is a word, not a part of one
		{"a#", "ab", false},
		{"a*", "a*", true},
	} {
		if got := Match(c.pattern, c.key); got != c.want {
			t.Errorf("Match(%q, %q): got %v, want %v", c.pattern, c.key, got, c.want)
		}
	}
}

// A pattern may come from whoever watches events: it must not cost more than
// its length.
func TestMatchIsNotExponential(t *testing.T) {
	pattern := strings.Repeat("#.a.", 30) + "b"
	key := strings.TrimSuffix(strings.Repeat("a.", 127), ".")
	done := make(chan bool, 1)
	go func() { done <- Match(pattern, key) }()
	select {
	case got := <-done:
		if got {
			t.Error("got a match")
		}
	case <-time.After(10 * time.Second):
		t.Fatal("no answer within 10 s")
	}
}

func FuzzMatch(f *testing.F) {
	f.Add("a.#.c", "a.b.c")
	f.Add("#.*.#", "a")
	f.Fuzz(func(t *testing.T, pattern, key string) {
		if len(pattern) > 24 || len(key) > 24 {
			return // the plain definition below is exponential
		}
		want := define(strings.Split(pattern, "."), strings.Split(key, "."))
		if got := Match(pattern, key); got != want {
			t.Errorf("Match(%q, %q): got %v, want %v", pattern, key, got, want)
		}
	})
}

// define is the definition of a topic match, written down word for word.
func define(pattern, key []string) bool {
	switch {
	case len(pattern) == 0:
		return len(key) == 0
	case pattern[0] == "#":
		return define(pattern[1:], key) || len(key) > 0 && define(pattern, key[1:])
	case len(key) == 0:
		return false
	}
	return (pattern[0] == "*" || pattern[0] == key[0]) && define(pattern[1:], key[1:])
}
