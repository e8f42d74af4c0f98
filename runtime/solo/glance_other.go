//go:build !unix

package solo

import "time"

// readWithin leaves it all to the read that waits.
func readWithin(time.Duration, uintptr, []byte) int { return 0 }
