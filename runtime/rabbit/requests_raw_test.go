package rabbit

import (
	"os"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
)

// requestBrokerURL is the URL of the broker to test with.
func requestBrokerURL(t testing.TB) string {
	t.Helper()
	if testing.Short() {
		t.Skip("needs RabbitMQ")
	}
	url := os.Getenv("RABBET_TEST_AMQP_URL")
	if url == "" {
		t.Fatal("set RABBET_TEST_AMQP_URL, or run scripts/test, which starts one")
	}
	return url
}

// rawChannel is what a client that is not ours works with.
func rawChannel(t testing.TB) *amqp.Channel {
	t.Helper()
	conn, err := amqp.Dial(requestBrokerURL(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	return ch
}
