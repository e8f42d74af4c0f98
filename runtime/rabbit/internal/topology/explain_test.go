package topology

import (
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
)

func TestParseDrift(t *testing.T) {
	for reason, want := range map[string]string{
		"inequivalent arg 'x-delivery-limit' for queue 'q' in vhost '/': received '20' but current is '3'":                                 "x-delivery-limit 3 where 20 is wanted",
		"inequivalent arg 'x-delivery-limit' for queue 'q' in vhost '/': received none but current is the value '3' of type 'long'":        "x-delivery-limit 3 where none is wanted",
		"inequivalent arg 'x-overflow' for queue 'it's' in vhost '/': received the value 'reject' of type 'longstr' but current is none":   "x-overflow none where reject is wanted",
		"PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'x' in vhost '/': received 'direct' but current is 'topic'":            "type topic where direct is wanted",
		"inequivalent arg 'x-dead-letter-exchange' for queue 'q' in vhost '/': received the value '' of type 'longstr' but current is '1'": "x-dead-letter-exchange 1 where \"\" is wanted",
	} {
		if got, ok := ParseDrift(reason); !ok || got.String() != want {
			t.Errorf("%s: got %q, want %q", reason, got, want)
		}
	}
	for _, reason := range []string{"", "inequivalent arg 'durable' for queue 'q' in vhost '/': rec", "something else"} {
		if got, ok := ParseDrift(reason); ok {
			t.Errorf("%q: got %q, want it left alone", reason, got)
		}
	}
}

// Who finds a queue that processes which declare for themselves have made is
// told something else than who finds one of 'rabbet topology apply'.
func TestAdviceGoesByWhoMadeTheQueue(t *testing.T) {
	for reason, want := range map[string]string{
		"inequivalent arg 'x-expires' for queue 'q' in vhost '/': received the value '60000' of type 'long' but current is none": "it was made by 'rabbet topology apply'",
		"inequivalent arg 'x-expires' for queue 'q' in vhost '/': received none but current is the value '60000' of type 'long'": "processes that declare for themselves made it",
	} {
		if err := explainDeclare("queue", &amqp.Error{Code: amqp.PreconditionFailed, Reason: reason}); !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", reason, err, want)
		}
	}
}
