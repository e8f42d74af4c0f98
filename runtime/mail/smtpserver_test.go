package mail

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	"go.uber.org/goleak"
)

// TestMain lets the test binary be an SMTP server, for the tests that need one
// in a process of its own.
func TestMain(m *testing.M) {
	if dir := os.Getenv("MAIL_TEST_SMTP_DIR"); dir != "" {
		if err := serveSMTP(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// serveSMTP serves until stdin ends. It prints its address first.
func serveSMTP(dir string) error {
	b := &smtpBackend{dir: dir}
	b.user, b.password, b.login = strings.Cut(os.Getenv("MAIL_TEST_SMTP_LOGIN"), ":")
	s := smtp.NewServer(b)
	s.Domain = "localhost"
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	if file := os.Getenv("MAIL_TEST_SMTP_CERT"); file != "" {
		pair, err := tls.LoadX509KeyPair(file, file)
		if err != nil {
			return err
		}
		s.TLSConfig = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	}
	if os.Getenv("MAIL_TEST_SMTP_IMPLICIT") != "" {
		l = tls.NewListener(l, s.TLSConfig)
	}
	go func() {
		io.Copy(io.Discard, os.Stdin)
		s.Close()
	}()
	if err := s.Serve(l); !errors.Is(err, smtp.ErrServerClosed) {
		return err
	}
	return nil
}

type smtpBackend struct {
	dir            string
	login          bool
	user, password string
	mails          atomic.Int32
}

func (b *smtpBackend) NewSession(*smtp.Conn) (smtp.Session, error) {
	return &smtpSession{smtpBackend: b}, nil
}

type smtpSession struct {
	*smtpBackend
	known bool
}

func (s *smtpSession) AuthMechanisms() []string {
	if !s.login {
		return nil
	}
	return []string{sasl.Plain}
}

func (s *smtpSession) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		if user != s.user || password != s.password {
			return smtp.ErrAuthFailed
		}
		s.known = true
		return nil
	}), nil
}

func (s *smtpSession) Mail(string, *smtp.MailOptions) error {
	if s.login && !s.known {
		return smtp.ErrAuthRequired
	}
	return nil
}

func (s *smtpSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	switch to {
	case "nobody@example.com":
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no such mailbox"}
	case "later@example.com":
		return &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 7, 1}, Message: "come again later"}
	}
	return nil
}

func (s *smtpSession) Data(r io.Reader) error {
	text, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if bytes.Contains(text, []byte("Subject: SPAM")) {
		return &smtp.SMTPError{Code: 554, EnhancedCode: smtp.EnhancedCode{5, 7, 1}, Message: "not here"}
	}
	name := fmt.Sprintf("%d-%03d.eml", os.Getpid(), s.mails.Add(1))
	return os.WriteFile(filepath.Join(s.dir, name), text, 0o600)
}

func (s *smtpSession) Reset()        {}
func (s *smtpSession) Logout() error { return nil }
