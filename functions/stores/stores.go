// Package stores is what stands behind the functions' dependencies: profiles
// in SQL, mail over SMTP. It knows its drivers and the messages that travel,
// and neither the functions nor what runs them.
package stores

import "errors"

// Errors that callers tell apart with errors.Is. Any other error of this
// package is worth another try.
var (
	// ErrNotFound says that there is no such row.
	ErrNotFound = errors.New("not found")
	// ErrRejected says that the other side refused for good: sending the same again cannot help.
	ErrRejected = errors.New("rejected")
	// ErrUnavailable says that the database is locked, out of reach or
	// starting: the same will work in a moment.
	ErrUnavailable = errors.New("unavailable")
)
