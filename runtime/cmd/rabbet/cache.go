package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/cache"
	"github.com/rabbet-fn/rabbet/runtime/faas"
)

// cacheCommand looks after cached results by hand.
type cacheCommand struct {
	Get        cacheGetCommand        `cmd:"" help:"Show what is stored for a call."`
	Invalidate cacheInvalidateCommand `cmd:"" help:"Make results stale by their tags."`
	Stats      cacheStatsCommand      `cmd:"" help:"Show what caching has come to in each process."`
}

// cacheGetCommand shows what is stored for a call, and runs nothing.
type cacheGetCommand struct {
	Function string `arg:"" help:"Name of the function, or its routing key."`
	Message  string `arg:"" optional:"" default:"{}" help:"The message as JSON; - reads standard input."`
}

// Run prints what is stored on standard output.
func (cmd cacheGetCommand) Run(ctx context.Context, c *config) error {
	body, err := message(cmd.Message)
	if err != nil {
		return err
	}
	b, err := dial(ctx, c)
	if err != nil {
		return err
	}
	defer b.Close()
	f, ok := b.Directory().Find(cmd.Function)
	if !ok {
		return fmt.Errorf("there is no function %q: 'rabbet functions' lists what is live", cmd.Function)
	}
	results, err := resultsByHand(c, b)
	if err != nil {
		return err
	}
	defer results.Close()
	stored, err := results.Inspect(ctx, &f.Descriptor, faas.Request{Body: body})
	if err != nil {
		return err
	}
	return printStored(os.Stdout, &stored)
}

func printStored(w io.Writer, s *cache.Stored) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "key\t%s\n", s.Key)
	switch age := time.Since(s.Born).Round(time.Second); {
	case !s.Found && s.Size == 0:
		fmt.Fprintf(t, "stored\tnothing\n")
	case !s.Found:
		fmt.Fprintf(t, "stored\t%d bytes that cannot be read here; the next call replaces them\n", s.Size)
	case !s.Valid():
		fmt.Fprintf(t, "stored\t%d bytes, %v old, invalidated\n", s.Size, age)
	case s.TTL > 0:
		fmt.Fprintf(t, "stored\t%d bytes, %v old, fresh for %v\n", s.Size, age, s.TTL.Round(time.Second))
	default:
		fmt.Fprintf(t, "stored\t%d bytes, %v old, stale since %v\n", s.Size, age, -s.TTL.Round(time.Second))
	}
	for _, tag := range s.Tags {
		state := "agrees"
		if !tag.Agrees {
			state = "does not agree"
		}
		fmt.Fprintf(t, "tag\t%s\t%s\n", tag.Tag, state)
	}
	if s.Failure != "" {
		fmt.Fprintf(t, "failure\t%s\n", s.Failure)
	}
	if s.ETag != "" {
		fmt.Fprintf(t, "etag\t%s\n", s.ETag)
	}
	if err := t.Flush(); err != nil || !s.Found {
		return err
	}
	_, err := fmt.Fprintf(w, "\n%s\n", s.Body)
	return err
}

// cacheInvalidateCommand makes results stale.
type cacheInvalidateCommand struct {
	Tags []string `arg:"" help:"Tags, such as profile:42."`
}

// Run returns once no result with one of the tags is served any more.
func (cmd cacheInvalidateCommand) Run(ctx context.Context, c *config) error {
	b, err := dial(ctx, c)
	if err != nil {
		return err
	}
	defer b.Close()
	results, err := resultsByHand(c, b)
	if err != nil {
		return err
	}
	defer results.Close()
	return results.Invalidate(ctx, cmd.Tags...)
}

// cacheStatsCommand asks every process what its cached calls came to.
type cacheStatsCommand struct {
	JSON bool          `help:"Print them as JSON."`
	Wait time.Duration `default:"500ms" help:"How long to wait for answers."`
}

// Run prints a table on standard output.
func (cmd cacheStatsCommand) Run(ctx context.Context, c *config) error {
	b, err := dial(ctx, c)
	if err != nil {
		return err
	}
	defer b.Close()
	ctx, cancel := context.WithTimeout(ctx, cmd.Wait)
	defer cancel()
	all, err := cache.AskStats(ctx, b)
	if err != nil {
		return err
	}
	if cmd.JSON {
		out := json.NewEncoder(os.Stdout)
		out.SetIndent("", "  ")
		return out.Encode(all)
	}
	if len(all) == 0 {
		fmt.Println("no process caches results: set " + envPrefix + "CACHE_URL for the ingress and the workers")
		return nil
	}
	return printStats(os.Stdout, all)
}

func printStats(w io.Writer, all []cache.Stats) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "PROCESS\tHITS\tLOCAL\tSTALE\tMISSES\tCOLLAPSED\tBYPASSES\tFILLS\tINVALIDATED\tERRORS\tREAD\tWRITTEN\tLOCAL LEVEL")
	for _, s := range all {
		local := "none"
		if s.LocalSize > 0 {
			local = fmt.Sprintf("%.1f of %d MiB", float64(s.LocalBytes)/(1<<20), s.LocalSize>>20)
			if !s.LocalOn {
				local += ", off: broadcasts are not heard"
			}
		}
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%s\n",
			s.Process, s.Hits, s.Local, s.Stale, s.Misses, s.Collapsed, s.Bypasses, s.Fills, s.Invalidated, s.Errors, s.Read, s.Written, local)
	}
	return t.Flush()
}

// cached are the results of functions, here or in another process.
type cached interface {
	Invalidate(ctx context.Context, tags ...string) error
	Inspect(ctx context.Context, f *faas.Descriptor, req faas.Request) (cache.Stored, error)
	Close() error
}

// resultsByHand opens the results that the processes of c use.
func resultsByHand(c *config, b broker) (cached, error) {
	if c.embedded() && (c.CacheURL == "" || c.CacheURL == "memory://") {
		return remoteResults{faas.NewBus(b)}, nil
	}
	own := *c
	own.CacheLocal = 0 // for a moment it is not worth it
	results, err := openCache(&own, b, "none", zap.NewNop())
	if err != nil {
		return nil, err
	}
	if results == nil {
		return nil, unusable("CACHE_URL", c.CacheURL, "results are not cached: set it as for the ingress and the workers")
	}
	return results, nil
}

// dropResults is the message that asks `rabbet dev` to drop results from its
// cache: memory:// is in that process alone.
type dropResults struct {
	Tags []string `json:"tags"`
}

func (dropResults) RoutingKey() string { return devKeys + "results.drop" }

// showResult is the message that asks `rabbet dev` what it has stored.
type showResult struct {
	Function string `json:"function"`
	Message  string `json:"message"`
}

func (showResult) RoutingKey() string { return devKeys + "results.show" }

// remoteResults are those of the `rabbet dev` behind bus.
type remoteResults struct{ bus faas.Bus }

func (r remoteResults) Invalidate(ctx context.Context, tags ...string) error {
	if _, err := faas.Call[struct{}](ctx, r.bus, dropResults{tags}); err != nil {
		return fmt.Errorf("invalidate %q: %w", tags, err)
	}
	return nil
}

func (r remoteResults) Inspect(ctx context.Context, f *faas.Descriptor, req faas.Request) (cache.Stored, error) {
	return faas.Call[cache.Stored](ctx, r.bus, showResult{f.Name, string(req.Body)})
}

func (remoteResults) Close() error { return nil }

// nothingCached takes the place of a results cache where there is none.
type nothingCached struct{}

func (nothingCached) Invalidate(context.Context, ...string) error { return nil }

func (nothingCached) Inspect(context.Context, *faas.Descriptor, faas.Request) (cache.Stored, error) {
	return cache.Stored{}, errors.New("results are not cached: set " + envPrefix + "CACHE_URL to cache them")
}

func (nothingCached) Close() error { return nil }
