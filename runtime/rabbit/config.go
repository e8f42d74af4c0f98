package rabbit

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// Config says how a Broker is reached and what this process is called on it.
type Config struct {
	URL       string            // amqp:// or amqps://; several, separated by commas, are tried in turn; required unless URLFrom is there
	Namespace string            // prefix of every exchange and queue; "rabbet"
	Process   string            // unique id of this process, and so of its worker; a fresh one
	NoBatch   bool              // send every call in a message of its own
	NoDeclare bool              // the user may declare nothing: Apply has done it
	Grace     time.Duration     // how long running work may take to finish on the way out; 25 s
	Observe   contract.Observer // told of every run; nil: nobody watches
	Log       *zap.Logger       // nil: nothing is logged

	// URLFrom, if it is there, says the URL in place of URL, and is asked again
	// before each attempt to connect: rotated credentials take effect then.
	URLFrom func() (string, error)

	pace         pace          // of connecting again; 100 ms to 5 s
	hearing      time.Duration // how often to look whether broadcasts are heard; as often as workers announce themselves
	declaring    time.Duration // how often to declare again what functions need; 10 s
	watching     time.Duration // how often to look for delay tiers that hold events for too long; 5 s
	copyPace     pace          // of publishing a copy again that the broker did not take; 100 ms to 30 s
	copyPatience time.Duration // how long a delivery is held whose copy the broker does not take; 10 min
}

func (c Config) withDefaults() Config {
	c.Namespace = cmp.Or(c.Namespace, "rabbet")
	c.Process = cmp.Or(c.Process, contract.NewID())
	c.Grace = cmp.Or(c.Grace, 25*time.Second)
	c.pace = cmp.Or(c.pace, pace{first: 100 * time.Millisecond, longest: 5 * time.Second})
	c.hearing = cmp.Or(c.hearing, contract.AnnounceInterval)
	c.declaring = cmp.Or(c.declaring, 10*time.Second)
	c.watching = cmp.Or(c.watching, 5*time.Second)
	c.copyPace = cmp.Or(c.copyPace, pace{first: 100 * time.Millisecond, longest: 30 * time.Second})
	c.copyPatience = cmp.Or(c.copyPatience, 10*time.Minute) // well below the broker's consumer_timeout of 30 min
	if c.Observe == nil {
		c.Observe = func(contract.Invocation) {}
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	return c
}

// maxProcess keeps the names that a process id is part of within AMQP's 255 bytes.
const maxProcess = 100

var namespacePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$`)

func (c Config) validate() error {
	if !namespacePattern.MatchString(c.Namespace) {
		return fmt.Errorf("namespace %q: choose 1 to 100 letters, digits, dots, hyphens and underscores, the first a letter or a digit", c.Namespace)
	}
	if len(c.Process) > maxProcess {
		return fmt.Errorf("process id %.20q…: it has %d bytes: choose at most %d", c.Process, len(c.Process), maxProcess)
	}
	if c.Grace < 0 {
		return fmt.Errorf("grace %v: choose zero or more", c.Grace)
	}
	_, err := c.addresses()
	return err
}

// VHost is the virtual host that the URL names.
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

// addresses takes the URL apart. Its errors keep quiet about the URL itself:
// one that cannot be parsed may hold a password anywhere.
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
