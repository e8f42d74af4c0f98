// Package results holds the commands that show and invalidate cached results. It
// does not know which store has them.
package results

import (
	"context"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/app/internal/config"
	"github.com/rabbet-fn/rabbet/runtime/app/internal/devstate"
	"github.com/rabbet-fn/rabbet/runtime/app/internal/services"
	"github.com/rabbet-fn/rabbet/runtime/app/internal/terminal"
	"github.com/rabbet-fn/rabbet/runtime/cache"
	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/faas"
)

// Command is 'rabbet cache'.
type Command struct {
	Get        getCommand        `cmd:"" help:"Show what is stored for a call."`
	Invalidate invalidateCommand `cmd:"" help:"Make results stale by their tags."`
	Stats      statsCommand      `cmd:"" help:"Show how often results were found, filled and invalidated, by process."`
}

// getCommand shows what is stored for a call. It runs no function.
type getCommand struct {
	Function string `arg:"" help:"Name of the function, or its routing key."`
	Message  string `arg:"" optional:"" default:"{}" help:"The message as JSON; - reads standard input."`
}

// Run prints what is stored on standard output.
func (cmd getCommand) Run(ctx context.Context, c *config.Config) error {
	body, err := terminal.Message(cmd.Message)
	if err != nil {
		return err
	}
	b, err := services.Dial(ctx, c)
	if err != nil {
		return err
	}
	defer b.Close()
	f, ok := b.Directory().Find(cmd.Function)
	if !ok {
		return fmt.Errorf("there is no function %q: 'rabbet functions' lists what is live", cmd.Function)
	}
	results, err := open(c, b)
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
		case !s.Found: // there is no entry to compare it with
		case tag.Agrees:
			state = "\tagrees"
		default:
			state = "\tinvalidated since"
		}
		fmt.Fprintf(t, "tag\t%s%s\n", terminal.Printable(tag.Tag), state)
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
	_, err := fmt.Fprintf(w, "\n%s\n", terminal.Printable(string(s.Body)))
	return err
}

// invalidateCommand makes results stale.
type invalidateCommand struct {
	Tags []string `arg:"" help:"Tags, such as profile:42."`
}

// Run prints a tag once no result with it is served any more.
func (cmd invalidateCommand) Run(ctx context.Context, c *config.Config) error {
	b, err := services.Dial(ctx, c)
	if err != nil {
		return err
	}
	defer b.Close()
	results, err := open(c, b)
	if err != nil {
		return err
	}
	defer results.Close()
	for _, tag := range cmd.Tags {
		if err := results.Invalidate(ctx, tag); err != nil {
			return fmt.Errorf("%w; check that it runs, then try again", err)
		}
		fmt.Println("invalidated", terminal.Printable(tag))
	}
	return nil
}

// statsCommand asks every process for its counters.
type statsCommand struct {
	JSON bool          `help:"Print them as JSON."`
	Wait time.Duration `default:"500ms" help:"How long to wait for answers."`
}

// Run prints a table on standard output.
func (cmd statsCommand) Run(ctx context.Context, c *config.Config) error {
	if cmd.Wait <= 0 {
		return terminal.Usage(fmt.Errorf("--wait %v: choose a duration such as 500ms", cmd.Wait))
	}
	b, err := services.Dial(ctx, c)
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
		return terminal.PrintJSON(all)
	}
	if len(all) == 0 {
		fmt.Println("no process answered: none that caches results is running (set " + config.Prefix + "CACHE_URL for the ingresses and the workers), or --wait is too short")
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
				kept += ", off: broadcasts are not received"
			}
		}
		fmt.Fprintf(t, "%s\t%d\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%s\t%s\t%s\t%s\n",
			s.Process, s.Hits, rate, s.Stale, s.Misses, s.Collapsed, s.Bypasses, s.Fills, s.Invalidated, s.Errors, size(s.Read), size(s.Written), local, kept)
	}
	return t.Flush()
}

// size formats a number of bytes.
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

// open opens the results that the processes of c use.
func open(c *config.Config, b services.Broker) (devstate.Results, error) {
	if c.Embedded() && c.DevCache() {
		return devstate.RemoteResults(faas.NewBus(b)), nil
	}
	if err := c.RefuseOwnCache(); err != nil {
		return nil, err
	}
	own := *c
	own.CacheLocal = 0 // this process ends in a moment
	results, err := services.OpenCache(&own, b, "none", zap.NewNop())
	if err != nil {
		return nil, err
	}
	if results == nil {
		return nil, config.Unusable(config.Prefix+"CACHE_URL", c.CacheURL, "results are not cached: set it as for the ingress and the workers")
	}
	return results, nil
}
