package main

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
)

// faults are what may happen, by name.
var faults = map[string]func(ctx context.Context, s *system) error{
	"cut":  func(_ context.Context, s *system) error { s.proxy.cut(); return nil },
	"hole": func(_ context.Context, s *system) error { s.proxy.swallow(upTo(20 * time.Second)); return nil },
	"worker": func(_ context.Context, s *system) error {
		s.anyWorker().signal(syscall.SIGKILL)
		return nil
	},
	"restart": func(_ context.Context, s *system) error { // as a deployment does
		s.anyWorker().signal(syscall.SIGTERM)
		return nil
	},
	"publisher": func(_ context.Context, s *system) error {
		s.publisher.signal(syscall.SIGKILL)
		return nil
	},
	"broker": func(ctx context.Context, s *system) error {
		s.node.Kill()
		return s.node.Restart(ctx)
	},
	"pause": func(_ context.Context, s *system) error {
		if err := s.node.Signal(syscall.SIGSTOP); err != nil {
			return err
		}
		time.Sleep(upTo(10 * time.Second))
		return s.node.Signal(syscall.SIGCONT)
	},
	"alarm": func(ctx context.Context, s *system) error {
		if _, err := s.node.Ctl(ctx, "set_vm_memory_high_watermark", "0.0001"); err != nil {
			return err
		}
		time.Sleep(upTo(10 * time.Second))
		_, err := s.node.Ctl(ctx, "set_vm_memory_high_watermark", "0.4")
		return err
	},
}

func faultNames() []string { return slices.Sorted(maps.Keys(faults)) }

func upTo(d time.Duration) time.Duration { return time.Duration(rand.Int64N(int64(d))) }

// fail lets the chosen faults happen until ctx is done.
func (s *system) fail(ctx context.Context, chosen []string, every time.Duration) error {
	for len(chosen) > 0 {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(upTo(2 * every)):
		}
		name := chosen[rand.IntN(len(chosen))]
		s.mu.Lock()
		s.happened[name]++
		s.mu.Unlock()
		// Begun, a fault is carried to its end: the broker has to come back.
		lasting, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Minute)
		err := faults[name](lasting, s)
		cancel()
		if err != nil {
			return fmt.Errorf("fault %s: %w", name, err)
		}
	}
	<-ctx.Done()
	return nil
}

// faultsSoFar is how often each has happened.
func (s *system) faultsSoFar() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []string
	for _, name := range slices.Sorted(maps.Keys(s.happened)) {
		list = append(list, fmt.Sprintf("%s %d", name, s.happened[name]))
	}
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ", ")
}

func (s *system) anyWorker() *child { return s.workers[rand.IntN(len(s.workers))] }

// progress prints a line every now and then until ctx is done.
func (s *system) progress(ctx context.Context) {
	began, last, lastAt := time.Now(), 0, time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(5 * time.Second):
		}
		_, settled, missing := s.account.state()
		rate := float64(settled-last) / time.Since(lastAt).Seconds()
		last, lastAt = settled, time.Now()
		memory := []string{fmt.Sprint(s.publisher.memory())}
		for _, w := range s.workers {
			memory = append(memory, fmt.Sprint(w.memory()))
		}
		fmt.Fprintf(os.Stderr, "%6s  %v  waiting %d  %.0f/s  faults: %s  MiB: publisher %s, workers %s\n",
			time.Since(began).Round(time.Second), s.account, missing, rate, s.faultsSoFar(), memory[0], strings.Join(memory[1:], " "))
	}
}
