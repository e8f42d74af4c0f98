// Package mailcatcher is an SMTP server that delivers nothing and shows on a page
// what it received. It keeps mails in memory only.
package mailcatcher

import (
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

// maxMails is how many mails a Catcher keeps; the oldest go first.
const maxMails = 200

// A Catcher keeps the last 200 mails that it received. As an http.Handler it is the
// page that shows them. The zero value is ready for use.
type Catcher struct {
	mu    sync.Mutex
	mails []received // oldest first
}

type received struct {
	At                      time.Time
	From, To, Subject, Text string
}

// Serve accepts mail at l in the background until stop is called.
func (m *Catcher) Serve(l net.Listener, log *zap.Logger) (stop func()) {
	s := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &session{catcher: m}, nil }))
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
		l.Close() // s.Close closes it only once s serves
		s.Close()
		<-done
	}
}

func (m *Catcher) add(c received) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mails = append(m.mails, c)
	m.mails = m.mails[max(0, len(m.mails)-maxMails):]
}

//go:embed mail.html
var pageHTML string

var page = template.Must(template.New("page").Parse(pageHTML))

// ServeHTTP shows the mails, newest first.
func (m *Catcher) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	m.mu.Lock()
	newest := slices.Clone(m.mails)
	m.mu.Unlock()
	slices.Reverse(newest)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_ = page.Execute(w, newest) // it fails only when the client has gone
}

// session is one SMTP connection.
type session struct {
	catcher *Catcher
	from    string
	to      []string
}

func (s *session) Mail(from string, _ *smtp.MailOptions) error { s.from = from; return nil }
func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error   { s.to = append(s.to, to); return nil }
func (s *session) Reset()                                      { s.from, s.to = "", nil }
func (s *session) Logout() error                               { return nil }

func (s *session) Data(r io.Reader) error {
	caught := received{At: time.Now(), From: s.from, To: strings.Join(s.to, ", ")}
	msg, err := mail.ReadMessage(r)
	if err != nil {
		return &smtp.SMTPError{Code: 554, EnhancedCode: smtp.EnhancedCode{5, 6, 0}, Message: "this is not a mail: " + err.Error()}
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
