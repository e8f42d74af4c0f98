//go:build unix && (!linux || race)

package solo

// The race detector has to learn of reads and writes, and other systems are
// called through their C library.

func quietRead(fd uintptr, b []byte) (int, error) { return plainRead(fd, b) }

func quietWrite(fd uintptr, b []byte) int { return plainWrite(fd, b) }

func yield() {}
