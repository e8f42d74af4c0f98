// Package dev is 'rabbet dev': everything at once, in this process and a worker
// that it starts, with changed functions loaded while it runs.
package dev

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/app/internal/config"
	"github.com/rabbet-fn/rabbet/runtime/app/internal/devstate"
	"github.com/rabbet-fn/rabbet/runtime/app/internal/logs"
	"github.com/rabbet-fn/rabbet/runtime/app/internal/mailcatcher"
	"github.com/rabbet-fn/rabbet/runtime/app/internal/serve"
	"github.com/rabbet-fn/rabbet/runtime/app/internal/services"
	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/inbox/memory"
)

// Command is 'rabbet dev'. Embedded parts take the place of every service that the
// environment does not name.
type Command struct {
	NoReload bool `help:"Do not watch the source for changes."`
}

// Try is what the greeting of 'rabbet dev' suggests to run: shell commands, in
// which {http} stands for the address of the ingress and {rabbet} for this program.
type Try []string

// Run serves until ctx is done.
//
// This process keeps the broker, the cache, the mail and the HTTP listener for as
// long as it lives. The functions run in a worker process, at first of the same
// binary. When the source changes, it is compiled into a new binary, whose worker
// takes over before the old functions drain. Therefore no request and no event is
// lost, even if the change does not compile.
func (cmd Command) Run(ctx context.Context, c *config.Config, try Try) error {
	log := logs.New(c, "console")
	defer log.Sync()
	if err := os.MkdirAll(c.DevDir(), 0o755); err != nil {
		return config.Unusable(config.Prefix+"DIR", c.Dir, "%v", err)
	}
	broker, err := openBroker(ctx, c, log)
	if err != nil {
		return err
	}
	defer broker.close()
	httpListener, err := serve.Listen("HTTP_ADDR", c.HTTPAddr)
	if err != nil {
		return err
	}
	defer httpListener.Close()
	results, err := services.OpenCache(c, broker, "memory://", log)
	if err != nil {
		return err
	}
	// Safari, unlike other browsers, does not accept a Secure cookie from http://localhost.
	c.SessionSecure = cmp.Or(c.SessionSecure, new(false))
	if err := c.CheckSessions(); err != nil {
		return err
	}
	sessions, err := services.OpenDevSessions(c, log)
	if err != nil {
		return err
	}
	defer sessions.Close()
	state := &devstate.State{Results: devstate.NoResults{}, Directory: broker.Directory()}
	if results != nil {
		defer results.Close()
		state.Results = results
	}
	if c.Embedded() {
		state.Inbox = &memory.Store{}
	}
	catcher := &mailcatcher.Catcher{}
	mailListener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen for mail: %w", err)
	}
	defer catcher.Serve(mailListener, log)()

	front := serve.NewIngress(c, broker, results, sessions, log)
	admin := http.NewServeMux()
	admin.Handle("/", front.Admin())
	admin.Handle("GET /mail", catcher)
	stopAdmin, err := serve.Admin(c, admin, log)
	if err != nil {
		return err
	}
	defer stopAdmin()

	if err := broker.Ready(ctx); err != nil {
		return err
	}
	defer host(broker, devstate.Functions(state), log)()
	functions := &supervisor{
		config: c, broker: broker, log: log,
		mailCatcher: "smtp://" + mailListener.Addr().String() + "?tls=none",
	}
	var noReload error
	if !cmd.NoReload {
		functions.source, noReload = findSource()
	}
	if err := functions.start(ctx); err != nil {
		return err
	}
	// The functions outlive the requests that need them: their context ends last.
	hosting, stopHosting := context.WithCancel(context.WithoutCancel(ctx))
	drained := make(chan struct{})
	go func() { // ends with hosting, once the functions have drained
		defer close(drained)
		functions.run(hosting)
	}()
	stopHTTP := serve.Ingress(front, httpListener, 0, c.Grace, log) // no load balancer needs to notice the end
	greet(c, functions, noReload, try)
	<-ctx.Done()
	stopHTTP()
	stopHosting()
	<-drained
	return nil
}

// host serves fns in this process until stop is called.
func host(b services.Broker, fns []contract.Function, log *zap.Logger) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { // ends when stop is called
		defer close(done)
		if err := b.Serve(ctx, fns); err != nil {
			log.Error("functions did not drain", zap.Error(err))
		}
	}()
	return func() { cancel(); <-done }
}

// greet prints what listens and what to try.
func greet(c *config.Config, s *supervisor, noReload error, try Try) {
	admin := cmp.Or(c.AdminAddr, serve.DefaultAdminAddr)
	var b strings.Builder
	fmt.Fprintf(&b, "\nRabbet is ready.\n\n")
	fmt.Fprintf(&b, "  HTTP       http://%s\n", c.HTTPAddr)
	if admin != "none" {
		fmt.Fprintf(&b, "  mail       http://%s/mail\n", admin)
		fmt.Fprintf(&b, "  health     http://%s/readyz\n", admin)
	}
	fmt.Fprintf(&b, "  functions  %s\n", strings.Join(s.current.functions, ", "))
	if len(try) > 0 {
		fmt.Fprintf(&b, "\nTry:\n")
	}
	for _, line := range try {
		fmt.Fprintf(&b, "  %s\n", strings.NewReplacer("{http}", c.HTTPAddr, "{rabbet}", os.Args[0]).Replace(line))
	}
	switch {
	case s.source != nil:
		fmt.Fprintf(&b, "\nDrop a file into %s and it is live as soon as it is compiled.\n", s.source.functionsDir())
	case noReload != nil:
		fmt.Fprintf(&b, "\nChanged functions are not loaded: %v.\n", noReload)
	}
	fmt.Println(b.String())
}
