//go:build unix

package rabbit

import "syscall"

// try writes as much of p as the kernel takes at once. An error is left for
// the write that follows.
func (g *gatheringConn) try(p []byte) (n int) {
	err := g.raw.Write(func(fd uintptr) bool {
		n, _ = syscall.Write(int(fd), p)
		return true // whatever came of it: do not wait
	})
	if err != nil {
		return 0
	}
	return max(n, 0)
}
