package main

import (
	"context"
	"errors"
	"fmt"
	"go/build"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/memory"
)

const (
	modulePath = "github.com/rabbet-fn/rabbet"
	// settle is how long the source must be quiet before it is compiled: an
	// editor writes a file in several steps.
	settle = 100 * time.Millisecond
)

// crew hosts the functions of `rabbet dev`, in a worker process of their own:
// a function that ends its process, or panics where nobody can recover it, ends
// that process only, and it is replaced.
type crew struct {
	config *config
	broker broker
	log    *zap.Logger
	root   string // of the source; "" does not reload

	watcher  *fsnotify.Watcher // of the source; nil does not reload
	present  generation
	retiring sync.WaitGroup // generations of before that still drain
}

// generation is the functions as they were compiled at one time.
type generation struct {
	number    int    // 0: compiled into this process
	binary    string // which hosts them
	functions []string
	worker    *child // which runs that; nil if it has ended and did not come up again
}

// child is a worker process of this one.
type child struct {
	stdin io.Closer     // it drains and ends when this is closed
	over  chan struct{} // closed when it has ended
	err   error         // how it ended
}

// begin returns once the functions that this process was compiled with are live.
func (w *crew) begin(ctx context.Context) (err error) {
	w.present.binary, err = os.Executable()
	if err != nil {
		return err
	}
	if w.root != "" {
		if w.watcher, err = w.watch(); err != nil {
			return fmt.Errorf("watch the source (or do not: --no-reload): %w", err)
		}
	}
	return w.start(ctx, &w.present)
}

// run keeps the functions live until ctx is done and everything has drained.
// It starts their process anew when that ends, and another one whenever the
// source has changed.
func (w *crew) run(ctx context.Context) {
	defer w.retiring.Wait()
	defer func() { w.retire(w.present) }()
	var changes <-chan fsnotify.Event
	var failures <-chan error
	if w.watcher != nil {
		defer w.watcher.Close()
		changes, failures = w.watcher.Events, w.watcher.Errors
	}
	var quiet <-chan time.Time
	for {
		select {
		case e := <-changes:
			w.follow(e)
			if isSource(e.Name) && !e.Has(fsnotify.Chmod) {
				quiet = time.After(settle)
			}
		case err := <-failures:
			w.log.Warn("watching the source", zap.Error(err))
		case <-w.lost():
			w.revive(ctx)
		case <-quiet:
			quiet = nil
			if err := w.reload(ctx); err != nil && ctx.Err() == nil {
				fmt.Fprintf(os.Stderr, "\n%v\nThe functions of before go on.\n\n", err)
			}
		case <-ctx.Done():
			return
		}
	}
}

// await waits until ready reports so, which it is asked after every change of the directory.
func (w *crew) await(ctx context.Context, ready func() bool) error {
	for {
		changed := w.broker.Directory().Changed()
		if ready() {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// hostedBy lists the functions that a worker hosts.
func (w *crew) hostedBy(worker string) (names []string) {
	for _, f := range w.broker.Directory().Functions() {
		if slices.Contains(f.Workers, worker) {
			names = append(names, f.Name)
		}
	}
	return names
}

// watch begins to watch the source of the functions.
func (w *crew) watch() (*fsnotify.Watcher, error) {
	dirs, err := w.sources()
	if err != nil {
		return nil, err
	}
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	for _, dir := range dirs {
		if err := watcher.Add(dir); err != nil {
			watcher.Close()
			return nil, fmt.Errorf("%s: %w", dir, err)
		}
	}
	return watcher, nil
}

// follow watches a folder that e says is new.
func (w *crew) follow(e fsnotify.Event) {
	info, err := os.Stat(e.Name)
	if err != nil || !info.IsDir() || !e.Has(fsnotify.Create) || filepath.Dir(e.Name) == filepath.Clean(w.root) {
		return
	}
	if err := w.watcher.Add(e.Name); err != nil {
		w.log.Warn("changes in this folder go unnoticed", zap.String("folder", e.Name), zap.Error(err))
	}
}

// isSource reports whether what is built depends on the file: code, what it
// embeds, and which modules there are.
func isSource(file string) bool {
	if strings.HasSuffix(file, "_test.go") {
		return false
	}
	switch filepath.Ext(file) {
	case ".go", ".sql", ".mod", ".sum":
		return true
	}
	return false
}

// sources are the folders whose change means new functions, the one of go.mod,
// and the one of hosting.go, where functions get what they use.
func (w *crew) sources() (dirs []string, err error) {
	dirs = []string{w.root, filepath.Join(w.root, "runtime", "cmd", "rabbet")}
	for _, top := range []string{"functions", "events"} {
		err := filepath.WalkDir(filepath.Join(w.root, top), func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return dirs, nil
}

// reload compiles the source, starts a worker with the result, and lets the
// present one drain once the new one is live.
func (w *crew) reload(ctx context.Context) error {
	began := time.Now()
	fmt.Fprintln(os.Stderr, "The source has changed: compiling …")
	next := generation{number: w.present.number + 1}
	var err error
	next.binary, err = filepath.Abs(filepath.Join(w.config.Dir, "dev", fmt.Sprintf("rabbet-%d-%d", os.Getpid(), next.number)))
	if err != nil {
		return err
	}
	compile := exec.CommandContext(ctx, "go", "build", "-o", next.binary, "./runtime/cmd/rabbet")
	compile.Dir = w.root
	if out, err := compile.CombinedOutput(); err != nil {
		return fmt.Errorf("it does not compile:\n%s", out)
	}
	if err := w.start(ctx, &next); err != nil {
		os.Remove(next.binary)
		return err
	}
	before := w.present
	w.present = next
	w.retiring.Go(func() { // a run that takes its time holds nothing up
		w.retire(before)
		w.forget(slices.DeleteFunc(before.functions, func(name string) bool { return slices.Contains(next.functions, name) }))
	})
	fmt.Fprintf(os.Stderr, "Live after %.1f s: %s.\n", time.Since(began).Seconds(), strings.Join(next.functions, ", "))
	if out := w.leftOut(); len(out) > 0 {
		fmt.Fprintf(os.Stderr, "Go leaves out %s, for a build tag or the ending of the name (_linux, _js, _arm64 …): rename it.\n", strings.Join(out, " and "))
	}
	return nil
}

// leftOut lists the files of functions that are not built here.
func (w *crew) leftOut() []string {
	pkg, err := build.ImportDir(filepath.Join(w.root, "functions"), 0)
	if err != nil {
		return nil // it has just been compiled, and is being changed again
	}
	return pkg.IgnoredGoFiles
}

// retire lets a generation drain, and returns when it has ended.
func (w *crew) retire(g generation) {
	if g.worker != nil {
		g.worker.end(w.log)
	}
	if g.number > 0 {
		os.Remove(g.binary)
	}
}

// forget lets go of functions whose source is gone: they are to answer 404, not
// 503. RabbitMQ keeps their queues, which may be somebody else's as well.
func (w *crew) forget(functions []string) {
	if b, embedded := w.broker.(*memory.Broker); embedded {
		b.Forget(functions...)
		return
	}
	w.broker.Directory().Forget(functions...)
}

// lost returns a channel that is closed when the worker process has ended; nil
// if there is none.
func (w *crew) lost() <-chan struct{} {
	if w.present.worker == nil {
		return nil
	}
	return w.present.worker.over
}

// revivePause is how long a worker process that has ended is left alone: one
// that ends at once, again and again, is not to keep the machine busy.
const revivePause = time.Second

// revive starts a worker process anew that has ended by itself.
func (w *crew) revive(ctx context.Context) {
	ended := w.present.worker
	w.present.worker = nil
	select {
	case <-time.After(revivePause):
	case <-ctx.Done(): // Ctrl-C ends both
		return
	}
	w.log.Error("the functions' process has ended by itself: it is started anew", zap.Error(ended.err))
	if err := w.start(ctx, &w.present); err != nil && ctx.Err() == nil {
		fmt.Fprintf(os.Stderr, "\n%v\nNo function is hosted until the source changes.\n\n", err)
	}
}

// start runs g's binary as a worker of this process and waits until its
// functions are live.
func (w *crew) start(ctx context.Context, g *generation) error {
	id := contract.NewID()
	cmd := exec.Command(g.binary, "worker", "--attached")
	cmd.Env = append(os.Environ(),
		envPrefix+"PROCESS="+id, envPrefix+"SMTP_URL="+w.config.SMTPURL, envPrefix+"ADMIN_ADDR=none")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the functions: %w", err)
	}
	c := &child{stdin: stdin, over: make(chan struct{})}
	go func() { // ends with the process
		defer close(c.over)
		c.err = cmd.Wait()
	}()
	ctx, cancel := context.WithTimeoutCause(ctx, 30*time.Second, errors.New("the functions did not come up within 30 s"))
	defer cancel()
	live := make(chan error, 1)
	go func() { // ends when the worker is live, and with ctx
		live <- w.await(ctx, func() bool { return len(w.hostedBy(id)) > 0 })
	}()
	select {
	case err := <-live:
		if err != nil {
			c.end(w.log)
			return context.Cause(ctx)
		}
		g.worker, g.functions = c, w.hostedBy(id)
		return nil
	case <-c.over:
		return fmt.Errorf("the functions did not start (%w): see the message above", c.err)
	}
}

// end lets the process drain, and returns when it has ended.
func (c *child) end(log *zap.Logger) {
	c.stdin.Close()
	<-c.over
	if c.err != nil {
		log.Warn("the functions of before did not end well", zap.Error(c.err))
	}
}

// sourceRoot is the folder of the module's source around the working
// directory; "" when there is none.
func sourceRoot() string {
	dir, err := os.Getwd()
	if err != nil {
		return ""
	}
	for {
		mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(mod), "module "+modulePath+"\n") {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return ""
		}
		dir = parent
	}
}
