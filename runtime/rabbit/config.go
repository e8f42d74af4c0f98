package rabbit

import (
	"cmp"
	"fmt"
	"regexp"
	"time"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/connection"
)

// Config configures a Broker. Zero values mean the default in the comment.
type Config struct {
	URL       string            // amqp:// or amqps://; several, separated by commas, are tried in turn; required unless URLFrom is set
	Namespace string            // prefix of every exchange and queue; "rabbet"
	Process   string            // unique id of this process; a generated one
	NoBatch   bool              // send each call in a separate message
	NoDeclare bool              // declare nothing: Topology.Apply has declared everything
	Grace     time.Duration     // how long runs may take to finish on shutdown; 25 s
	Observe   contract.Observer // called after every run; none
	Log       *zap.Logger       // no logs

	// URLFrom, if set, returns the URL before each attempt to connect, so that
	// rotated credentials take effect. URL is then ignored.
	URLFrom func() (string, error)

	pace              connection.Pace // of reconnecting; 100 ms to 5 s
	broadcastCheck    time.Duration   // how often to check that own broadcasts arrive; contract.AnnounceInterval
	redeclareInterval time.Duration   // how often to declare again what functions need; 10 s
	tierCheckInterval time.Duration   // how often to check for overdue delay tiers; 5 s
	copyPace          connection.Pace // of retries to publish a copy of an event; 100 ms to 30 s
	copyPatience      time.Duration   // how long to retry that before the event is requeued; 10 min
}

func (c Config) withDefaults() Config {
	c.Namespace = cmp.Or(c.Namespace, "rabbet")
	c.Process = cmp.Or(c.Process, contract.NewID())
	c.Grace = cmp.Or(c.Grace, 25*time.Second)
	c.pace = cmp.Or(c.pace, connection.Pace{First: 100 * time.Millisecond, Longest: 5 * time.Second})
	c.broadcastCheck = cmp.Or(c.broadcastCheck, contract.AnnounceInterval)
	c.redeclareInterval = cmp.Or(c.redeclareInterval, 10*time.Second)
	c.tierCheckInterval = cmp.Or(c.tierCheckInterval, 5*time.Second)
	c.copyPace = cmp.Or(c.copyPace, connection.Pace{First: 100 * time.Millisecond, Longest: 30 * time.Second})
	c.copyPatience = cmp.Or(c.copyPatience, 10*time.Minute) // well below the broker's consumer_timeout of 30 min
	if c.Observe == nil {
		c.Observe = func(contract.Invocation) {}
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	return c
}

// maxProcess is the maximum length of Process, in bytes: names that contain it have
// at most 255 bytes.
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
	_, err := c.connection().VHost()
	return err
}

// VHost returns the virtual host that the URL names.
func (c Config) VHost() (string, error) {
	return c.connection().VHost()
}

// connection returns the settings for connections.
func (c Config) connection() connection.Config {
	return connection.Config{
		URL: c.URL, URLFrom: c.URLFrom, Namespace: c.Namespace, Process: c.Process, NoDeclare: c.NoDeclare, Pace: c.pace, Log: c.Log,
	}
}
