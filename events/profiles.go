// Package events holds what travels: message types, each with its routing key.
package events

import "errors"

// Profile is what is known about a person.
type Profile struct {
	ID    string `json:"id"`
	Name  string `json:"name"`
	Email string `json:"email"`
}

// GetProfile asks for one profile; the reply is a Profile.
type GetProfile struct {
	ID string `json:"id" doc:"the profile's id"`
}

// RoutingKey is where get-profile answers.
func (GetProfile) RoutingKey() string { return "profile.get" }

// UpdateProfile stores a profile; the reply is the Profile as stored.
type UpdateProfile struct {
	ID    string `json:"id" doc:"the profile's id"`
	Name  string `json:"name" doc:"the full name"`
	Email string `json:"email" doc:"where mail to this person goes"`
}

// RoutingKey is where update-profile answers.
func (UpdateProfile) RoutingKey() string { return "profile.update" }

// ProfileUpdated says that a profile has changed. Only the id is certain:
// whoever changes profiles elsewhere may know no more.
type ProfileUpdated struct {
	ID    string `json:"id"`
	Name  string `json:"name,omitempty"`
	Email string `json:"email,omitempty"`
}

// RoutingKey is what the event is published under.
func (ProfileUpdated) RoutingKey() string { return "profile.updated" }

// CacheTags names the cached results that the change made stale.
func (e ProfileUpdated) CacheTags() []string { return []string{"profile:" + e.ID} }

// Validate says that an id is missing.
func (e ProfileUpdated) Validate() error {
	if e.ID == "" {
		return errors.New("id: which profile has changed?")
	}
	return nil
}
