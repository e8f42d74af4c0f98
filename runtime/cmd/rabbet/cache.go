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
	"github.com/rabbet-fn/rabbet/runtime/contract"
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
	stored, err := results.Inspect(ctx, &f.Descriptor, contract.Call{Body: body})
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
		fmt.Fprintf(t, "stored\t%d bytes, %v old, invalidated: the next call replaces them\n", s.Size, age)
	case s.TTL > 0:
		fmt.Fprintf(t, "stored\t%d bytes, %v old, fresh for %v\n", s.Size, age, s.TTL.Round(time.Second))
	default:
		fmt.Fprintf(t, "stored\t%d bytes, %v old, stale since %v\n", s.Size, age, -s.TTL.Round(time.Second))
	}
	for _, tag := range s.Tags {
		state := ""
		switch {
		case !s.Found: // there is nothing that it could agree with
		case tag.Agrees:
			state = "\tagrees"
		default:
			state = "\tinvalidated since"
		}
		fmt.Fprintf(t, "tag\t%s%s\n", printable(tag.Tag), state)
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
	_, err := fmt.Fprintf(w, "\n%s\n", printable(string(s.Body)))
	return err
}

// cacheInvalidateCommand makes results stale.
type cacheInvalidateCommand struct {
	Tags []string `arg:"" help:"Tags, such as profile:42."`
}

// Run says so once no result with one of the tags is served any more.
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
	for _, tag := range cmd.Tags {
		if err := results.Invalidate(ctx, tag); err != nil {
			return fmt.Errorf("%w; check that it runs, then try again", err)
		}
		fmt.Println("invalidated", printable(tag))
	}
	return nil
}

// cacheStatsCommand asks every process what its cached calls came to.
type cacheStatsCommand struct {
	JSON bool          `help:"Print them as JSON."`
	Wait time.Duration `default:"500ms" help:"How long to wait for answers."`
}

// Run prints a table on standard output.
func (cmd cacheStatsCommand) Run(ctx context.Context, c *config) error {
	if cmd.Wait <= 0 {
		return &usageError{fmt.Errorf("--wait %v: choose a duration such as 500ms", cmd.Wait)}
	}
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
		fmt.Println("no process answered: none runs that caches results (" + envPrefix + "CACHE_URL is to be set for the ingresses and the workers), or --wait is too short")
		return nil
	}
	return printStats(os.Stdout, all)
}

func printStats(w io.Writer, all []cache.Stats) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "PROCESS\tHITS\tRATE\tSTALE\tMISSES\tCOLLAPSED\tBYPASSES\tFILLS\tINVALIDATED\tERRORS\tREAD\tWRITTEN\tHITS IN PROCESS\tKEPT IN PROCESS")
	for _, s := range all {
		rate, local, kept := "-", "-", "-"
		if asked := s.Hits + s.Misses + s.Bypasses; asked > 0 {
			rate = fmt.Sprintf("%.0f%%", 100*float64(s.Hits)/float64(asked))
		}
		if s.LocalSize > 0 {
			local = fmt.Sprint(s.Local)
			kept = fmt.Sprintf("%s of %s", size(s.LocalBytes), size(s.LocalSize))
			if !s.LocalOn {
				kept += ", off: broadcasts are not heard"
			}
		}
		fmt.Fprintf(t, "%s\t%d\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%s\t%s\t%s\t%s\n",
			s.Process, s.Hits, rate, s.Stale, s.Misses, s.Collapsed, s.Bypasses, s.Fills, s.Invalidated, s.Errors, size(s.Read), size(s.Written), local, kept)
	}
	return t.Flush()
}

// size is a number of bytes as people read it.
func size(n uint64) string {
	units := [...]string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	if n < 1<<10 {
		return fmt.Sprintf("%d B", n)
	}
	value, unit := float64(n)/(1<<10), 0
	for ; value >= 1000 && unit < len(units)-1; unit++ {
		value /= 1 << 10
	}
	return fmt.Sprintf("%.1f %s", value, units[unit])
}

// cached are the results of functions, here or in another process.
type cached interface {
	Invalidate(ctx context.Context, tags ...string) error
	Inspect(ctx context.Context, f *contract.Descriptor, req contract.Call) (cache.Stored, error)
	Close() error
}

// resultsByHand opens the results that the processes of c use.
func resultsByHand(c *config, b broker) (cached, error) {
	if c.embedded() && c.devCache() {
		return remoteResults{faas.NewBus(b)}, nil
	}
	if err := c.refuseOwnCache(); err != nil {
		return nil, err
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

func (r remoteResults) Inspect(ctx context.Context, f *contract.Descriptor, req contract.Call) (cache.Stored, error) {
	return faas.Call[cache.Stored](ctx, r.bus, showResult{f.Name, string(req.Body)})
}

func (remoteResults) Close() error { return nil }

// nothingCached takes the place of a results cache where there is none.
type nothingCached struct{}

func (nothingCached) Invalidate(context.Context, ...string) error { return nil }

func (nothingCached) Inspect(context.Context, *contract.Descriptor, contract.Call) (cache.Stored, error) {
	return cache.Stored{}, errors.New("results are not cached: set " + envPrefix + "CACHE_URL to cache them")
}

func (nothingCached) Close() error { return nil }
