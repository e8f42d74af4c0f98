package channel

import amqp "github.com/rabbitmq/amqp091-go"

// A channel of the broker sends a quorum queue up to ackLimit acknowledgements
// (quorum_commands_soft_limit), and keeps what comes then until those are
// written down. What it still keeps when the channel is closed is lost, and the
// messages are delivered again.
const QuorumAckLimit = 32

// SettleAcks waits until the quorum queue has taken all acknowledgements that
// were sent over ch. A Get is answered after what the channel has sent before,
// and a second one after what it had kept, too. A message that comes by it goes
// back with the end of ch.
func SettleAcks(ch *amqp.Channel, queue string) error {
	for range 2 {
		if _, _, err := ch.Get(queue, false); err != nil {
			return err
		}
	}
	return nil
}
