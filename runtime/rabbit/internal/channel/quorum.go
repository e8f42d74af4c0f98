package channel

import amqp "github.com/rabbitmq/amqp091-go"

// QuorumAckLimit is how many acknowledgements a channel of the broker sends to a
// quorum queue before the queue has stored them (quorum_commands_soft_limit). The
// channel keeps further ones until then. Those that it still keeps when it is closed
// are lost, and the messages are delivered again.
const QuorumAckLimit = 32

// SettleAcks waits until the quorum queue has stored all acknowledgements that were
// sent over ch. The answer to a Get comes after those that the channel has sent on,
// and the answer to a second one after those that it had kept. A message that a Get
// returns goes back to the queue when ch is closed.
func SettleAcks(ch *amqp.Channel, queue string) error {
	for range 2 {
		if _, _, err := ch.Get(queue, false); err != nil {
			return err
		}
	}
	return nil
}
