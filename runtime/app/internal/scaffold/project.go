package scaffold

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/app/internal/terminal"
)

// projectCommand is 'rabbet new NAME'.
type projectCommand struct {
	Folder  string `arg:"" help:"Folder to make, named as the project, such as shop."`
	Module  string `placeholder:"PATH" help:"Module path, such as example.org/shop, which is what the project shop has by default."`
	Replace string `type:"existingdir" placeholder:"DIR" help:"Use the Rabbet in this folder instead of a published version. This is the default when this program was built from a checkout."`
}

var (
	projectName = regexp.MustCompile(`^[a-z][a-z0-9]*(-[a-z0-9]+)*$`)
	modulePath  = regexp.MustCompile(`^[a-z0-9-]+(\.[a-z0-9-]+)+(/[A-Za-z0-9._~-]+)*$`)
)

// Run writes the project and says what to do next.
func (cmd projectCommand) Run(ctx context.Context) error {
	folder, err := filepath.Abs(cmd.Folder)
	if err != nil {
		return err
	}
	name := filepath.Base(folder)
	if !projectName.MatchString(name) {
		return terminal.Usage(fmt.Errorf("project %q: name it with lower-case letters, digits and single hyphens, such as shop", name))
	}
	module := cmd.Module
	if module == "" {
		module = "example.org/" + name
	}
	if !modulePath.MatchString(module) {
		return terminal.Usage(fmt.Errorf("--module %q: write a domain and a path, such as example.org/%s", module, name))
	}
	if entries, err := os.ReadDir(folder); err == nil && len(entries) > 0 {
		return fmt.Errorf("%s exists and is not empty: nothing was written; choose another folder, or add a function to it with 'rabbet new function'", cmd.Folder)
	}
	rabbet, err := findRequirement(ctx, cmd.Replace)
	if err != nil {
		return err
	}
	files, err := projectFiles(struct{ Name, Module string }{name, module})
	if err != nil {
		return err
	}
	files = append(files, rabbet.files(module)...)
	if err := writeAll(folder, files); err != nil {
		return err
	}
	note := rabbet.tidy(ctx, folder)
	fmt.Printf("Wrote %s, the module %s. It uses %s.\n%s\nNext:\n  cd %s\n  scripts/dev          # runs it; meanwhile, in another terminal:\n"+
		"  curl localhost:8080/greetings -d '{\"name\":\"Ada\"}'\n  .rabbet/bin/rabbet new function get-invoice --request \"GET /invoices/{id}\"\n  scripts/test\n",
		cmd.Folder, module, rabbet, note, cmd.Folder)
	return nil
}

// tidyTimeout is how long 'go mod tidy' may take, which downloads modules.
const tidyTimeout = 2 * time.Minute

// tidy completes go.mod and go.sum. It returns a line to print if that failed.
func (r *requirement) tidy(ctx context.Context, folder string) (note string) {
	ctx, cancel := context.WithTimeout(ctx, tidyTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "mod", "tidy")
	cmd.Dir = folder
	out, err := cmd.CombinedOutput()
	if err == nil || r.complete() {
		return ""
	}
	return fmt.Sprintf("\n'go mod tidy' failed: run it again in %s once its cause is gone:\n%s\n", folder, strings.TrimSpace(string(out)))
}
