package dead

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/app/internal/terminal"
	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// A selection chooses dead letters: those that match all of it.
type selection struct {
	IDs      []string `arg:"" optional:"" name:"id" help:"Ids of letters."`
	Function []string `short:"f" placeholder:"NAME" help:"Of this function; may be repeated. Of all by default."`
	Code     []string `placeholder:"CODE" help:"With this reason, such as exhausted or invalid; may be repeated."`
	Error    string   `placeholder:"TEXT" help:"With this text in the error."`
	Key      string   `placeholder:"PATTERN" help:"With this routing key, or one that matches a pattern such as order.#."`
	Older    age      `placeholder:"AGE" help:"Whose last failure is older than this, such as 36h or 7d."`
	Newer    age      `placeholder:"AGE" help:"Whose last failure is newer than this."`
	Field    []string `sep:"none" placeholder:"PATH=VALUE" help:"With this value in the JSON body, such as customer.id=42; may be repeated."`
	Limit    int      `placeholder:"N" help:"At most this many, the oldest of each function first."`
}

// filter returns the filter of s for letters as of now.
func (s *selection) filter(now time.Time) (contract.DeadLetterFilter, error) {
	f := contract.DeadLetterFilter{IDs: s.IDs, Error: s.Error, Key: s.Key}
	for _, code := range s.Code {
		f.Codes = append(f.Codes, contract.Code(code))
	}
	if s.Older > 0 {
		f.Before = now.Add(-time.Duration(s.Older))
	}
	if s.Newer > 0 {
		f.After = now.Add(-time.Duration(s.Newer))
	}
	for _, text := range s.Field {
		field, err := contract.ParseDeadLetterField(text)
		if err != nil {
			return f, terminal.Usage(err)
		}
		f.Fields = append(f.Fields, field)
	}
	if s.Limit < 0 {
		return f, terminal.Usage(fmt.Errorf("--limit %d: choose 1 or more", s.Limit))
	}
	return f, nil
}

// missing reports an id of s that was not found.
func (s *selection) missing(found map[string]bool) error {
	for _, id := range s.IDs {
		if !found[id] {
			return fmt.Errorf("there is no dead letter %q among those selected: 'rabbet dead list --ids' shows all", id)
		}
	}
	return nil
}

// age is a duration that may be given in days.
type age time.Duration

// UnmarshalText reads "36h" and "7d".
func (a *age) UnmarshalText(text []byte) error {
	s := string(text)
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseFloat(days, 64)
		if err != nil || n <= 0 || n > 36_500 {
			return fmt.Errorf("%q is not an age: write it as 90m, 36h or 7d", s)
		}
		*a = age(n * 24 * float64(time.Hour))
		return nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return fmt.Errorf("%q is not an age: write it as 90m, 36h or 7d", s)
	}
	*a = age(d)
	return nil
}
