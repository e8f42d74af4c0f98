package connection

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	amqp "github.com/rabbitmq/amqp091-go"
)

// explainDial says why a could not be connected to, and what to do about it.
func explainDial(a address, err error) error {
	if e, ok := errors.AsType[*amqp.Error](err); ok {
		return explainRefusal(a, e)
	}
	var dns *net.DNSError
	var authority x509.UnknownAuthorityError
	var hostname x509.HostnameError
	var invalid x509.CertificateInvalidError
	var record tls.RecordHeaderError
	var alert tls.AlertError
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("cannot reach RabbitMQ at %v (connection refused): start it with scripts/stack, or run without it: rabbet dev", a)
	case errors.As(err, &dns):
		return fmt.Errorf("cannot reach RabbitMQ at %v (%s): check the host name in the broker URL", a, dns.Err)
	case errors.As(err, &authority):
		return fmt.Errorf("cannot trust RabbitMQ at %v (its certificate is signed by an unknown authority): add ?cacertfile=/path/ca.pem to the broker URL", a)
	case errors.As(err, &hostname), errors.As(err, &invalid):
		return fmt.Errorf("cannot trust RabbitMQ at %v: %w: check its certificate, or add ?server_name_indication=name to the broker URL", a, err)
	case errors.As(err, &record):
		return fmt.Errorf("RabbitMQ at %v does not speak TLS on this port: use amqp://, or the TLS port (5671 by default)", a)
	case errors.As(err, &alert):
		return fmt.Errorf("RabbitMQ at %v refused the TLS handshake (%w): check certfile and keyfile in the broker URL", a, err)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("cannot reach RabbitMQ at %v (no answer within %v): check the address and the firewalls on the way", a, handshakeTimeout)
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return fmt.Errorf("cannot reach RabbitMQ at %v: %w", a, op.Err)
	}
	return fmt.Errorf("cannot connect to RabbitMQ at %v: %w", a, err)
}

func explainRefusal(a address, e *amqp.Error) error {
	switch {
	case e == amqp.ErrCredentials, e.Code == amqp.AccessRefused && e.Server:
		// RabbitMQ gives no reason: it drops the connection.
		return fmt.Errorf("RabbitMQ at %v does not let user %q in: check the user and the password in the broker URL (guest may only log in from localhost)", a, a.uri.Username)
	case e == amqp.ErrVhost, e.Code == amqp.NotAllowed:
		return fmt.Errorf("RabbitMQ at %v does not open virtual host %q to user %q (%s): create it with rabbitmqctl add_vhost, allow it with rabbitmqctl set_permissions, or name another at the end of the broker URL", a, a.uri.Vhost, a.uri.Username, e.Reason)
	case e == amqp.ErrSASL:
		return fmt.Errorf("RabbitMQ at %v offers no login that the broker URL asks for: check auth_mechanism in it", a)
	}
	return fmt.Errorf("RabbitMQ at %v ended the handshake (%s): check that an AMQP 0-9-1 broker listens there, and for TLS use amqps://", a, e.Reason)
}

// explainLoss says that an established connection has ended.
func explainLoss(a address, err error) error {
	if e, ok := errors.AsType[*amqp.Error](err); ok {
		return fmt.Errorf("lost the connection to RabbitMQ at %v (%s): connecting again", a, e.Reason)
	}
	return fmt.Errorf("lost the connection to RabbitMQ at %v (%w): connecting again", a, err)
}
