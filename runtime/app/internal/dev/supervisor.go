package dev

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/app/internal/config"
)

// A supervisor keeps the functions of 'rabbet dev' running, in a worker process of
// their own. A function that ends its process, or panics in a goroutine of its own,
// ends only that process, and the supervisor starts another.
type supervisor struct {
	config      *config.Config
	broker      *devBroker
	mailCatcher string // SMTP URL
	log         *zap.Logger
	source      *source // nil: changes are not loaded

	watcher  *fsnotify.Watcher // of the source; nil if that is
	current  generation
	retiring sync.WaitGroup // earlier generations that still drain
}

// A generation is the functions as they were compiled at one time.
type generation struct {
	number    int    // 0: compiled into this process
	binary    string // path of the program that hosts them
	functions []string
	worker    *worker // nil if it ended and could not be started again
}

// start returns once the functions that this process was compiled with are live.
func (s *supervisor) start(ctx context.Context) (err error) {
	s.current.binary, err = os.Executable()
	if err != nil {
		return err
	}
	if s.source != nil {
		if s.watcher, err = s.source.watch(); err != nil {
			return fmt.Errorf("watch the source (or do not: --no-reload): %w", err)
		}
	}
	return s.startWorker(ctx, &s.current)
}

// settleTime is how long the source must be unchanged before it is compiled: an
// editor writes a file in several steps.
const settleTime = 100 * time.Millisecond

// run keeps the functions live until ctx is done, and then returns once they have
// drained. It starts a new worker when the current one ends by itself, and a new
// generation when the source has changed.
func (s *supervisor) run(ctx context.Context) {
	defer s.retiring.Wait()
	defer func() { s.retire(s.current) }()
	var events <-chan fsnotify.Event
	var failures <-chan error
	if s.watcher != nil {
		defer s.watcher.Close()
		events, failures = s.watcher.Events, s.watcher.Errors
	}
	var settled <-chan time.Time
	for {
		select {
		case e := <-events:
			if err := s.source.follow(s.watcher, e); err != nil {
				s.log.Warn("changes in a new folder will not be noticed", zap.String("folder", e.Name), zap.Error(err))
			}
			if changes(e) {
				settled = time.After(settleTime)
			}
		case err := <-failures:
			s.log.Warn("watch the source", zap.Error(err))
		case <-s.current.ended():
			s.restartWorker(ctx)
		case <-settled:
			settled = nil
			if err := s.reload(ctx); err != nil && ctx.Err() == nil {
				fmt.Fprintf(os.Stderr, "\n%v\nThe functions of before go on.\n\n", err)
			}
		case <-ctx.Done():
			return
		}
	}
}

// reload compiles the source, starts a worker with the result, and lets the
// current one drain once the new one is live.
func (s *supervisor) reload(ctx context.Context) error {
	began := time.Now()
	fmt.Fprintln(os.Stderr, "The source has changed: compiling …")
	next := generation{number: s.current.number + 1}
	var err error
	next.binary, err = filepath.Abs(filepath.Join(s.config.DevDir(), fmt.Sprintf("rabbet-%d-%d", os.Getpid(), next.number)))
	if err != nil {
		return err
	}
	if err := s.source.build(ctx, next.binary); err != nil {
		return err
	}
	defer s.warnOfIgnored()
	if s.current.worker != nil && sameContent(s.current.binary, next.binary) {
		fmt.Fprintln(os.Stderr, "Nothing that is built has changed.")
		return os.Remove(next.binary)
	}
	if err := s.startWorker(ctx, &next); err != nil {
		os.Remove(next.binary)
		return err
	}
	before := s.current
	s.current = next
	s.retiring.Go(func() { // a run that takes long does not delay the next reload
		s.retire(before)
		s.broker.forget(slices.DeleteFunc(before.functions, func(name string) bool { return slices.Contains(next.functions, name) })...)
	})
	fmt.Fprintf(os.Stderr, "Live after %.1f s: %s.\n", time.Since(began).Seconds(), strings.Join(next.functions, ", "))
	return nil
}

func (s *supervisor) warnOfIgnored() {
	if files := s.source.ignored(); len(files) > 0 {
		fmt.Fprintf(os.Stderr, "Go leaves out %s, for a build tag or the ending of the name (_linux, _js, _arm64 …): rename it.\n", strings.Join(files, " and "))
	}
}

// sameContent reports whether two files are known to be equal.
func sameContent(a, b string) bool {
	x, errX := os.ReadFile(a)
	y, errY := os.ReadFile(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

// retire lets a generation drain, and returns when it has ended.
func (s *supervisor) retire(g generation) {
	if g.worker != nil {
		g.worker.stop(s.log)
	}
	if g.number > 0 {
		os.Remove(g.binary)
	}
}

// ended returns a channel that is closed when the worker of g ends; nil if there is
// none.
func (g *generation) ended() <-chan struct{} {
	if g.worker == nil {
		return nil
	}
	return g.worker.done
}

// restartPause bounds how often a worker that ends at once is started again.
const restartPause = time.Second

// restartWorker starts the current generation again after its worker has ended by
// itself.
func (s *supervisor) restartWorker(ctx context.Context) {
	ended := s.current.worker
	s.current.worker = nil
	select {
	case <-time.After(restartPause):
	case <-ctx.Done(): // Ctrl-C ends both
		return
	}
	s.log.Error("the process of the functions has ended by itself: starting it again", zap.Error(ended.err))
	if err := s.startWorker(ctx, &s.current); err != nil && ctx.Err() == nil {
		fmt.Fprintf(os.Stderr, "\n%v\nNo function is hosted until the source changes.\n\n", err)
	}
}

// startTimeout is how long functions may take to become live.
const startTimeout = 30 * time.Second

// startWorker runs g's binary as a worker and waits until its functions are live.
func (s *supervisor) startWorker(ctx context.Context, g *generation) error {
	w, err := startWorker(g.binary, s.mailCatcher)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, errors.New("the functions did not come up within 30 s"))
	defer cancel()
	live := make(chan error, 1)
	go func() { // ends when the worker is live, and with ctx
		live <- s.broker.awaitWorker(ctx, w.id)
	}()
	select {
	case err := <-live:
		if err != nil {
			w.stop(s.log)
			return context.Cause(ctx)
		}
		g.worker, g.functions = w, s.broker.hostedBy(w.id)
		return nil
	case <-w.done:
		return fmt.Errorf("the functions did not start (%w): see the message above", w.err)
	}
}
