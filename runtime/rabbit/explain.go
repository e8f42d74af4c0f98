package rabbit

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
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

// declareError says why the broker did not take a declaration, and what to do.
type declareError struct {
	text   string
	reason error
}

func (e *declareError) Error() string { return e.text }
func (e *declareError) Unwrap() error { return e.reason }

// explainDeclare says why the broker did not take a declaration of what.
func explainDeclare(what string, err error) error {
	e, ok := errors.AsType[*amqp.Error](err)
	if !ok {
		return fmt.Errorf("declare %s: %w", what, err)
	}
	if isHomeDown(e) {
		return fmt.Errorf("declare %s: %w", what, errHomeDown)
	}
	text := fmt.Sprintf("declare %s: %v", what, err)
	switch e.Code {
	case amqp.PreconditionFailed:
		differs := "other arguments (" + e.Reason + ")"
		if d, ok := parseDrift(e.Reason); ok {
			differs = d.String()
			switch {
			case d.argument != "x-expires":
			case d.wanted == "none":
				differs += " (so processes that declare for themselves made it: set RABBET_DECLARE=false for all of them first)"
			default:
				differs += " (so it was made by 'rabbet topology apply': then set RABBET_DECLARE=false)"
			}
		}
		text = fmt.Sprintf("%s exists with %s: it is left as it is; drain and delete it by hand, or choose another namespace", what, differs)
	case amqp.AccessRefused:
		text = fmt.Sprintf("declare %s: the broker user has no permission (%s): grant it with rabbitmqctl set_permissions, or have 'rabbet topology apply' do it for a user who may, and set RABBET_DECLARE=false", what, e.Reason)
	case amqp.ResourceLocked:
		text = fmt.Sprintf("declare %s: another connection owns it (%s)", what, e.Reason)
	}
	return &declareError{text, e}
}

// explainOwnQueue says why the broker did not let a process have a queue for
// itself: for replies, or for broadcasts.
func (n names) explainOwnQueue(err error) error {
	if e, ok := errors.AsType[*amqp.Error](err); ok && e.Code == amqp.AccessRefused {
		return fmt.Errorf("declare a queue of this process's own: the broker user has no permission (%s): every process needs it, grant the user configure permission on %s", e.Reason, n.ownQueues())
	}
	return explainDeclare("a queue of this process's own", err)
}

// drift is one property in which an exchange or a queue is not as it is wanted.
type drift struct{ argument, found, wanted string }

func (d drift) String() string {
	return fmt.Sprintf("%s %s where %s is wanted", d.argument, cmp.Or(d.found, `""`), cmp.Or(d.wanted, `""`))
}

var driftPattern = regexp.MustCompile(`inequivalent arg '([^']+)' for .*: received (.+) but current is (.+)$`)
var driftValuePattern = regexp.MustCompile(`^(?:the value )?'(.*?)'(?: of type '.*')?$`)

// parseDrift reads the broker's refusal of a declaration, as all versions from
// 3.10 to 4.3 word it. A reason longer than 255 bytes is cut off and not read.
func parseDrift(reason string) (d drift, ok bool) {
	m := driftPattern.FindStringSubmatch(reason)
	if m == nil {
		return drift{}, false
	}
	for i, v := range m[2:] {
		if quoted := driftValuePattern.FindStringSubmatch(v); quoted != nil {
			m[i+2] = quoted[1]
		}
	}
	return drift{argument: m[1], wanted: m[2], found: m[3]}, true
}

// closedError is the broker's reason to close a channel.
type closedError struct {
	what   string
	reason *amqp.Error
}

func (e *closedError) Error() string {
	if e.reason.Code == amqp.AccessRefused {
		return fmt.Sprintf("the broker closed %s: the broker user has no permission (%s): grant it with rabbitmqctl set_permissions", e.what, e.reason.Reason)
	}
	return "the broker closed " + e.what + ": " + e.reason.Reason
}

func (e *closedError) Unwrap() error { return e.reason }
