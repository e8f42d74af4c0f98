package dead

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"

	"github.com/rabbet-fn/rabbet/runtime/app/internal/config"
	"github.com/rabbet-fn/rabbet/runtime/app/internal/terminal"
	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// editCommand is 'rabbet dead edit'.
type editCommand struct {
	ID       string `arg:"" help:"Id of the letter."`
	Function string `short:"f" placeholder:"NAME" help:"Of this function, when several have a letter of that id."`
	Body     string `xor:"body" help:"The new body; - reads standard input. Without it, $VISUAL or $EDITOR opens."`
	File     string `xor:"body" placeholder:"FILE" help:"File with the new body."`
	Keep     bool   `help:"Keep the changed letter among the dead ones instead of replaying it."`
	Reveal   bool   `help:"Open the editor on sensitive fields, too."`
	Yes      bool   `short:"y" help:"Do not ask for confirmation."`
}

// Run gets the new body, asks for confirmation, and replays or keeps the letter.
// The letter stays where it is while the editor is open; if it was removed
// meanwhile, Run fails.
func (cmd editCommand) Run(ctx context.Context, c *config.Config, known []contract.Descriptor) error {
	if !cmd.Yes && (!atTerminal() || cmd.Body == "-") {
		return terminal.Usage(errors.New("nobody can confirm this (standard input is not a terminal, or is the body): add --yes to edit without a question"))
	}
	sel := cmd.selection()
	return withConsole(ctx, c, known, &sel, cmd.run)
}

func (cmd editCommand) selection() selection {
	sel := selection{IDs: []string{cmd.ID}}
	if cmd.Function != "" {
		sel.Function = []string{cmd.Function}
	}
	return sel
}

func (cmd editCommand) run(ctx context.Context, d *console) error {
	letter, err := cmd.letter(ctx, d)
	if err != nil {
		return err
	}
	old := letter.Event.Body
	body, err := cmd.newBody(ctx, d, letter)
	if err != nil {
		return err
	}
	if bytes.Equal(body, old) {
		fmt.Fprintln(d.notes, "nothing was changed")
		return nil
	}
	if json.Valid(old) && !json.Valid(body) {
		return fmt.Errorf("the new body is not JSON, and the old one was%s", rescue(body))
	}
	verb, fate, done := "replay", contract.ActionReplay, "replayed"
	if cmd.Keep {
		verb, fate, done = "keep", contract.ActionReplace, "changed"
	} else {
		d.warnOfIdle(map[string]int{letter.Function: 1})
	}
	if !cmd.Yes {
		if ok, err := d.confirm(ctx, fmt.Sprintf("%s the changed dead letter of %s?", verb, letter.Function)); !ok {
			return err
		}
	}
	sel := cmd.selection()
	sel.Function = []string{letter.Function}
	there := false
	_, err = d.find(ctx, &sel, func(l *contract.DeadLetter) (contract.DeadLetterAction, error) {
		if there || !bytes.Equal(l.Event.Body, old) {
			return contract.ActionKeep, nil
		}
		there = true
		l.Event.Body = body
		return fate, nil
	})
	if err != nil {
		return fmt.Errorf("%w%s", err, rescue(body))
	}
	if !there {
		return fmt.Errorf("the letter %q is gone, or was changed, meanwhile%s", cmd.ID, rescue(body))
	}
	fmt.Fprintf(d.out, "%s the dead letter %s of %s\n", done, cmd.ID, letter.Function)
	return nil
}

// letter returns the one letter with the id.
func (cmd editCommand) letter(ctx context.Context, d *console) (*contract.DeadLetter, error) {
	sel := cmd.selection()
	var found []contract.DeadLetter
	counts, err := d.find(ctx, &sel, func(l *contract.DeadLetter) (contract.DeadLetterAction, error) {
		found = append(found, *l)
		return contract.ActionKeep, nil
	})
	switch {
	case err != nil:
		return nil, err
	case len(found) == 0:
		return nil, sel.missing(nil)
	case len(found) > 1 && len(counts) == 1:
		return nil, fmt.Errorf("%s have the id %q: replay or discard one of them first (--limit 1)", letters(counts), cmd.ID)
	case len(found) > 1:
		return nil, fmt.Errorf("%s have the id %q: say which one with --function", letters(counts), cmd.ID)
	}
	return &found[0], nil
}

func (cmd editCommand) newBody(ctx context.Context, d *console, l *contract.DeadLetter) ([]byte, error) {
	switch {
	case cmd.Body == "-":
		return io.ReadAll(d.in)
	case cmd.Body != "":
		return []byte(cmd.Body), nil
	case cmd.File != "":
		return os.ReadFile(cmd.File)
	case !cmd.Reveal && !bytes.Equal(d.body(l, false), l.Event.Body) && bytes.Contains(d.body(l, false), []byte(contract.Redacted)):
		return nil, terminal.Usage(errors.New("the letter has sensitive fields, or may have: add --reveal to open an editor on them, or give --body or --file"))
	case !isText(l.Event.Body):
		return nil, terminal.Usage(errors.New("the body is not text: give the new one with --file"))
	}
	return openEditor(ctx, l)
}

// openEditor opens l's body in the editor of $VISUAL or $EDITOR and returns what was
// saved. JSON is indented for editing, and compacted again if it was on one line.
func openEditor(ctx context.Context, l *contract.DeadLetter) ([]byte, error) {
	editor := cmp.Or(os.Getenv("VISUAL"), os.Getenv("EDITOR"))
	if editor == "" {
		return nil, terminal.Usage(errors.New("there is no editor: set EDITOR, or give --body or --file"))
	}
	old, text := l.Event.Body, l.Event.Body
	isJSON, suffix := json.Valid(old), ".txt"
	if isJSON {
		var pretty bytes.Buffer
		_ = json.Indent(&pretty, old, "", "  ") // it is valid
		text, suffix = pretty.Bytes(), ".json"
	}
	text = append(bytes.Clone(text), '\n') // editors expect a line break at the end, and add it
	f, err := os.CreateTemp("", "rabbet-dead-*"+suffix)
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(text)
	if err = cmp.Or(err, f.Close()); err != nil {
		return nil, err
	}
	run := exec.CommandContext(ctx, "sh", "-c", editor+` "$1"`, "sh", f.Name())
	run.Stdin, run.Stdout, run.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := run.Run(); err != nil {
		return nil, fmt.Errorf("the editor %q failed (%w): nothing was done", editor, err)
	}
	body, err := os.ReadFile(f.Name())
	if err != nil {
		return nil, err
	}
	if bytes.Equal(body, text) {
		return old, nil
	}
	var flat bytes.Buffer
	if isJSON && !bytes.Contains(old, []byte("\n")) && json.Compact(&flat, body) == nil {
		return flat.Bytes(), nil
	}
	if !bytes.HasSuffix(old, []byte("\n")) {
		body = bytes.TrimSuffix(body, []byte("\n"))
	}
	return body, nil
}

// rescue saves a body that cannot be used, and returns a text that says where.
func rescue(body []byte) string {
	f, err := os.CreateTemp("", "rabbet-dead-*")
	if err != nil {
		return ""
	}
	defer f.Close()
	if _, err := f.Write(body); err != nil {
		return ""
	}
	return ": your text is in " + f.Name() + " (try again with --file)"
}
