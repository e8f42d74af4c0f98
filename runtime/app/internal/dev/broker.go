package dev

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/app/internal/config"
	"github.com/rabbet-fn/rabbet/runtime/app/internal/logs"
	"github.com/rabbet-fn/rabbet/runtime/app/internal/services"
	"github.com/rabbet-fn/rabbet/runtime/memory"
)

// A devBroker is the broker of 'rabbet dev'.
type devBroker struct {
	services.Broker
	// forget drops functions that no process hosts any more, so that calls are
	// answered with 404 instead of 503.
	forget func(functions ...string)
	close  func()
}

// openBroker opens the broker that c names. If that is the embedded one, other
// processes can use it over a socket in the folder of c.
func openBroker(ctx context.Context, c *config.Config, log *zap.Logger) (*devBroker, error) {
	if c.Embedded() {
		return openEmbedded(ctx, c, log)
	}
	b, err := services.OpenBroker(c, log)
	if err != nil {
		return nil, err
	}
	// The queues stay: they may have other users.
	return &devBroker{b, b.Directory().Forget, func() { b.Close() }}, nil
}

func openEmbedded(ctx context.Context, c *config.Config, log *zap.Logger) (*devBroker, error) {
	l, err := listenSocket(c)
	if err != nil {
		return nil, err
	}
	b := memory.New(memory.Config{Process: c.Process, Grace: c.Grace, Observe: logs.Invocations(log), Log: log})
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() { // ends when close is called
		defer close(done)
		if err := b.Share(ctx, l); err != nil {
			log.Error("other processes cannot use this broker any more", zap.Error(err))
		}
	}()
	return &devBroker{b, b.Forget, func() { cancel(); <-done; b.Close() }}, nil
}

// listenSocket listens on the socket of c, and removes what a process that was
// killed has left.
func listenSocket(c *config.Config) (net.Listener, error) {
	if conn, err := net.Dial("unix", c.Socket()); err == nil {
		conn.Close()
		return nil, fmt.Errorf("another 'rabbet dev' runs in this folder: stop it first, or set %sDIR to another folder", config.Prefix)
	}
	left, err := filepath.Glob(filepath.Join(c.DevDir(), "rabbet-*-*"))
	if err != nil {
		return nil, config.Unusable(config.Prefix+"DIR", c.Dir, "%v", err)
	}
	for _, file := range append(left, c.Socket()) {
		os.Remove(file)
	}
	l, err := net.Listen("unix", c.Socket())
	if err != nil {
		return nil, config.Unusable(config.Prefix+"DIR", c.Dir, "cannot listen at %s: %v", c.Socket(), err)
	}
	return l, nil
}

// awaitWorker waits until a worker hosts at least one function.
func (b *devBroker) awaitWorker(ctx context.Context, worker string) error {
	for {
		changed := b.Directory().Changed()
		if len(b.hostedBy(worker)) > 0 {
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
func (b *devBroker) hostedBy(worker string) (names []string) {
	for _, f := range b.Directory().Functions() {
		if slices.Contains(f.Workers, worker) {
			names = append(names, f.Name)
		}
	}
	return names
}
