// Package events has the messages that travel between functions and clients: types
// with their routing keys. It does not know which functions handle them, nor how they
// are carried, and imports the standard library only.
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

// ProfileUpdated says that a profile has changed. Only ID is always set: a publisher
// outside of this program may not know the rest.
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
