package app

import "github.com/rabbet-fn/rabbet/runtime/app/internal/config"

// What the tests need, which are outside of the package because they run the
// product of this repository.

const (
	ExitFailed = exitFailed
	ExitUsage  = exitUsage
)

// Run runs one command of p and returns the exit code.
func Run[D any](p Product[D], args ...string) int { return programOf(p).main(args) }

// Configure reads the environment for p.
func Configure[D any](p Product[D]) (*config.Config, error) { return programOf(p).configure() }
