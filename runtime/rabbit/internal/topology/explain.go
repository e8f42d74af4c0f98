package topology

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"

	amqp "github.com/rabbitmq/amqp091-go"
)

// declareError says why the broker refused a declaration, and what to do.
type declareError struct {
	text   string
	reason error
}

func (e *declareError) Error() string { return e.text }
func (e *declareError) Unwrap() error { return e.reason }

// explainDeclare says why the broker refused a declaration of what.
func explainDeclare(what string, err error) error {
	e, ok := errors.AsType[*amqp.Error](err)
	if !ok {
		return fmt.Errorf("declare %s: %w", what, err)
	}
	if isNodeDown(e) {
		return fmt.Errorf("declare %s: %w", what, ErrNodeDown)
	}
	text := fmt.Sprintf("declare %s: %v", what, err)
	switch e.Code {
	case amqp.PreconditionFailed:
		differs := "other arguments (" + e.Reason + ")"
		if d, ok := ParseDrift(e.Reason); ok {
			differs = d.String()
			switch {
			case d.Argument != "x-expires":
			case d.Wanted == "none":
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

// Drift is one property of an exchange or a queue that differs from the
// declaration.
type Drift struct{ Argument, Found, Wanted string }

func (d Drift) String() string {
	return fmt.Sprintf("%s %s where %s is wanted", d.Argument, cmp.Or(d.Found, `""`), cmp.Or(d.Wanted, `""`))
}

var driftPattern = regexp.MustCompile(`inequivalent arg '([^']+)' for .*: received (.+) but current is (.+)$`)
var driftValuePattern = regexp.MustCompile(`^(?:the value )?'(.*?)'(?: of type '.*')?$`)

// ParseDrift parses the reason with which RabbitMQ 3.10 to 4.3 refuse a
// declaration. A reason longer than 255 bytes is truncated and cannot be parsed.
func ParseDrift(reason string) (d Drift, ok bool) {
	m := driftPattern.FindStringSubmatch(reason)
	if m == nil {
		return Drift{}, false
	}
	for i, v := range m[2:] {
		if quoted := driftValuePattern.FindStringSubmatch(v); quoted != nil {
			m[i+2] = quoted[1]
		}
	}
	return Drift{Argument: m[1], Wanted: m[2], Found: m[3]}, true
}
