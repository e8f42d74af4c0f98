package main

import (
	"context"
	_ "embed" // the page
	"encoding/base64"
	"errors"
	"fmt"
	"html/template"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net"
	"net/http"
	"net/mail"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-smtp"
	"go.uber.org/zap"
)

// mailCommand is a mail catcher: a real SMTP server that delivers nothing.
type mailCommand struct{}

// Run catches mail until ctx is done.
func (mailCommand) Run(ctx context.Context, c *config) error {
	log := newLog(c, "console")
	smtpListener, err := listen("SMTP_ADDR", c.SMTPAddr)
	if err != nil {
		return err
	}
	pageListener, err := listen("MAIL_ADDR", c.MailAddr)
	if err != nil {
		smtpListener.Close()
		return err
	}
	catcher := &mailCatcher{}
	stopSMTP := catcher.serve(smtpListener, log)
	defer stopSMTP()
	stopPage := serveHTTP(&http.Server{Handler: catcher, ReadHeaderTimeout: 5 * time.Second}, pageListener, log)
	defer stopPage()
	log.Info("catching mail", zap.String("smtp", "smtp://"+c.SMTPAddr), zap.String("page", "http://"+c.MailAddr+"/"))
	<-ctx.Done()
	return nil
}

// keptMails bounds the mails that a catcher keeps; the oldest go first.
const keptMails = 200

// mailCatcher keeps the last mails that it got, and is the page that shows them.
type mailCatcher struct {
	mu    sync.Mutex
	mails []caughtMail // oldest first
}

type caughtMail struct {
	At                      time.Time
	From, To, Subject, Text string
}

// serve takes mail from l in the background until stop is called.
func (m *mailCatcher) serve(l net.Listener, log *zap.Logger) (stop func()) {
	s := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &mailSession{catcher: m}, nil }))
	s.Domain = "localhost"
	s.ReadTimeout, s.WriteTimeout = 30*time.Second, 30*time.Second
	s.MaxMessageBytes = 10 << 20
	done := make(chan struct{})
	go func() { // ends with the server
		defer close(done)
		if err := s.Serve(l); err != nil {
			log.Debug("SMTP server stopped", zap.Error(err))
		}
	}()
	return func() {
		l.Close() // the server does not know it before it serves
		s.Close()
		<-done
	}
}

func (m *mailCatcher) add(c caughtMail) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mails = append(m.mails, c)
	m.mails = m.mails[max(0, len(m.mails)-keptMails):]
}

//go:embed mail.html
var mailHTML string

var mailPage = template.Must(template.New("mail").Parse(mailHTML))

// ServeHTTP shows the mails, newest first.
func (m *mailCatcher) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	m.mu.Lock()
	newest := slices.Clone(m.mails)
	m.mu.Unlock()
	slices.Reverse(newest)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_ = mailPage.Execute(w, newest) // it fails only when the reader has gone
}

// mailSession is one SMTP connection.
type mailSession struct {
	catcher *mailCatcher
	from    string
	to      []string
}

func (s *mailSession) Mail(from string, _ *smtp.MailOptions) error { s.from = from; return nil }
func (s *mailSession) Rcpt(to string, _ *smtp.RcptOptions) error   { s.to = append(s.to, to); return nil }
func (s *mailSession) Reset()                                      { s.from, s.to = "", nil }
func (s *mailSession) Logout() error                               { return nil }

func (s *mailSession) Data(r io.Reader) error {
	caught := caughtMail{At: time.Now(), From: s.from, To: strings.Join(s.to, ", ")}
	msg, err := mail.ReadMessage(r)
	if err != nil {
		return &smtp.SMTPError{Code: 554, EnhancedCode: smtp.EnhancedCode{5, 6, 0}, Message: "this is no mail: " + err.Error()}
	}
	if caught.Subject, err = new(mime.WordDecoder).DecodeHeader(msg.Header.Get("Subject")); err != nil {
		caught.Subject = msg.Header.Get("Subject")
	}
	caught.Text, err = textOf(msg.Header.Get("Content-Type"), msg.Header.Get("Content-Transfer-Encoding"), msg.Body)
	if err != nil {
		return fmt.Errorf("read mail: %w", err)
	}
	s.catcher.add(caught)
	return nil
}

// textOf returns the first text of a mail's body or of one of its parts.
func textOf(contentType, encoding string, body io.Reader) (string, error) {
	mediaType, params, err := mime.ParseMediaType(contentType)
	if err == nil && strings.HasPrefix(mediaType, "multipart/") {
		parts := multipart.NewReader(body, params["boundary"])
		for {
			p, err := parts.NextRawPart()
			if errors.Is(err, io.EOF) {
				return "", nil
			}
			if err != nil {
				return "", err
			}
			if text, err := textOf(p.Header.Get("Content-Type"), p.Header.Get("Content-Transfer-Encoding"), p); err == nil && text != "" {
				return text, nil
			}
		}
	}
	switch strings.ToLower(encoding) {
	case "quoted-printable":
		body = quotedprintable.NewReader(body)
	case "base64":
		body = base64.NewDecoder(base64.StdEncoding, body)
	}
	text, err := io.ReadAll(body)
	return string(text), err
}
