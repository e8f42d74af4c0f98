package main

import (
	"encoding/base64"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// clearEnv takes every RABBET_ variable out of the environment of the test.
func clearEnv(t *testing.T) {
	t.Helper()
	for _, kv := range os.Environ() {
		if name, value, _ := strings.Cut(kv, "="); strings.HasPrefix(name, envPrefix) {
			t.Setenv(name, value) // so that it is put back
			os.Unsetenv(name)
		}
	}
}

func TestConfigDefaultsAreUsable(t *testing.T) {
	clearEnv(t)
	c, err := readConfig()
	if err != nil {
		t.Fatalf("readConfig: %v", err)
	}
	if !c.embedded() || c.HTTPAddr != "127.0.0.1:8080" || c.Process == "" {
		t.Errorf("defaults: got %+v", c)
	}
}

func TestConfigSaysWhatToMend(t *testing.T) {
	for _, tt := range []struct{ variable, value, want string }{
		{"RABBET_BROKER_URL", "nats://user:secret@host", "memory://, amqp://"},
		{"RABBET_BROKER_URL", "amqp://user:secret@ho st", "amqp"},
		{"RABBET_BROKER_URL_FILE", "/no/such/file", "no such file"},
		{"RABBET_BROKER_URL", "amqp://user:secret@host:99999", "1 to 65535"},
		{"RABBET_CACHE_URL", "http://user:secret@host", "one of none, memory://, redis://"},
		{"RABBET_CACHE_KEY", "secret", "32 bytes in base64"},
		{"RABBET_CACHE_LOCAL", "-1", "from 0 to 65535"},
		{"RABBET_DATABASE_URL", "mysql://user:secret@host/db", "postgres://"},
		{"RABBET_SMTP_URL", "http://user:secret@host", "smtp://"},
		{"RABBET_HTTP_ADDR", "8080", "host:port"},
		{"RABBET_ADMIN_ADDR", "localhost", "host:port"},
		{"RABBET_NAMESPACE", "a.b", "letters"},
		{"RABBET_PROCESS", "a b", "without spaces"},
		{"RABBET_PROCESS", strings.Repeat("p", 101), "at most 100"},
		{"RABBET_LOG_LEVEL", "loud", "debug, info"},
		{"RABBET_LOG_FORMAT", "xml", "json or console"},
		{"RABBET_GRACE", "soon", "duration such as 25s"},
		{"RABBET_GRACE", "-1s", "duration such as 25s"},
		{"RABBET_BATCH", "perhaps", "true or false"},
		{"RABBET_SESSION_URL", "memcached://user:secret@host", "redis+sentinel://"},
		{"RABBET_SESSION_IDLE", "10ms", "duration such as 1h"},
		{"RABBET_SESSION_LIFETIME", "1m", "choose no less"},
		{"RABBET_SESSION_COOKIE", "a b", "letters, digits"},
		{"RABBET_SESSION_SECURE", "perhaps", "true or false"},
		{"RABBET_TRUSTED_PROXIES", "10.0.0.0/99", "10.0.0.0/8"},
	} {
		t.Run(tt.variable+"="+tt.value, func(t *testing.T) {
			clearEnv(t)
			t.Setenv(tt.variable, tt.value)
			c, err := readConfig()
			if err == nil { // some values only fail where they are used
				_, err = openBroker(c, nil, newLog(c, "json"))
			}
			if err == nil {
				t.Fatal("got no error")
			}
			got := err.Error()
			if !strings.Contains(got, tt.variable) || !strings.Contains(got, tt.want) || strings.Contains(got, "\n") {
				t.Errorf("got %q, want one line with %s and %q", got, tt.variable, tt.want)
			}
			if strings.Contains(got, "secret") {
				t.Errorf("the password is in %q", got)
			}
		})
	}
}

func TestConfigReadsListsAsTheyAreMeant(t *testing.T) {
	clearEnv(t)
	key := base64.StdEncoding.EncodeToString(make([]byte, 32))
	t.Setenv("RABBET_FUNCTIONS", " get-profile ,, update-profile,\n")
	t.Setenv("RABBET_TRUSTED_PROXIES", "127.0.0.1, 10.0.0.0/8 ,")
	t.Setenv("RABBET_CACHE_KEY", key+", "+key+",")
	c, err := readConfig()
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"get-profile", "update-profile"}; !slices.Equal(c.Functions, want) {
		t.Errorf("functions: got %q, want %q", c.Functions, want)
	}
	proxies, err := c.trustedProxies()
	if want := []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32"), netip.MustParsePrefix("10.0.0.0/8")}; err != nil || !slices.Equal(proxies, want) {
		t.Errorf("proxies: got %v, %v, want %v", proxies, err, want)
	}
	if keys, err := c.cacheKeys(); err != nil || len(keys) != 2 {
		t.Errorf("keys: got %d, %v, want 2", len(keys), err)
	}
}

func TestUnusableIsOneLine(t *testing.T) {
	got := unusable("X", "1", "%v", errors.New("failed:\n\tfirst\n\tsecond")).Error()
	if want := `RABBET_X="1" cannot be used: failed: first second`; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestEveryVariableIsDescribed(t *testing.T) {
	for v := range variables() {
		if v.doc == "" || v.name == envPrefix {
			t.Errorf("config.%s: give it the tags env and doc", v.field)
		}
	}
}

func TestBrokerURLFromAFile(t *testing.T) {
	clearEnv(t)
	file := filepath.Join(t.TempDir(), "connection_string")
	t.Setenv("RABBET_BROKER_URL_FILE", file)
	c, err := readConfig()
	if err != nil || c.embedded() {
		t.Fatalf("got %+v, %v, want RabbitMQ", c, err)
	}
	for _, password := range []string{"first", "second"} {
		if err := os.WriteFile(file, []byte("amqp://me:"+password+"@host/\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := c.readBrokerURL(); got != "amqp://me:"+password+"@host/" {
			t.Errorf("got %q, %v, want what the file says now", got, err)
		}
	}
	if err := os.WriteFile(file, []byte("postgres://me:secret@host/"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openBroker(c, nil, newLog(c, "json")); err == nil || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "RABBET_BROKER_URL_FILE") {
		t.Errorf("a file with another URL: got %v", err)
	}
	t.Setenv("RABBET_BROKER_URL", "amqp://host/")
	if _, err := readConfig(); err == nil || !strings.Contains(err.Error(), "set one of them") {
		t.Errorf("both: got %v", err)
	}
}
