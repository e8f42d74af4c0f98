package app

import (
	"context"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/app/internal/config"
	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/faas"
)

// A Product is a set of functions and what they need. D is the type of their
// dependencies, such as functions.Deps.
type Product[D any] struct {
	// Functions are the functions of the product. Required.
	Functions *faas.Set[D]

	// Open opens the dependencies of the functions, in each process that hosts
	// some. If it fails with faas.ErrUnavailable, it is called again every 2 s
	// until it succeeds; any other error ends the process. Nil: the functions get
	// a zero D.
	Open func(ctx context.Context, host Host) (Opened[D], error)

	// Settings is a zero value of the struct that Open reads with ReadSettings.
	// 'rabbet help env' lists its fields, and every command checks that they can
	// be read. Nil: the product has no settings of its own.
	Settings any

	// Try holds shell commands that 'rabbet dev' prints as examples. {http} stands
	// for the address of the ingress and {rabbet} for the program.
	Try []string
}

// A Host is what a process offers to the product that it runs.
type Host struct {
	Bus     faas.Bus        // publishes events and calls functions
	Broker  contract.Broker // the same, for events that are complete already, as an outbox keeps them
	Results Results         // the cached results of functions
	Log     *zap.Logger

	// Dir is a folder for files, such as an SQLite database. It may not exist yet.
	Dir string
	// Dev says that the process is part of 'rabbet dev'.
	Dev bool
	// MailCatcher is the SMTP URL of the mail catcher of 'rabbet dev'; "" elsewhere.
	MailCatcher string
}

// Results are the cached results of functions.
type Results interface {
	// Invalidate returns nil once no result with one of the tags is served any more.
	Invalidate(ctx context.Context, tags ...string) error
}

// Opened is what Product.Open returns. Only Deps is required.
type Opened[D any] struct {
	Deps D

	// Ready returns an error while the functions cannot work, such as when the
	// database does not answer. /readyz reports it; ctx ends after 1 s.
	Ready func(ctx context.Context) error

	// Run does what has to be done beside the functions, such as publishing from
	// an outbox, until ctx is done. That is after the last function has finished.
	Run func(ctx context.Context)

	// Close frees the dependencies, after Run has returned.
	Close func() error
}

// ReadSettings fills settings, a pointer to a struct, from the environment, as
// github.com/caarlos0/env does: the tag env of a field names its variable, and
// envDefault its default. The tag doc describes it in 'rabbet help env'. If the
// struct has a method Validate() error, ReadSettings returns its error.
func ReadSettings(settings any) error { return config.Parse(settings, "") }

// BadSetting returns an error that says that the value of an environment variable
// cannot be used, and what to write instead. A password in a URL is removed from
// value. The process exits with code 2.
func BadSetting(variable, value, fix string, a ...any) error {
	return config.Unusable(variable, value, fix, a...)
}
