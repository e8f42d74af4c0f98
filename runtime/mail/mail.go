// Package mail sends mail over SMTP. It knows servers, TLS and logins, and nothing of
// what a mail says.
package mail

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/mail"
	"strings"

	gomail "github.com/wneessen/go-mail"
)

// ErrRejected says that the server refused a mail for good: sending the same again
// cannot help.
var ErrRejected = errors.New("rejected")

// A Message is one mail of plain text.
type Message struct {
	// ID is the same whenever the same mail is sent again. The Message-ID is derived
	// from it, so that clients can recognize a copy.
	ID      string
	To      string // one address, "ada@example.com" or "Ada <ada@example.com>"
	Subject string
	Text    string
}

// A Sender sends mail over SMTP. It is safe for concurrent use.
type Sender struct{ server *server }

// Open returns a sender for the server at url. It connects once for each mail;
// therefore the server need not be running yet.
//
//	smtp://host:25?from=Shop+<shop@example.com>            STARTTLS if the server offers it
//	smtp://user:password@host:587?from=…&tls=required      STARTTLS, or no mail
//	smtp://host:1025?from=…&tls=none                       never STARTTLS
//	smtps://user:password@host:465?from=…                  TLS from the first byte
//
// ca=/path/to/ca.pem trusts a certificate authority that the system does not
// know. A password is never sent unencrypted, except to localhost.
func Open(url string) (*Sender, error) {
	s, err := parseServer(url)
	if err != nil {
		return nil, err
	}
	return &Sender{s}, nil
}

// Send returns nil once the server has accepted the message. It fails with
// ErrRejected if the server, or the address itself, says that it never will.
func (s *Sender) Send(ctx context.Context, msg Message) error {
	message, err := s.compose(msg)
	if err != nil {
		return err
	}
	var conn conn
	client, err := s.server.client(&conn)
	if err != nil {
		return fmt.Errorf("send mail over %s: %w", s.server.name, err)
	}
	defer conn.close()                         // the client leaves it open when the greeting fails
	defer context.AfterFunc(ctx, conn.close)() // and observes ctx only while it dials

	err = client.DialAndSendWithContext(ctx, message)
	switch {
	case message.IsDelivered():
		return nil // only QUIT can have failed after that
	case err == nil:
		return fmt.Errorf("send mail over %s: the server did not confirm it", s.server.name)
	case ctx.Err() != nil:
		return fmt.Errorf("send mail over %s: %w", s.server.name, context.Cause(ctx))
	case rejected(message):
		return fmt.Errorf("send mail over %s: %w: %w", s.server.name, ErrRejected, err)
	}
	return fmt.Errorf("send mail over %s: %w", s.server.name, err)
}

// compose builds the mail. It refuses line breaks in header values: text of a user
// must not become a header.
func (s *Sender) compose(msg Message) (*gomail.Msg, error) {
	to, err := mail.ParseAddress(msg.To)
	if err != nil {
		return nil, fmt.Errorf("mail to %q: %w: %w", msg.To, ErrRejected, err)
	}
	if strings.ContainsAny(msg.To+msg.Subject, "\r\n\x00") {
		return nil, fmt.Errorf("mail to %q: %w: a line break in its address or subject", msg.To, ErrRejected)
	}
	message := gomail.NewMsg(gomail.WithNoDefaultUserAgent())
	message.FromMailAddress(s.server.from)
	message.ToMailAddress(to)
	message.Subject(msg.Subject)
	message.SetDate()
	message.SetMessageIDWithValue(s.messageID(msg.ID))
	message.SetGenHeader("Auto-Submitted", "auto-generated") // RFC 3834: no out-of-office answers
	message.SetBodyString(gomail.TypeTextPlain, msg.Text)
	return message, nil
}

// messageID hashes id, which may hold anything, into what RFC 5322 allows.
func (s *Sender) messageID(id string) string {
	sum := sha256.Sum256([]byte(id))
	_, domain, _ := strings.Cut(s.server.from.Address, "@")
	return hex.EncodeToString(sum[:16]) + "@" + domain
}

// rejected reports whether the server refused the mail itself for good. A refused
// login is not a property of the mail: it may succeed later.
func rejected(message *gomail.Msg) bool {
	e, ok := errors.AsType[*gomail.SendError](message.SendError())
	if !ok || e.ErrorCode() < 500 || e.ErrorCode() == 530 {
		return false
	}
	switch e.Reason {
	case gomail.ErrSMTPMailFrom, gomail.ErrSMTPRcptTo, gomail.ErrSMTPData, gomail.ErrSMTPDataClose:
		return true
	}
	return false
}
