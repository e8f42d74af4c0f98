package config

import (
	"encoding/base64"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
)

// clearEnv takes every RABBET_ variable out of the environment of the test.
func clearEnv(t *testing.T) {
	t.Helper()
	for _, kv := range os.Environ() {
		if name, value, _ := strings.Cut(kv, "="); strings.HasPrefix(name, Prefix) {
			t.Setenv(name, value) // so that it is put back
			os.Unsetenv(name)
		}
	}
}

func TestConfigDefaultsAreUsable(t *testing.T) {
	clearEnv(t)
	c, err := Read()
	if err != nil {
		t.Fatalf("readConfig: %v", err)
	}
	if !c.Embedded() || c.HTTPAddr != "127.0.0.1:8080" || c.Process == "" {
		t.Errorf("defaults: got %+v", c)
	}
}

func TestConfigReadsListsAsTheyAreMeant(t *testing.T) {
	clearEnv(t)
	key := base64.StdEncoding.EncodeToString(make([]byte, 32))
	t.Setenv("RABBET_FUNCTIONS", " get-profile ,, update-profile,\n")
	t.Setenv("RABBET_TRUSTED_PROXIES", "127.0.0.1, 10.0.0.0/8 ,")
	t.Setenv("RABBET_CACHE_KEY", key+", "+key+",")
	c, err := Read()
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"get-profile", "update-profile"}; !slices.Equal(c.Functions, want) {
		t.Errorf("functions: got %q, want %q", c.Functions, want)
	}
	proxies, err := c.Proxies()
	if want := []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32"), netip.MustParsePrefix("10.0.0.0/8")}; err != nil || !slices.Equal(proxies, want) {
		t.Errorf("proxies: got %v, %v, want %v", proxies, err, want)
	}
	if keys, err := c.SealingKeys(); err != nil || len(keys) != 2 {
		t.Errorf("keys: got %d, %v, want 2", len(keys), err)
	}
}

func TestUnusableIsOneLine(t *testing.T) {
	got := Unusable("RABBET_X", "1", "%v", errors.New("failed:\n\tfirst\n\tsecond")).Error()
	if want := `RABBET_X="1" cannot be used: failed: first second`; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestEveryVariableIsDescribed(t *testing.T) {
	for v := range Variables(Config{}, Prefix) {
		if v.Doc == "" || v.Name == Prefix {
			t.Errorf("%s: give it the tags env and doc", v.Field)
		}
	}
}
