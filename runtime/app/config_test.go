package app_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rabbet-fn/rabbet/functions"
	"github.com/rabbet-fn/rabbet/runtime/app"
	"github.com/rabbet-fn/rabbet/runtime/app/internal/config"
	"github.com/rabbet-fn/rabbet/runtime/app/internal/logs"
	"github.com/rabbet-fn/rabbet/runtime/app/internal/services"
)

// clearEnv takes every RABBET_ variable out of the environment of the test.
func clearEnv(t *testing.T) {
	t.Helper()
	for _, kv := range os.Environ() {
		if name, value, _ := strings.Cut(kv, "="); strings.HasPrefix(name, config.Prefix) {
			t.Setenv(name, value) // so that it is put back
			os.Unsetenv(name)
		}
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
			c, err := app.Configure(functions.Product)
			if err == nil { // some values only fail where they are used
				_, err = services.OpenBroker(c, logs.New(c, "json"))
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

func TestBrokerURLFromAFile(t *testing.T) {
	clearEnv(t)
	file := filepath.Join(t.TempDir(), "connection_string")
	t.Setenv("RABBET_BROKER_URL_FILE", file)
	c, err := config.Read()
	if err != nil || c.Embedded() {
		t.Fatalf("got %+v, %v, want RabbitMQ", c, err)
	}
	for _, password := range []string{"first", "second"} {
		if err := os.WriteFile(file, []byte("amqp://me:"+password+"@host/\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := c.ReadBrokerURL(); got != "amqp://me:"+password+"@host/" {
			t.Errorf("got %q, %v, want what the file says now", got, err)
		}
	}
	if err := os.WriteFile(file, []byte("postgres://me:secret@host/"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := services.OpenBroker(c, logs.New(c, "json")); err == nil || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "RABBET_BROKER_URL_FILE") {
		t.Errorf("a file with another URL: got %v", err)
	}
	t.Setenv("RABBET_BROKER_URL", "amqp://host/")
	if _, err := config.Read(); err == nil || !strings.Contains(err.Error(), "set one of them") {
		t.Errorf("both: got %v", err)
	}
}
