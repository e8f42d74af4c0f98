package mail

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/mail"
	"net/url"
	"os"
	"strconv"
	"sync"
	"time"

	gomail "github.com/wneessen/go-mail"
)

// mailTimeout limits each exchange with the server, even if the ctx of the caller has a
// later deadline.
const mailTimeout = 20 * time.Second

// server is an SMTP server and how to talk to it.
type server struct {
	name           string // for messages: without user and password
	host           string
	port           int
	user, password string
	from           *mail.Address
	implicitTLS    bool // smtps: TLS from the first byte
	starttls       gomail.TLSPolicy
	tls            *tls.Config
}

// parseServer reads an SMTP URL as Open documents it.
func parseServer(rawURL string) (*server, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		// The parser's message quotes the URL, and the URL may hold the password.
		return nil, errors.New("the SMTP URL cannot be read: write smtp://user:password@host:587?from=you@example.com, with %XX for special characters in the password")
	}
	if u.Scheme != "smtp" && u.Scheme != "smtps" || u.Hostname() == "" {
		return nil, fmt.Errorf("SMTP URL %s: write smtp://host:port or smtps://host:port", u.Redacted())
	}
	s := &server{host: u.Hostname(), user: u.User.Username(), implicitTLS: u.Scheme == "smtps", starttls: gomail.TLSOpportunistic}
	s.password, _ = u.User.Password()
	s.tls = &tls.Config{ServerName: s.host, MinVersion: tls.VersionTLS12}
	if s.port, err = s.portOf(u.Port()); err != nil {
		return nil, err
	}
	s.name = net.JoinHostPort(s.host, strconv.Itoa(s.port))
	if err := s.options(u.Query()); err != nil {
		return nil, fmt.Errorf("SMTP URL for %s: %w", s.name, err)
	}
	return s, nil
}

// portOf is the port as written, or else the usual one.
func (s *server) portOf(written string) (int, error) {
	switch {
	case written != "":
		port, err := strconv.Atoi(written)
		if err != nil || port < 1 || port > 65535 {
			return 0, fmt.Errorf("SMTP URL for %s: port %q: choose 1 to 65535", s.host, written)
		}
		return port, nil
	case s.implicitTLS:
		return 465, nil
	case s.user != "":
		return 587, nil
	}
	return 25, nil
}

func (s *server) options(query url.Values) (err error) {
	for name := range query {
		if name != "from" && name != "tls" && name != "ca" {
			return fmt.Errorf("there is no option %q: choose from, tls, ca", name)
		}
	}
	if s.from, err = mail.ParseAddress(cmp.Or(query.Get("from"), "Rabbet <rabbet@localhost>")); err != nil {
		return fmt.Errorf("from=%s: write an address, such as from=shop@example.com", query.Get("from"))
	}
	switch policy := query.Get("tls"); policy {
	case "":
	case "required":
		s.starttls = gomail.TLSMandatory
	case "none":
		if s.implicitTLS {
			return errors.New("tls=none contradicts smtps://: write smtp://")
		}
		s.starttls = gomail.NoTLS
	default:
		return fmt.Errorf("tls=%s: choose required or none, or leave it out for STARTTLS where the server offers it", policy)
	}
	if file := query.Get("ca"); file != "" {
		pem, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("read the certificate authority: %w", err)
		}
		s.tls.RootCAs = x509.NewCertPool()
		if !s.tls.RootCAs.AppendCertsFromPEM(pem) {
			return fmt.Errorf("ca=%s: there is no PEM certificate in it", file)
		}
	}
	return nil
}

// client returns a client for one mail, which connects through c.
func (s *server) client(c *conn) (*gomail.Client, error) {
	starttls := s.starttls
	if s.implicitTLS {
		starttls = gomail.TLSOpportunistic // the server does not offer it within TLS, but the client then checks that TLS is on
	}
	options := []gomail.Option{
		gomail.WithPort(s.port), gomail.WithTimeout(mailTimeout),
		gomail.WithTLSPolicy(starttls), gomail.WithTLSConfig(s.tls),
		gomail.WithDialContextFunc(func(ctx context.Context, network, address string) (net.Conn, error) {
			return c.dial(ctx, s, network, address)
		}),
	}
	if s.user != "" {
		options = append(options, gomail.WithUsername(s.user), gomail.WithPassword(s.password), gomail.WithSMTPAuth(gomail.SMTPAuthAutoDiscover))
	}
	return gomail.NewClient(s.host, options...)
}

// conn is the connection of one mail, which can be closed at any moment.
type conn struct {
	mu sync.Mutex
	c  net.Conn
}

func (c *conn) dial(ctx context.Context, s *server, network, address string) (net.Conn, error) {
	dial := (&net.Dialer{}).DialContext
	if s.implicitTLS {
		dial = (&tls.Dialer{Config: s.tls}).DialContext
	}
	nc, err := dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.c = nc
	return nc, nil
}

func (c *conn) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.c != nil {
		c.c.Close()
	}
}
