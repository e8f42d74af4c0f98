package connection

import (
	"errors"
	"fmt"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/zap"
)

// Config says where RabbitMQ is and how a connection to it behaves.
type Config struct {
	URL       string                 // one or more, separated by commas; tried in turn
	URLFrom   func() (string, error) // if set, returns the URL instead, before each attempt to connect
	Namespace string                 // prefix of every exchange and queue
	Process   string                 // unique id of this process
	NoDeclare bool                   // the broker user may declare nothing
	Pace      Pace                   // of attempts to connect
	Log       *zap.Logger
}

// VHost returns the virtual host that the URL names.
func (c Config) VHost() (string, error) {
	list, err := c.addresses()
	if err != nil {
		return "", err
	}
	return list[0].uri.Vhost, nil
}

// address is one broker address to try.
type address struct {
	url string // with its password: never to be shown
	uri amqp.URI
}

func (a address) String() string { return fmt.Sprintf("%s:%d", a.uri.Host, a.uri.Port) }

// addresses parses the URL. Its errors do not contain the URL: one that cannot be
// parsed may have a password anywhere.
func (c Config) addresses() ([]address, error) {
	if c.URLFrom != nil {
		var err error
		if c.URL, err = c.URLFrom(); err != nil {
			return nil, fmt.Errorf("the broker URL is not known: %w", err)
		}
	}
	if strings.TrimSpace(c.URL) == "" {
		return nil, errors.New("the broker URL is empty: write amqp://user:password@host:5672/vhost")
	}
	var list []address
	for i, u := range strings.Split(c.URL, ",") {
		u = strings.TrimSpace(u)
		uri, err := amqp.ParseURI(u)
		if err != nil {
			return nil, fmt.Errorf("broker URL %d cannot be read: write amqp://user:password@host:5672/vhost (or amqps://), with special characters of the password percent-encoded", i+1)
		}
		if uri.Port < 1 || uri.Port > 65535 {
			return nil, fmt.Errorf("broker URL %d: port %d: choose 1 to 65535", i+1, uri.Port)
		}
		list = append(list, address{url: u, uri: uri})
	}
	return list, nil
}
