package server

import "github.com/rabbet-fn/rabbet/runtime/cache/store"

// maxTries is how often Retry tries.
const maxTries = 3

// Retry repeats an operation whose connection turns out to be lost, as all
// pooled ones are after a restart of the server. It does not repeat an operation
// that timed out. It is not for an operation that must be sent once.
func Retry(operation func() error) error {
	for try := 1; ; try++ {
		err := operation()
		if err == nil || try == maxTries || !store.IsConnectionLost(err) {
			return err
		}
	}
}
