package events

import (
	"errors"
	"fmt"
	"net/mail"
	"strings"
)

// EmailRequested asks for one mail to be sent.
type EmailRequested struct {
	To      string `json:"to" doc:"one address"`
	Subject string `json:"subject" doc:"one line"`
	Text    string `json:"text" doc:"plain text"`
}

// RoutingKey is what the event is published under.
func (EmailRequested) RoutingKey() string { return "email.requested" }

// Validate says what no mail can be made of.
func (e EmailRequested) Validate() error {
	if _, err := mail.ParseAddress(e.To); err != nil {
		return fmt.Errorf("to: want one address such as ada@example.com: %w", err)
	}
	if strings.ContainsAny(e.To+e.Subject, "\r\n\x00") {
		return errors.New("to and subject: a line break would start a header of its own")
	}
	if e.Subject == "" && e.Text == "" {
		return errors.New("subject and text: want at least one of them")
	}
	return nil
}
