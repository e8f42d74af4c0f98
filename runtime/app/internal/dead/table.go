package dead

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/rabbet-fn/rabbet/runtime/app/internal/terminal"
	"github.com/rabbet-fn/rabbet/runtime/contract"
)

func (d *console) tableOfGroups(groups []contract.DeadLetterGroup) error {
	rows := [][]string{{"FUNCTION", "LETTERS", "FIRST", "LAST", "ERROR"}}
	for _, g := range groups {
		rows = append(rows, []string{g.Function, fmt.Sprint(g.Count), moment(g.First), moment(g.Last), line(g.Error)})
	}
	return d.table(rows, 4)
}

func (d *console) tableOfLetters(list []contract.DeadLetter) error {
	rows := [][]string{{"ID", "FUNCTION", "ATTEMPTS", "LAST", "KEY", "ERROR"}}
	for _, l := range list {
		rows = append(rows, []string{line(l.Event.ID), l.Function, attempts(&l), moment(l.Last), line(l.Event.Key), line(l.Error)})
	}
	return d.table(rows, 4)
}

// minLong is how many columns the long cells of a row need at least.
const minLong = 40

// table writes rows, a heading first. The first short cells of a row are short and
// the others long. If a terminal is too narrow for both, the long cells follow on a
// line of their own. Lines are cut at the width of a terminal, and nowhere else.
func (d *console) table(rows [][]string, short int) error {
	lines, widest := aligned(rows, short)
	twoLines := d.columns > 0 && widest+minLong > d.columns
	if !twoLines {
		lines, _ = aligned(rows, len(rows[0]))
	}
	for i, row := range rows {
		text := d.fit(lines[i]) + "\n"
		if twoLines {
			text += d.fit("  "+strings.Join(row[short:], "  ")) + "\n"
		}
		if _, err := fmt.Fprint(d.out, text); err != nil {
			return err
		}
	}
	return nil
}

// aligned formats the first n cells of each row, and returns the greatest width.
func aligned(rows [][]string, n int) (lines []string, widest int) {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(w, strings.Join(row[:n], "\t"))
	}
	_ = w.Flush() // a Builder never fails
	lines = strings.Split(strings.TrimSuffix(text.String(), "\n"), "\n")
	for _, l := range lines {
		widest = max(widest, utf8.RuneCountInString(l))
	}
	return lines, widest
}

// fit cuts s at the width of the terminal.
func (d *console) fit(s string) string {
	if d.columns == 0 {
		return s
	}
	return cut(s, d.columns)
}

func cut(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}

func attempts(l *contract.DeadLetter) string {
	if l.Event.Attempt == 0 {
		return "?"
	}
	return fmt.Sprint(l.Event.Attempt)
}

func moment(t time.Time) string {
	if t.IsZero() {
		return "?"
	}
	return t.Local().Format(time.DateTime)
}

// maxLine is how many characters of an error a table shows.
const maxLine = 120

// line returns s for a cell of a table: on one line, at most maxLine characters.
func line(s string) string {
	return cut(terminal.Printable(strings.Join(strings.Fields(s), " ")), maxLine)
}
