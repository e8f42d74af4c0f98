package main

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/cache"
	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/faas"
	"github.com/rabbet-fn/rabbet/runtime/inbox"
	"github.com/rabbet-fn/rabbet/runtime/memory"
)

// devCommand is everything at once: embedded parts take the place of every
// service that the environment does not name.
type devCommand struct {
	NoReload bool `help:"Do not watch the source for changes."`
}

// Run serves until ctx is done.
//
// The process keeps the broker, the cache, the mail and the HTTP listener for
// as long as it lives. The functions run in another one, a worker that is
// attached to it: at first of the same binary. A changed function is compiled
// into a new binary, whose worker takes over before the old functions drain. So
// no request and no event is lost on the way, whatever the compiler says.
func (cmd devCommand) Run(ctx context.Context, c *config) error {
	log := newLog(c, "console")
	defer log.Sync()
	dir := filepath.Join(c.Dir, "dev")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return unusable("DIR", c.Dir, "%v", err)
	}
	broker, stopSharing, err := devBroker(ctx, c, log)
	if err != nil {
		return err
	}
	defer broker.Close()
	defer stopSharing()
	httpListener, err := listen("HTTP_ADDR", c.HTTPAddr)
	if err != nil {
		return err
	}
	defer httpListener.Close()
	results, err := openCache(c, broker, "memory://", log)
	if err != nil {
		return err
	}
	// Safari, unlike others, takes no Secure cookie from http://localhost.
	c.SessionSecure = cmp.Or(c.SessionSecure, new(false))
	if err := c.validateSessions(); err != nil {
		return err
	}
	sessions, err := openSessions(c, "memory://", log)
	if err != nil {
		return err
	}
	if sessions != nil {
		defer sessions.Close()
	}
	dropper := cached(nothingCached{})
	if results != nil {
		defer results.Close()
		dropper = results
	}
	catcher := &mailCatcher{}
	if c.SMTPURL == "" {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return fmt.Errorf("listen for mail: %w", err)
		}
		defer catcher.serve(l, log)()
		c.SMTPURL = "smtp://" + l.Addr().String() + "?tls=none"
	}
	var handled inbox.Store
	if c.embedded() {
		handled = &inbox.Memory{}
	}
	if c.DatabaseURL == "" {
		if err := seed(ctx, c, log); err != nil {
			return fmt.Errorf("store the sample profiles: %w", err)
		}
	}

	front := newIngress(c, broker, results, sessions, log)
	admin := http.NewServeMux()
	admin.Handle("/", front.Admin())
	admin.Handle("GET /mail", catcher)
	stopAdmin, err := serveAdmin(c, admin, log)
	if err != nil {
		return err
	}
	defer stopAdmin()

	if err := broker.Ready(ctx); err != nil {
		return err
	}
	defer serve(broker, devFunctions(dropper, handled, broker.Directory()), log)()
	crew := &crew{config: c, broker: broker, log: log}
	if !cmd.NoReload {
		crew.root = sourceRoot()
	}
	if err := crew.begin(ctx); err != nil {
		return err
	}
	// The functions outlive the requests that need them: their context ends last.
	hosting, dismiss := context.WithCancel(context.WithoutCancel(ctx))
	drained := make(chan struct{})
	go func() { // ends with hosting, once the functions have drained
		defer close(drained)
		crew.run(hosting)
	}()
	stopHTTP := serveIngress(front, httpListener, 0, c.Grace, nil, log) // no other ingress takes over: nobody is helped by patience
	cmd.greet(c, crew.present.functions, crew.root)
	<-ctx.Done()
	stopHTTP()
	dismiss()
	<-drained
	return nil
}

// seed stores the sample profiles.
func seed(ctx context.Context, c *config, log *zap.Logger) error {
	profiles, err := openProfiles(ctx, c, log)
	if err != nil {
		return err
	}
	defer profiles.Close()
	return profiles.Seed(ctx)
}

// devBroker opens the broker of the dev process and lets other processes of
// this folder use it, if it is the embedded one.
func devBroker(ctx context.Context, c *config, log *zap.Logger) (b broker, stop func(), err error) {
	if !c.embedded() {
		b, err = openBroker(c, nil, log)
		return b, func() {}, err
	}
	if conn, err := net.Dial("unix", c.socket()); err == nil {
		conn.Close()
		return nil, nil, fmt.Errorf("another 'rabbet dev' runs in this folder: stop it first, or set %sDIR to another folder", envPrefix)
	}
	left, err := filepath.Glob(filepath.Join(c.Dir, "dev", "rabbet-*-*"))
	if err != nil {
		return nil, nil, unusable("DIR", c.Dir, "%v", err)
	}
	for _, file := range append(left, c.socket()) { // of one that was killed
		os.Remove(file)
	}
	l, err := net.Listen("unix", c.socket())
	if err != nil {
		return nil, nil, unusable("DIR", c.Dir, "cannot listen at %s: %v", c.socket(), err)
	}
	embedded := memory.New(memory.Config{Process: c.Process, Grace: c.Grace, Observe: logInvocations(log), Log: log})
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() { // ends when stop is called
		defer close(done)
		if err := embedded.Share(ctx, l); err != nil {
			log.Error("other processes cannot use this broker any more", zap.Error(err))
		}
	}()
	return embedded, func() { cancel(); <-done }, nil
}

// serve hosts fns in this process until stop is called.
func serve(b broker, fns []contract.Function, log *zap.Logger) (stop func()) {
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

// devState is what the dev process keeps for the workers that it starts.
type devState struct {
	results cached
	handled inbox.Store // nil when the broker is not the embedded one
}

// devFunctions are hosted by the dev process itself, so that the workers that
// it starts reach its state.
func devFunctions(results cached, handled inbox.Store, directory *contract.Directory) []contract.Function {
	var set faas.Set[devState]
	faas.OnRequest(&set, "dev-drop-results", func(ctx context.Context, d *devState, in dropResults) (struct{}, error) {
		return struct{}{}, d.results.Invalidate(ctx, in.Tags...)
	}, faas.Idempotent())
	faas.OnRequest(&set, "dev-show-result", func(ctx context.Context, d *devState, in showResult) (cache.Stored, error) {
		f, ok := directory.Find(in.Function)
		if !ok {
			return cache.Stored{}, faas.NotFound("there is no function %q", in.Function)
		}
		stored, err := d.results.Inspect(ctx, &f.Descriptor, contract.Call{Body: []byte(in.Message)})
		if err != nil {
			return cache.Stored{}, faas.Invalid("%v", err)
		}
		return stored, nil
	}, faas.ReadOnly())
	if handled != nil {
		faas.OnRequest(&set, "dev-inbox", func(ctx context.Context, d *devState, in inboxStep) (inbox.Claim, error) {
			return takeStep(ctx, d.handled, in)
		}, faas.Idempotent())
	}
	fns, err := set.With(&devState{results, handled})
	if err != nil {
		panic(err) // they are registered right here
	}
	return fns
}

// greet says what listens and what to try.
func (cmd devCommand) greet(c *config, functions []string, root string) {
	adminAddr := c.AdminAddr
	if adminAddr == "" {
		adminAddr = defaultAdminAddr
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\nRabbet is ready.\n\n")
	fmt.Fprintf(&b, "  HTTP       http://%s\n", c.HTTPAddr)
	if adminAddr != "none" {
		fmt.Fprintf(&b, "  mail       http://%s/mail\n", adminAddr)
		fmt.Fprintf(&b, "  health     http://%s/readyz\n", adminAddr)
	}
	fmt.Fprintf(&b, "  functions  %s\n", strings.Join(functions, ", "))
	fmt.Fprintf(&b, "\nTry:\n  curl http://%s/profiles/42\n", c.HTTPAddr)
	fmt.Fprintf(&b, "  curl -X PUT http://%s/profiles/42 -d '{\"name\":\"Ada King\",\"email\":\"ada@example.org\"}'\n", c.HTTPAddr)
	fmt.Fprintf(&b, "  %s publish profile.updated '{\"id\":\"42\"}'\n", os.Args[0])
	if root != "" {
		fmt.Fprintf(&b, "\nDrop a file into %s and it is live as soon as it is compiled.\n", filepath.Join(root, "functions"))
	}
	fmt.Println(b.String())
}
