package services

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/app/internal/config"
	"github.com/rabbet-fn/rabbet/runtime/contract"
)

func TestCommandsSayWhyTheBrokerIsNotReady(t *testing.T) {
	mute, err := net.Listen("tcp", "127.0.0.1:0") // accepts, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err = Dial(ctx, &config.Config{BrokerURL: "amqp://user:secret@" + mute.Addr().String(), Namespace: "test", Process: "test"})
	if err == nil || !strings.Contains(err.Error(), mute.Addr().String()+" has not answered yet") || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v, want the address that has not answered, without the password", err)
	}
}

func TestCommandsSayWhatTheBrokerDoesNotAllow(t *testing.T) {
	if testing.Short() {
		t.Skip("needs RabbitMQ")
	}
	broker, err := url.Parse(os.Getenv("RABBET_TEST_AMQP_URL"))
	if err != nil || broker.Host == "" {
		t.Fatal("set RABBET_TEST_AMQP_URL and RABBET_TEST_AMQP_MANAGEMENT_URL, or run scripts/test, which starts RabbitMQ")
	}
	user := "test-" + contract.NewID()
	manage := func(method, path, body string) {
		t.Helper()
		r, err := http.NewRequest(method, os.Getenv("RABBET_TEST_AMQP_MANAGEMENT_URL")+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode >= 300 {
			t.Fatalf("%s %s: %s", method, path, response.Status)
		}
	}
	manage("PUT", "/api/users/"+user, `{"password":"secret","tags":""}`)
	defer manage("DELETE", "/api/users/"+user, "")
	manage("PUT", "/api/permissions/%2F/"+user, `{"configure":"^$","write":"^$","read":".*"}`)
	broker.User = url.UserPassword(user, "secret")

	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	_, err = Dial(ctx, &config.Config{BrokerURL: broker.String(), Namespace: user, Process: "test"})
	if err == nil || !strings.Contains(err.Error(), "no permission") || !strings.Contains(err.Error(), "set_permissions") {
		t.Errorf("got %v, want that the user has no permission, and how to grant it", err)
	}
}
