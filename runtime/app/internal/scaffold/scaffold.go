// Package scaffold is 'rabbet new': it writes a new project, or a new function into
// one. It never changes a file that exists.
package scaffold

import (
	"bytes"
	"embed"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"text/template"
)

// Command is 'rabbet new'.
type Command struct {
	Project  projectCommand  `cmd:"" default:"withargs" help:"Write a project, as in 'rabbet new shop': a module with a function, an event function and their tests."`
	Function functionCommand `cmd:"" help:"Write a function and its test into the project of the working directory."`
}

//go:embed all:templates
var templates embed.FS

// A file is one to be written.
type file struct {
	name    string // relative, with slashes
	content []byte
	mode    fs.FileMode
}

// render executes the template with that name, below templates, and returns a file.
func render(template, name string, data any) (file, error) {
	text, err := templates.ReadFile("templates/" + template)
	if err != nil {
		return file{}, err
	}
	t, err := parse(template, string(text))
	if err != nil {
		return file{}, err
	}
	var content bytes.Buffer
	if err := t.Execute(&content, data); err != nil {
		return file{}, err
	}
	mode := fs.FileMode(0o644)
	if path.Base(path.Dir(name)) == "scripts" {
		mode = 0o755
	}
	return file{name, content.Bytes(), mode}, nil
}

// parse parses a template. Its delimiters are [[ and ]], since the files may hold
// braces of their own.
func parse(name, text string) (*template.Template, error) {
	return template.New(name).Delims("[[", "]]").Parse(text)
}

// writeAll writes files into dir. If one of them exists, it writes none.
func writeAll(dir string, files []file) error {
	if err := checkNew(dir, files); err != nil {
		return err
	}
	for _, f := range files {
		if err := write(filepath.Join(dir, filepath.FromSlash(f.name)), f); err != nil {
			return err
		}
	}
	return nil
}

// checkNew reports a file that exists in dir.
func checkNew(dir string, files []file) error {
	for _, f := range files {
		if path := filepath.Join(dir, filepath.FromSlash(f.name)); exists(path) {
			return fmt.Errorf("%s exists: nothing was written; remove it, or choose another name", path)
		}
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func write(path string, f file) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	w, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, f.mode)
	if err != nil {
		return err
	}
	_, err = w.Write(f.content)
	if closed := w.Close(); err == nil {
		err = closed
	}
	return err
}

// projectFiles renders the templates of a project.
func projectFiles(data any) ([]file, error) {
	var files []file
	err := fs.WalkDir(templates, "templates/project", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		target := strings.TrimSuffix(strings.TrimPrefix(name, "templates/project/"), ".tmpl")
		if hidden, ok := strings.CutPrefix(target, "dot-"); ok {
			target = "." + hidden
		}
		f, err := render(strings.TrimPrefix(name, "templates/"), target, data)
		files = append(files, f)
		return err
	})
	return files, err
}
