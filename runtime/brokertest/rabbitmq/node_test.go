package rabbitmq

import (
	"context"
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

func TestKilledNodeKeepsConfirmedMessages(t *testing.T) {
	node := New(t, Config{Settings: "channel_max = 33"})
	ctx, cancel := context.WithTimeout(t.Context(), startLimit)
	defer cancel()

	ch := channel(t, node)
	if _, err := ch.QueueDeclare("q", true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	confirmation, err := ch.PublishWithDeferredConfirm("", "q", true, false, amqp.Publishing{Body: []byte("kept"), DeliveryMode: amqp.Persistent})
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := confirmation.WaitContext(ctx); !ok {
		t.Fatalf("the publish was not confirmed: %v", err)
	}

	// RabbitMQ confirms the message before it has written its table of queues.
	if err := node.Remember(ctx); err != nil {
		t.Fatal(err)
	}
	node.Kill()
	if conn, err := amqp.Dial(node.URL()); err == nil {
		_ = conn.Close()
		t.Error("the node accepts connections after it was killed")
	}
	if err := node.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	if got, ok, err := channel(t, node).Get("q", true); err != nil || !ok || string(got.Body) != "kept" {
		t.Errorf("got %q, %v, %v, want the message", got.Body, ok, err)
	}
	if queues, err := node.Ctl(ctx, "--quiet", "list_queues", "name"); err != nil || !strings.Contains(queues, "q") {
		t.Errorf("got %q, %v from rabbitmqctl, want the queue", queues, err)
	}
}

// channel opens a channel and closes its connection when the test ends.
func channel(t *testing.T, n *Node) *amqp.Channel {
	t.Helper()
	conn, err := amqp.Dial(n.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if conn.Config.ChannelMax != 33 {
		t.Errorf("got channel_max %d, want the 33 of the settings", conn.Config.ChannelMax)
	}
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

func TestStartErrors(t *testing.T) {
	t.Setenv("RABBET_TEST_RABBITMQ", "")
	if _, err := Start(t.Context(), Config{Dir: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "RABBET_TEST_RABBITMQ") {
		t.Errorf("got %v without a command, want an error that names RABBET_TEST_RABBITMQ", err)
	}
	if _, err := Start(t.Context(), Config{Dir: t.TempDir(), Command: "/bin/false"}); err == nil || !strings.Contains(err.Error(), "ended before it was ready") {
		t.Errorf("got %v from a server that ends at once, want that it ended", err)
	}
}
