//go:build !unix

package rabbit

// try leaves all of p to the goroutine that may wait.
func (g *gatheringConn) try([]byte) int { return 0 }
