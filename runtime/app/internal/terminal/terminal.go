// Package terminal is what the commands that a person runs share: errors of usage,
// arguments, and text that is safe to print. It knows none of the commands.
package terminal

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A UsageError reports a command line that cannot be carried out. The process
// exits with code 2.
type UsageError struct{ error }

// Usage marks err as a UsageError.
func Usage(err error) error { return &UsageError{err} }

func (e *UsageError) Unwrap() error { return e.error }

// Message returns the JSON that an argument gives: itself, or standard input
// for "-".
func Message(arg string) ([]byte, error) {
	body := []byte(arg)
	if arg == "-" {
		var err error
		if body, err = io.ReadAll(os.Stdin); err != nil {
			return nil, fmt.Errorf("read standard input: %w", err)
		}
	}
	if !json.Valid(body) {
		return nil, fmt.Errorf("the message is not JSON: %.60q; put it in single quotes, such as '{\"id\":\"42\"}'", body)
	}
	return body, nil
}

// PrintJSON writes v indented on standard output.
func PrintJSON(v any) error {
	out := json.NewEncoder(os.Stdout)
	out.SetIndent("", "  ")
	return out.Encode(v)
}

// Printable returns s with escapes in place of control characters, so that text
// from a message cannot control the terminal. Line breaks and tabs stay.
func Printable(s string) string {
	if !strings.ContainsFunc(s, controls) && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], string(utf8.RuneError)):
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case controls(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// controls reports whether r may control the terminal: the direction of text
// included.
func controls(r rune) bool {
	return unicode.IsControl(r) && r != '\n' && r != '\t' || unicode.Is(unicode.Bidi_Control, r)
}
