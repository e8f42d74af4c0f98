package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// deadExportCommand writes letters as JSON Lines.
type deadExportCommand struct {
	deadChoice `embed:""`
	Output     string `short:"o" placeholder:"FILE" help:"Write to this file, which must not exist yet; to standard output by default."`
	Reveal     bool   `help:"Write sensitive fields as well."`
}

// Run writes one letter per line. The letters stay.
func (cmd deadExportCommand) Run(ctx context.Context, c *config) error {
	return atDesk(ctx, c, &cmd.deadChoice, cmd.run)
}

func (cmd deadExportCommand) run(ctx context.Context, d *desk) error {
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

func (cmd deadExportCommand) write(ctx context.Context, d *desk, to io.Writer) error {
	out := json.NewEncoder(to)
	out.SetEscapeHTML(false)
	found, hidden := map[string]bool{}, 0
	counts, err := d.find(ctx, &cmd.deadChoice, func(l *contract.DeadLetter) (contract.DeadLetterAction, error) {
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
