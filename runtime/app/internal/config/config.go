// Package config reads the environment. It knows the variables and how their
// values are written, and nothing of the parts that they set up.
package config

import (
	"encoding/base64"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// Config is what the environment sets. The tag doc is what `rabbet help env` prints.
type Config struct {
	BrokerURL      string        `env:"BROKER_URL" envDefault:"memory://" doc:"memory:// is the broker inside 'rabbet dev'; amqp://user:password@host:5672/vhost or amqps://… is RabbitMQ (several, separated by commas, are tried in turn)"`
	BrokerURLFile  string        `env:"BROKER_URL_FILE" doc:"file that holds the broker URL, in place of RABBET_BROKER_URL; it is read again before each connection, so that credentials can change (a mounted Kubernetes secret)"`
	CacheURL       string        `env:"CACHE_URL" doc:"redis://host:6379/0, rediss://…, memcached://host:11211,host2:11211, memory:// or none; by default memory:// in 'rabbet dev' and none elsewhere"`
	CacheKeys      []string      `env:"CACHE_KEY" doc:"encrypts cached results (AES-256-GCM): 32 random bytes in base64, from 'openssl rand -base64 32'; two, separated by a comma, to change the key: the first encrypts, both decrypt"`
	CacheLocal     uint16        `env:"CACHE_LOCAL" envDefault:"0" doc:"MiB of cached results that each process also keeps in its own memory; a result may then be stale for up to 2 s after its invalidation; 0 for none"`
	StateURL       string        `env:"STATE_URL" doc:"redis://host:6379/0, rediss://…, for what must not be lost: which events were handled (faas.Once), and sessions; 'rabbet dev' keeps that in its own memory"`
	HTTPAddr       string        `env:"HTTP_ADDR" envDefault:"127.0.0.1:8080" doc:"where the ingress listens"`
	AdminAddr      string        `env:"ADMIN_ADDR" doc:"where /livez and /readyz are served; 127.0.0.1:8081 by default, none for no such server"`
	Namespace      string        `env:"NAMESPACE" envDefault:"rabbet" doc:"prefix of every exchange and queue, so that several systems share a broker"`
	Functions      []string      `env:"FUNCTIONS" doc:"names of the functions to host, separated by commas; all by default"`
	LogLevel       string        `env:"LOG_LEVEL" envDefault:"info" doc:"debug, info, warn or error"`
	LogFormat      string        `env:"LOG_FORMAT" doc:"json or console; by default console in 'rabbet dev' and json elsewhere"`
	OnceFor        time.Duration `env:"ONCE_FOR" envDefault:"168h" doc:"how long a handled event is remembered (faas.Once)"`
	Grace          time.Duration `env:"GRACE" envDefault:"25s" doc:"how long work in flight may take to finish after SIGTERM; the process then ends within 1 s, or 4 s if RabbitMQ or a function does not answer: let a supervisor wait longer before it kills"`
	Batch          bool          `env:"BATCH" envDefault:"true" doc:"send calls that wait at the same moment in one message"`
	Declare        bool          `env:"DECLARE" envDefault:"true" doc:"false: declare no exchange and no queue on RabbitMQ, except those of the process itself; use 'rabbet topology' then"`
	ManagementURL  string        `env:"MANAGEMENT_URL" doc:"http://user:password@host:15672, where 'rabbet topology diff' asks RabbitMQ's management API"`
	TrustedProxies []string      `env:"TRUSTED_PROXIES" doc:"addresses or CIDR blocks whose X-Forwarded-* headers count, separated by commas; none by default"`
	Dir            string        `env:"DIR" envDefault:".rabbet" doc:"folder for the files of 'rabbet dev'"`
	Process        string        `env:"PROCESS" doc:"id of this process in announcements and logs; random by default"`
	SMTPAddr       string        `env:"SMTP_ADDR" envDefault:"127.0.0.1:1025" doc:"where 'rabbet mail' accepts mail"`
	MailAddr       string        `env:"MAIL_ADDR" envDefault:"127.0.0.1:8025" doc:"where 'rabbet mail' shows it"`

	SessionURL      string        `env:"SESSION_URL" doc:"redis://… as above, where the ingress keeps sessions (faas.UsesSession); by default RABBET_STATE_URL, or the memory of 'rabbet dev'"`
	SessionIdle     time.Duration `env:"SESSION_IDLE" envDefault:"1h" doc:"a session ends when it was not used for this time"`
	SessionLifetime time.Duration `env:"SESSION_LIFETIME" envDefault:"24h" doc:"a session ends this time after it began or was renewed, even if it is used"`
	SessionCookie   string        `env:"SESSION_COOKIE" doc:"name of the cookie with the token of a session; by default __Host-rabbet-session, or rabbet-session with RABBET_SESSION_SECURE=false"`
	SessionSecure   *bool         `env:"SESSION_SECURE" doc:"true: browsers send that cookie over TLS only; by default false in 'rabbet dev' and true elsewhere"`
}

// Read returns the settings that the environment holds, or an UnusableError.
func Read() (*Config, error) {
	var c Config
	if err := Parse(&c, Prefix); err != nil {
		return nil, err
	}
	for _, list := range []*[]string{&c.CacheKeys, &c.Functions, &c.TrustedProxies} {
		*list = items(*list)
	}
	if c.Process == "" {
		c.Process = contract.NewID()
	}
	return &c, c.check()
}

// items removes spaces around the items of a list, and empty items.
func items(list []string) []string {
	var trimmed []string
	for _, item := range list {
		if item = strings.TrimSpace(item); item != "" {
			trimmed = append(trimmed, item)
		}
	}
	return trimmed
}

var namespaceForm = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9_-]{0,39}$`)

// check reports a value that cannot be used, whatever it is used for.
func (c *Config) check() error {
	for variable, addr := range map[string]string{"HTTP_ADDR": c.HTTPAddr, "ADMIN_ADDR": c.AdminAddr, "SMTP_ADDR": c.SMTPAddr, "MAIL_ADDR": c.MailAddr} {
		if _, err := net.ResolveTCPAddr("tcp", addr); err != nil && addr != "" && addr != "none" {
			return Unusable(Prefix+variable, addr, "write host:port, such as 127.0.0.1:8080")
		}
	}
	if !namespaceForm.MatchString(c.Namespace) {
		return Unusable(Prefix+"NAMESPACE", c.Namespace, "use at most 40 letters, digits, - and _, a letter first")
	}
	if len(c.Process) > 100 || strings.ContainsFunc(c.Process, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return Unusable(Prefix+"PROCESS", c.Process, "use at most 100 printable ASCII characters without spaces")
	}
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, c.LogLevel) {
		return Unusable(Prefix+"LOG_LEVEL", c.LogLevel, "choose debug, info, warn or error")
	}
	if !slices.Contains([]string{"", "json", "console"}, c.LogFormat) {
		return Unusable(Prefix+"LOG_FORMAT", c.LogFormat, "choose json or console")
	}
	if c.BrokerURLFile != "" && !strings.HasPrefix(c.BrokerURL, "memory://") {
		return Unusable(Prefix+"BROKER_URL_FILE", c.BrokerURLFile, "%sBROKER_URL is set as well: set one of them", Prefix)
	}
	if c.OnceFor < time.Minute {
		return Unusable(Prefix+"ONCE_FOR", c.OnceFor.String(), "write a duration such as 168h, a minute or more")
	}
	if c.Grace < 0 {
		return Unusable(Prefix+"GRACE", c.Grace.String(), "write a duration such as 25s")
	}
	if err := c.CheckSessions(); err != nil {
		return err
	}
	if _, err := c.SealingKeys(); err != nil {
		return err
	}
	_, err := c.Proxies()
	return err
}

// SealingKeys returns the secrets that cached results are sealed with.
func (c *Config) SealingKeys() ([][]byte, error) {
	var secrets [][]byte
	for i, text := range c.CacheKeys {
		secret, err := base64.StdEncoding.DecodeString(text)
		if err != nil || len(secret) != 32 {
			return nil, Unusable(Prefix+"CACHE_KEY", "…", "key %d is not 32 bytes in base64: make one with 'openssl rand -base64 32'", i+1)
		}
		secrets = append(secrets, secret)
	}
	return secrets, nil
}

// Proxies returns the addresses whose X-Forwarded-* headers count.
func (c *Config) Proxies() ([]netip.Prefix, error) {
	var prefixes []netip.Prefix
	for _, s := range c.TrustedProxies {
		if addr, err := netip.ParseAddr(s); err == nil {
			prefixes = append(prefixes, netip.PrefixFrom(addr, addr.BitLen()))
			continue
		}
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, Unusable(Prefix+"TRUSTED_PROXIES", s, "write addresses or blocks such as 127.0.0.1 or 10.0.0.0/8")
		}
		prefixes = append(prefixes, p)
	}
	return prefixes, nil
}

// Embedded reports whether the broker is the one inside `rabbet dev`.
func (c *Config) Embedded() bool {
	return c.BrokerURLFile == "" && strings.HasPrefix(c.BrokerURL, "memory://")
}
