package rabbit

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"strings"
	"testing"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

func TestOpenRefusesURL(t *testing.T) {
	for _, u := range []string{"", "http://localhost", "amqp://me:pa/ss:word@localhost", "amqp://localhost,redis://x"} {
		_, err := Open(Config{URL: u})
		if err == nil {
			t.Errorf("Open(%q): got no error", u)
			continue
		}
		if strings.Contains(err.Error(), "word") && strings.Contains(u, "pa/ss:word") && strings.Contains(err.Error(), "ss:word") {
			t.Errorf("Open(%q): the error shows the password: %v", u, err)
		}
	}
}

// unready opens a broker at rawURL and returns what Ready says.
func unready(t *testing.T, rawURL string) string {
	t.Helper()
	b, err := Open(Config{URL: rawURL, Namespace: "test-" + contract.NewID()})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	until(t, "the connection fails", func(ctx context.Context) bool {
		changed := b.publish.Changed()
		if got := b.publish.Health().Error(); !strings.Contains(got, "not connected") && !strings.Contains(got, "has not answered yet") {
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
		return false
	})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	err = b.Ready(ctx)
	if err == nil || b.Health() == nil {
		t.Fatalf("Ready: got %v, Health: got %v, want errors", err, b.Health())
	}
	return err.Error()
}

func TestUnreachableSaysWhatToDo(t *testing.T) {
	good, err := url.Parse(brokerURL(t))
	if err != nil {
		t.Fatal(err)
	}
	with := func(change func(*url.URL)) string {
		u := *good
		change(&u)
		return u.String()
	}
	closedPort := func() string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return l.Addr().String()
	}()
	for name, c := range map[string]struct{ url, want string }{
		"refused":        {"amqp://guest:secret@" + closedPort, fmt.Sprintf("cannot reach RabbitMQ at %s (connection refused): start it with scripts/stack, or run without it: rabbet dev", closedPort)},
		"wrong password": {with(func(u *url.URL) { u.User = url.UserPassword("guest", "secret") }), `does not let user "guest" in`},
		"wrong vhost":    {with(func(u *url.URL) { u.Path = "/no-such-vhost" }), `does not open virtual host "no-such-vhost"`},
		"no TLS":         {with(func(u *url.URL) { u.Scheme = "amqps" }), "does not speak TLS"},
		"no such host":   {"amqp://guest:secret@no-such-host.invalid", "check the host name"},
	} {
		t.Run(name, func(t *testing.T) {
			got := unready(t, c.url)
			if !strings.Contains(got, c.want) {
				t.Errorf("got %q, want %q in it", got, c.want)
			}
			if strings.Contains(got, "secret") {
				t.Errorf("the message shows the password: %q", got)
			}
		})
	}
}

func TestSeveralAddressesAreTriedInTurn(t *testing.T) {
	b := openBroker(t, func(c *Config) { c.URL = "amqp://guest:guest@127.0.0.1:1," + c.URL })
	if err := b.Health(); err != nil {
		t.Errorf("Health: got %v, want nil", err)
	}
}
