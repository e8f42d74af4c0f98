package events

// EmailRequested asks for one mail to be sent.
type EmailRequested struct {
	To      string `json:"to"`
	Subject string `json:"subject"`
	Text    string `json:"text"`
}

// RoutingKey is what the event is published under.
func (EmailRequested) RoutingKey() string { return "email.requested" }
