package dead

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/rabbet-fn/rabbet/runtime/app/internal/config"
	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// exportCommand is 'rabbet dead export'.
type exportCommand struct {
	selection `embed:""`
	Output    string `short:"o" placeholder:"FILE" help:"Write to this file, which must not exist yet; to standard output by default."`
	Reveal    bool   `help:"Write sensitive fields as well."`
}

// Run writes one letter a line, as JSON. The letters stay.
func (cmd exportCommand) Run(ctx context.Context, c *config.Config, known []contract.Descriptor) error {
	return withConsole(ctx, c, known, &cmd.selection, cmd.run)
}

func (cmd exportCommand) run(ctx context.Context, d *console) error {
	if cmd.Output == "" {
		return cmd.write(ctx, d, d.out)
	}
	f, err := os.OpenFile(cmd.Output, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		if errors.Is(err, os.ErrExist) {
			return fmt.Errorf("%w: remove it, or choose another", err)
		}
		return err
	}
	err = cmd.write(ctx, d, f)
	if closed := f.Close(); err == nil {
		err = closed
	}
	return err
}

func (cmd exportCommand) write(ctx context.Context, d *console, to io.Writer) error {
	out := json.NewEncoder(to)
	out.SetEscapeHTML(false)
	found, hidden := map[string]bool{}, 0
	counts, err := d.find(ctx, &cmd.selection, func(l *contract.DeadLetter) (contract.DeadLetterAction, error) {
		found[l.Event.ID] = true
		body := d.body(l, cmd.Reveal)
		if !bytes.Equal(body, l.Event.Body) && bytes.Contains(body, []byte(contract.Redacted)) {
			hidden++
		}
		return contract.ActionKeep, out.Encode(recordOf(l, body))
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(d.notes, "exported %s\n", letters(counts))
	if hidden > 0 {
		fmt.Fprintf(d.notes, "%d of them without what is sensitive, or may be: --reveal writes all\n", hidden)
	}
	return cmd.missing(found)
}
