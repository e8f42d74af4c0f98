package main

import (
	"context"
	"errors"
	"fmt"
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

	"github.com/rabbet-fn/rabbet/runtime/faas"
)

const (
	modulePath = "github.com/rabbet-fn/rabbet"
	// settle is how long the source must be quiet before it is compiled: an
	// editor writes a file in several steps.
	settle = 100 * time.Millisecond
)

// crew hosts the functions of `rabbet dev`, at first in this process, later in
// a worker process with newly compiled ones.
type crew struct {
	config *config
	broker broker
	log    *zap.Logger
	first  []faas.Function // as compiled into this process
	extra  []faas.Function // hosted here for as long as the process lives
	root   string          // of the source; "" does not reload

	generation int
	retire     func(*child)   // lets the present host drain, worker if it is one, and waits for it
	retiring   sync.WaitGroup // hosts of before that still drain
	worker     *child         // the present host, if it is a process of its own
	binary     string         // which it runs
}

// child is a worker process of this one.
type child struct {
	stdin io.Closer     // it drains and ends when this is closed
	over  chan struct{} // closed when it has ended
	err   error         // how it ended
}

// run hosts until ctx is done and everything has drained.
func (w *crew) run(ctx context.Context) error {
	stopExtra := w.serve(w.extra)
	defer stopExtra()
	stopFirst := w.serve(w.first)
	w.retire = func(*child) { stopFirst() }
	defer func() {
		w.retire(w.worker)
		w.retiring.Wait()
	}()
	if w.root == "" {
		<-ctx.Done()
		return nil
	}
	return w.watch(ctx)
}

// serve hosts fns in this process until stop is called.
func (w *crew) serve(fns []faas.Function) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { // ends when stop is called
		defer close(done)
		if err := w.broker.Serve(ctx, fns); err != nil {
			w.log.Error("functions did not drain", zap.Error(err))
		}
	}()
	return func() { cancel(); <-done }
}

// hosted waits until the first functions are live.
func (w *crew) hosted(ctx context.Context) error {
	return w.await(ctx, func(list []faas.Live) bool {
		for _, f := range w.first {
			if !slices.ContainsFunc(list, func(l faas.Live) bool { return l.Name == f.Name && len(l.Workers) > 0 }) {
				return false
			}
		}
		return true
	})
}

// await waits until the directory shows what ready wants.
func (w *crew) await(ctx context.Context, ready func([]faas.Live) bool) error {
	for {
		changed := w.broker.Directory().Changed()
		if ready(w.broker.Directory().Functions()) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// watch reloads whenever the source of the functions has changed.
func (w *crew) watch(ctx context.Context) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch the source: %w", err)
	}
	defer watcher.Close()
	dirs, err := w.sources()
	if err != nil {
		return fmt.Errorf("watch the source: %w", err)
	}
	for _, dir := range dirs {
		if err := watcher.Add(dir); err != nil {
			return fmt.Errorf("watch %s: %w", dir, err)
		}
	}
	var quiet <-chan time.Time
	for {
		select {
		case e := <-watcher.Events:
			if info, err := os.Stat(e.Name); err == nil && info.IsDir() && e.Has(fsnotify.Create) && filepath.Dir(e.Name) != filepath.Clean(w.root) {
				if err := watcher.Add(e.Name); err != nil {
					w.log.Warn("changes in this folder go unnoticed", zap.String("folder", e.Name), zap.Error(err))
				}
			}
			if isSource(e.Name) && !e.Has(fsnotify.Chmod) {
				quiet = time.After(settle)
			}
		case err := <-watcher.Errors:
			w.log.Warn("watching the source", zap.Error(err))
		case <-w.lost():
			w.revive(ctx)
		case <-quiet:
			quiet = nil
			if err := w.reload(ctx); err != nil && ctx.Err() == nil {
				fmt.Fprintf(os.Stderr, "\n%v\nThe functions of before go on.\n\n", err)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// isSource reports whether what is built depends on the file: code, what it
// embeds, and which modules there are.
func isSource(file string) bool {
	switch filepath.Ext(file) {
	case ".go", ".sql", ".mod", ".sum":
		return true
	}
	return false
}

// sources are the folders whose change means new functions, and the one of go.mod.
func (w *crew) sources() (dirs []string, err error) {
	dirs = []string{w.root}
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
// present host drain once the new one is live.
func (w *crew) reload(ctx context.Context) error {
	began := time.Now()
	fmt.Fprintln(os.Stderr, "The source has changed: compiling …")
	w.generation++
	binary, err := filepath.Abs(filepath.Join(w.config.Dir, "dev", fmt.Sprintf("rabbet-%d-%d", os.Getpid(), w.generation)))
	if err != nil {
		return err
	}
	build := exec.CommandContext(ctx, "go", "build", "-o", binary, "./runtime/cmd/rabbet")
	build.Dir = w.root
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("it does not compile:\n%s", out)
	}
	worker, err := w.start(ctx, binary)
	if err != nil {
		os.Remove(binary)
		return err
	}
	retire, before := w.retire, w.worker
	w.retiring.Go(func() { retire(before) }) // a run that takes its time holds nothing up
	w.worker, w.binary = worker, binary
	w.retire = func(worker *child) {
		if worker != nil {
			worker.end(w.log)
		}
		os.Remove(binary)
	}
	fmt.Fprintf(os.Stderr, "The new functions are live after %.1f s.\n", time.Since(began).Seconds())
	return nil
}

// lost returns a channel that is closed when the worker process has ended; nil
// if there is none.
func (w *crew) lost() <-chan struct{} {
	if w.worker == nil {
		return nil
	}
	return w.worker.over
}

// revivePause is how long a worker process that has ended is left alone: one
// that ends at once, again and again, is not to keep the machine busy.
const revivePause = time.Second

// revive starts a worker process anew that has ended by itself.
func (w *crew) revive(ctx context.Context) {
	ended := w.worker
	w.worker = nil
	select {
	case <-time.After(revivePause):
	case <-ctx.Done(): // Ctrl-C ends both
		return
	}
	w.log.Error("the functions' process has ended by itself: it is started anew", zap.Error(ended.err))
	worker, err := w.start(ctx, w.binary)
	if err != nil {
		if ctx.Err() == nil {
			fmt.Fprintf(os.Stderr, "\n%v\nNo function is hosted until the source changes.\n\n", err)
		}
		return
	}
	w.worker = worker
}

// start runs binary as a worker of this process and waits until its functions
// are live.
func (w *crew) start(ctx context.Context, binary string) (*child, error) {
	id := faas.NewID()
	cmd := exec.Command(binary, "worker", "--attached")
	cmd.Env = append(os.Environ(),
		envPrefix+"PROCESS="+id, envPrefix+"SMTP_URL="+w.config.SMTPURL, envPrefix+"ADMIN_ADDR=none")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the new functions: %w", err)
	}
	c := &child{stdin: stdin, over: make(chan struct{})}
	go func() { // ends with the process
		defer close(c.over)
		c.err = cmd.Wait()
	}()
	ctx, cancel := context.WithTimeoutCause(ctx, 30*time.Second, errors.New("the new functions did not come up within 30 s"))
	defer cancel()
	live := make(chan error, 1)
	go func() { // ends when the worker is live, and with ctx
		live <- w.await(ctx, func(list []faas.Live) bool {
			return slices.ContainsFunc(list, func(l faas.Live) bool { return slices.Contains(l.Workers, id) })
		})
	}()
	select {
	case err := <-live:
		if err == nil {
			return c, nil
		}
		c.end(w.log)
		return nil, context.Cause(ctx)
	case <-c.over:
		return nil, fmt.Errorf("the new functions did not start (%w): see the message above", c.err)
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
